"""A `ktrdr serve` elsewhere: what is asked of it, and errors as if they had happened here."""

import os
import random
import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx
from pydantic import SecretStr, TypeAdapter, ValidationError

from ktrdr import __version__
from ktrdr.addresses import is_loopback
from ktrdr.backend.problem_codes import CODES
from ktrdr.errors import (
    KtrdrError,
    ServerError,
    ServerUnreachableError,
    SettingsError,
    StrategyError,
)
from ktrdr.errors import Problem as StrategyProblem

T = TypeVar("T")

API = "/api/v1"
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_TRIES = 5
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_AGAIN = frozenset({429, 502, 503, 504})
_CUT_OFF = (httpx.RemoteProtocolError, httpx.ReadError)
"""What comes of it if one speaks TLS and the other does not, among other things."""
_OF_GATEWAYS = frozenset({502, 503, 504})
"""What stands before a server answers so when it does not hear from it."""
_PROBLEM = "application/problem+json"
_SAME_VERSION = "Use the same version of ktrdr here and there: ktrdr --version"
_ERRORS = {code: kind for kind, _, code in CODES if not issubclass(kind, StrategyError | SettingsError)}
_PROBLEMS = TypeAdapter(list[StrategyProblem])


class Server:
    """Asks a server, once more if that changes nothing and the answer has not come.

    Args:
        url: as ``https://host:8420``.
        token: what it asks for; None: it asks for none.
        pause: waits so many seconds before the next try.
        timeout: for how long it is waited for.

    Raises:
        SettingsError: that is no address, or that no token.
    """

    def __init__(
        self,
        url: str,
        token: SecretStr | None,
        *,
        pause: Callable[[float], None] = time.sleep,
        timeout: httpx.Timeout = TIMEOUT,
    ) -> None:
        parts = _parts_of(url)
        if parts.username is not None or parts.query or parts.fragment:
            raise SettingsError(
                "The address of a server has no user, query or fragment.",
                fix="Give the token in KTRDR_TOKEN or KTRDR_TOKEN_FILE.",
            )
        self.url = url.rstrip("/")
        self._path = parts.path.rstrip("/")
        self.is_exposed = parts.scheme == "http" and token is not None and not is_loopback(parts.hostname)
        """Whether the token can be read on the way."""
        self.headers = {"User-Agent": f"ktrdr/{__version__}"}
        if token is not None:
            self.headers["Authorization"] = f"Bearer {_sendable(token)}"
        self._pause = pause
        self._timeout = timeout

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """Whose certificates are trusted: read once, which takes as long as a request."""
        try:
            return httpx.create_ssl_context()
        except OSError as error:  # also what OpenSSL has to say
            raise SettingsError(
                f"Whom to trust cannot be read from {os.environ.get('SSL_CERT_FILE', 'a file')}: "
                f"{error.strerror or error}.",
                fix="Name a PEM file with the authority's certificate in SSL_CERT_FILE, or unset it.",
            ) from error

    def get(self, path: str, kind: TypeAdapter[T], **params: Any) -> T:
        """Return what is there, as it is meant to be read."""
        given = {name: value for name, value in params.items() if value is not None}
        return self.read(kind, self._ask("GET", path, params=given).content)

    def put(self, path: str, body: object) -> None:
        """Replace what is there."""
        self._ask("PUT", path, json=body)

    def post(self, path: str, body: object, kind: TypeAdapter[T]) -> T:
        """Have something done that comes to the same if it is asked for twice."""
        return self.read(kind, self._ask("POST", path, json=body).content)

    def make(self, path: str, body: object, kind: TypeAdapter[T]) -> T:
        """Have something made; asked for once, as another try could make another."""
        return self.read(kind, self._ask("POST", path, tries=1, json=body).content)

    def submit(self, path: str, wish: Mapping[str, object], kind: TypeAdapter[T]) -> T:
        """Have something begun once, with what of the wish is not None."""
        body = {name: value for name, value in wish.items() if value is not None}
        # One key for all tries: a request whose answer was lost makes no second operation.
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self.read(kind, self._ask("POST", path, json=body, headers=headers).content)

    def download(self, path: str, take: Callable[[Iterator[bytes]], None]) -> None:
        """Have what is there taken part by part; from the beginning again if the connection is lost."""
        self._ask("GET", path, take=take)

    def read(self, kind: TypeAdapter[T], text: str | bytes) -> T:
        """Return what an answer, or an event of a stream, says in JSON.

        Raises:
            ServerError: it is not what this version of the program understands, or not of a ktrdr server.
        """
        try:
            return kind.validate_json(text)
        except ValidationError as error:
            is_json = error.errors()[0]["type"] != "json_invalid"
            raise (self._misunderstood(error) if is_json else self._no_server()) from error

    def _misunderstood(self, error: ValidationError) -> ServerError:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return ServerError(
            f"The server {self.url} answers what this version ({__version__}) does not understand: "
            f"{where}: {first['msg']}.",
            fix=_SAME_VERSION,
        )

    def unreachable(self, error: httpx.TransportError) -> ServerError:
        """Return the error that tells of a connection that failed."""
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ServerError(
                f"The certificate of {self.url} is not trusted: {error}.",
                fix="Name the file of your authority in SSL_CERT_FILE, and the host as the certificate does.",
            )
        if isinstance(error, httpx.ReadTimeout):
            return ServerUnreachableError(
                f"The server {self.url} has not answered within {self._timeout.read:g} s.",
                fix="See whether it is overloaded (its log, /health/ready), and whether a `ktrdr serve` "
                "listens there.",
            )
        fix = (
            "See whether `ktrdr serve` runs there, and whether --server or KTRDR_SERVER is right; "
            "without it, the command works on this machine."
        )
        if "[SSL" in str(error):
            fix = f"If it speaks http there, and not https, give its address with http://. {fix}"
        elif isinstance(error, _CUT_OFF) and self.url.startswith("http:"):
            fix = f"If it speaks https there, and not http, give its address with https://. {fix}"
        why = str(error).rstrip(".") or type(error).__name__
        return ServerUnreachableError(f"The server {self.url} cannot be reached: {why}.", fix=fix)

    def error_of(self, answer: httpx.Response) -> KtrdrError:
        """Return the error that an answer tells of, as it would be raised here."""
        if answer.is_redirect:
            there = answer.headers.get("location", "elsewhere")
            return ServerError(
                f"{self.url} sends on to {there}.", fix="Give the address of that in --server."
            )
        if answer.headers.get("content-type", "").partition(";")[0] != _PROBLEM:
            if answer.status_code in _OF_GATEWAYS:
                return ServerUnreachableError(
                    f"The server {self.url} cannot be reached: a gateway before it answers "
                    f"{answer.status_code}.",
                    fix="See whether `ktrdr serve` runs behind it, and whether the gateway's time limit is "
                    "long enough.",
                )
            return self._no_server(answer.status_code)
        try:
            problem = dict(answer.json())
            code, detail = str(problem["code"]), str(problem["detail"])
            fix = str(problem["fix"]) if problem.get("fix") else None
            problems = _PROBLEMS.validate_python(problem.get("problems", []))
        except (ValueError, KeyError, TypeError):
            return self._no_server(answer.status_code)
        if code == "invalid-strategy":
            return StrategyError("strategy", problems)
        if code in _ERRORS:
            return _ERRORS[code](detail, fix=fix)
        match code:
            case "no-token" | "wrong-token":
                fix = (
                    "Make one where it runs (ktrdr tokens create NAME --role operator), and set KTRDR_TOKEN "
                    "to it, or KTRDR_TOKEN_FILE to a file with it."
                )
            case "not-found" | "method-not-allowed":
                detail, fix = "It does not know what it was asked for.", _SAME_VERSION
                if self._path:
                    fix = f"Give its address without {self._path}, unless it is found there. {fix}"
            case "no-such-strategy":
                fix = "See what there is (ktrdr strategies list), or give a file that is here."
            case "too-many-requests":
                fix = "Wait a little, or have KTRDR_API_RATE_PER_S raised there."
        return ServerError(f"The server {self.url} refuses: {detail}", fix=fix, code=code)

    def _ask(self, method: str, path: str, *, tries: int = _TRIES, **request: Any) -> httpx.Response:
        for left in reversed(range(tries)):
            wait_s = _FIRST_PAUSE_S * 2.0 ** (tries - 1 - left) * random.uniform(0.5, 1.0)  # noqa: S311
            try:
                answer = self._send(method, path, **request)
            except httpx.TransportError as error:
                # What has not come in a minute is not waited for again, unless something was begun by it.
                is_slow = isinstance(error, httpx.ReadTimeout) and method == "GET" and "take" not in request
                if not left or is_slow or "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise self.unreachable(error) from error
            else:
                if answer.is_success:
                    return answer
                if answer.status_code not in _AGAIN or not left:
                    raise self.error_of(answer)
                wait_s = max(wait_s, _asked_to_wait_s(answer.headers))
            self._pause(min(wait_s, _LONGEST_PAUSE_S))
        raise AssertionError("the last try returns or raises")

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {**self.headers, **request.pop("headers", {})}
        take: Callable[[Iterator[bytes]], None] | None = request.pop("take", None)
        url = f"{self.url}{API}{path}"
        with (
            httpx.Client(timeout=self._timeout, verify=self.trust) as client,
            client.stream(method, url, headers=headers, **request) as answer,
        ):
            if take is not None and answer.is_success:
                take(answer.iter_bytes())
            else:
                answer.read()
            return answer

    def _no_server(self, status: int = 200) -> ServerError:
        return ServerError(
            f"{self.url} is not a ktrdr server: it answers in another way (status {status}).",
            fix="Give the address at which `ktrdr serve` listens, without a path.",
        )


def _parts_of(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of the port, or of brackets
        is_address = False
    if not is_address:
        raise SettingsError(
            f"'{_without_password(url)}' is not the address of a server.",
            fix="Give one with http:// or https:// in front, as in https://host:8420.",
        )
    return parts


def _without_password(url: str) -> str:
    return re.sub(r"(?<=:)[^:@/]*(?=@)", "***", url)


def _sendable(token: SecretStr) -> str:
    """Return what a header can hold; what is refused is not shown."""
    text = token.get_secret_value()
    if not re.fullmatch(r"[!-~]+", text):
        raise SettingsError(
            "The token has characters that no token has: blanks, several lines, or letters with accents.",
            fix="Set KTRDR_TOKEN to what `ktrdr tokens create` has printed, or KTRDR_TOKEN_FILE to a file "
            "with that alone.",
        )
    return text


def _asked_to_wait_s(headers: Mapping[str, str]) -> float:
    try:
        return float(headers.get("retry-after", "0"))
    except ValueError:  # a date
        return 0.0
