"""Who may use the endpoint: whoever shows a token, as far as its role goes; each only so often."""

import asyncio
import contextvars
import hashlib
import hmac
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool

from ktrdr.addresses import is_loopback
from ktrdr.backend.api.problems import Problem
from ktrdr.backend.api.rates import RateLimit
from ktrdr.backend.tokens import AccessToken, AccessTokens, Role
from ktrdr.errors import SettingsError

MIN_TOKEN_CHARACTERS = 16
_KNOWN = 10_000
"""Tokens of which their hash is remembered."""

Dependency = Callable[..., Awaitable[None]]

_scheme = HTTPBearer(auto_error=False, description="As `ktrdr tokens create` prints it.")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    name: str
    """For the audit log."""
    role: Role


class Access:
    """Makes the dependencies of routes that let some pass and others not.

    Args:
        tokens: who is known; None: everyone who reaches the port may do everything, which `serving` then
            allows on this machine alone.
        rate: how often one may ask.
        failures: how often one address may show what is no token.
    """

    def __init__(self, tokens: AccessTokens | None, *, rate: RateLimit, failures: RateLimit) -> None:
        self._tokens = _Recognition(tokens) if tokens is not None else None
        self._rate = rate
        self._failures = failures

    def reading(self, role: Role = Role.VIEWER) -> Dependency:
        """Return a dependency that lets those pass who have the role."""
        return self._dependency(role, writes=False)

    def writing(self, role: Role) -> Dependency:
        """Return the same for what changes something, and is written down in the audit log."""
        return self._dependency(role, writes=True)

    def _dependency(self, role: Role, *, writes: bool) -> Dependency:
        async def check(
            request: Request,
            shown: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)] = None,
        ) -> None:
            if self._tokens is None:
                refuse_other_origins(request)
                principal = Principal("anyone", Role.ADMIN)
            else:
                principal = await self._who(request, shown, self._tokens)
            request.state.principal = principal.name
            request.state.writes = writes
            _check_rate(self._rate, principal.name)
            if not principal.role.includes(role):
                raise Problem(
                    HTTPStatus.FORBIDDEN,
                    "wrong-role",
                    f"This takes the role {role}; the token's is {principal.role}.",
                    fix=f"Use a token of that role: ktrdr tokens create NAME --role {role}",
                )

        return check

    async def _who(
        self, request: Request, shown: HTTPAuthorizationCredentials | None, tokens: "_Recognition"
    ) -> Principal:
        address = request.client.host if request.client is not None else ""
        # Whoever guesses must not lock out those who come from the same address, as by way of a proxy.
        if self._failures.wait_s(address) > 0 and (shown is None or not tokens.knows(shown.credentials)):
            _check_rate(self._failures, address)
        token = await tokens.recognise(shown.credentials) if shown is not None else None
        if token is None:
            _check_rate(self._failures, address)
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "wrong-token" if shown is not None else "no-token",
                "The token lets nobody in: it is wrong, has expired or was revoked."
                if shown is not None
                else "There is no token.",
                fix="Make one where the backend runs (ktrdr tokens create NAME), and send it as "
                "'Authorization: Bearer TOKEN'.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return Principal(token.title, token.role)


class _Recognition:
    """Asks the database about the tokens of all requests that have come meanwhile, each once.

    A token is looked up after the request that shows it has come, so one that is revoked lets nobody in.
    """

    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[AccessToken | None]] = {}
        self._looking: asyncio.Task[None] | None = None

    def knows(self, secret: str) -> bool:
        """Return whether it was a token the last time that it was shown here, of the latest so many."""
        return _digest(secret) in self._known

    async def recognise(self, secret: str) -> AccessToken | None:
        """Return what `AccessTokens.recognise` returns."""
        found = self._waiting.get(secret)
        if found is None:
            found = self._waiting[secret] = asyncio.get_running_loop().create_future()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), context=contextvars.Context())
        return await asyncio.shield(found)  # others may wait for it too

    async def _look(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                try:
                    tokens = await run_in_threadpool(self._tokens.recognise_all, list(waiting))
                except Exception as error:
                    for found in waiting.values():
                        found.set_exception(error)
                        found.exception()  # nobody may be left to be told
                else:
                    for found, token in zip(waiting.values(), tokens, strict=True):
                        found.set_result(token)
                    for secret, token in zip(waiting, tokens, strict=True):
                        self._remember(_digest(secret), is_good=token is not None)
        finally:
            self._looking = None

    def _remember(self, digest: bytes, *, is_good: bool) -> None:
        self._known.pop(digest, None)
        if is_good:
            self._known[digest] = None
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)


def bearer(token: SecretStr) -> Dependency:
    """Return a dependency that lets requests pass that carry the one token; only its hash is kept.

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
        request.state.principal = "agents (KTRDR_BLOB_TOKEN)"
        request.state.writes = True

    return check


def refuse_other_origins(request: Request) -> None:
    """Refuse what a page of another site has a browser of this machine send: there is no token to stop it."""
    origin = request.headers.get("origin")
    urls = [f"//{request.headers.get('host', '')}", *([origin] if origin is not None else [])]
    if not all(map(_is_of_this_machine, urls)):
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "other-origin",
            "Without tokens, requests must be addressed to this machine by its own name, and come from it.",
            fix="Use http://127.0.0.1 and the port, or tokens: ktrdr serve without --insecure.",
        )


def _is_of_this_machine(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname)
    except ValueError:  # it is no URL at all
        return False


def _check_rate(rate: RateLimit, who: str) -> None:
    wait_s = rate.take(who)
    if wait_s > 0:
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too-many-requests",
            f"More than {rate.per_s:g} requests a second.",
            fix=f"Ask again in {wait_s:.1f} s; to wait for something, GET /api/v1/operations/ID/events.",
            headers={"Retry-After": str(math.ceil(wait_s))},
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
