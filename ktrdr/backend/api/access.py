"""Who may use the endpoint: whoever shows the token."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import Request
from pydantic import SecretStr

from ktrdr.backend.api.problems import Problem
from ktrdr.errors import SettingsError

MIN_TOKEN_CHARACTERS = 16


def bearer(token: SecretStr) -> Callable[[Request], Awaitable[None]]:
    """Return a dependency that lets requests pass that carry the token; only its hash is kept.

    Raises:
        SettingsError: the token is too short to be one.
    """
    if len(token.get_secret_value()) < MIN_TOKEN_CHARACTERS:
        raise SettingsError(
            f"KTRDR_BLOB_TOKEN has fewer than {MIN_TOKEN_CHARACTERS} characters.",
            fix="Set it to something that cannot be guessed, as `openssl rand -hex 32` prints it.",
        )
    expected = _digest(token.get_secret_value())

    async def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Hashes, so that neither the length nor the time of the comparison says anything about the token.
        if not hmac.compare_digest(_digest(given.strip()), expected) or scheme.lower() != "bearer":
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "wrong-token" if given else "no-token",
                "The token is not the one that the backend has." if given else "There is no token.",
                fix="Set KTRDR_BLOB_TOKEN to the same as at the backend.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
