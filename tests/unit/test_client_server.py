"""What a client says of a server that does not answer as it should, and when it asks again."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr, TypeAdapter

from ktrdr.backend.problem_codes import CODES
from ktrdr.backend.wishes import DefaultMode, TrainingWish
from ktrdr.client.remote import ServedInstallation
from ktrdr.client.server import Server
from ktrdr.errors import (
    DatabaseUnavailableError,
    KtrdrError,
    OperationNotFoundError,
    ServerError,
    ServerUnreachableError,
    SettingsError,
)
from tests.broker.certificates import Certificates

PROBLEM = "application/problem+json"
MODE = TypeAdapter(DefaultMode)
GOOD = (200, "application/json", '{"mode": "auto", "source": "set at run time"}')
Answer = tuple[int, str, str]


class Scripted(ThreadingHTTPServer):
    """Answers as it is told, the last answer for ever; remembers what was asked."""

    def __init__(self, *answers: Answer, **headers: str) -> None:
        self.answers, self.headers = list(answers), headers
        self.asked: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.headers.get("Authorization")))
        status, kind, body = (
            self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        )
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in self.server.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def answering(*answers: Answer, **headers: str) -> Iterator[Scripted]:
    with Scripted(*answers, **headers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_a_certificate_of_ones_own_authority_is_trusted_once_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Certificates.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with answering(GOOD) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with pytest.raises(ServerError, match="not trusted") as refused:
            Server(server.url, None).get("/trainings/config", MODE)
        assert "SSL_CERT_FILE" in str(refused.value.fix)
        assert server.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        assert Server(server.url, None).get("/trainings/config", MODE).mode == "auto"


def problem(status: int, code: str, detail: str = "Something is wrong.", fix: str = "") -> Answer:
    return status, PROBLEM, f'{{"code": "{code}", "detail": "{detail}", "fix": "{fix}"}}'


def refused(*answers: Answer, **headers: str) -> tuple[KtrdrError, Scripted, list[float]]:
    """Return the error that comes of these answers, who gave them, and the pauses between."""
    pauses: list[float] = []
    with answering(*answers, **headers) as server:
        with pytest.raises(KtrdrError) as raised:
            Server(server.url, SecretStr("secret"), pause=pauses.append).get("/x", MODE)
        return raised.value, server, pauses


@pytest.mark.parametrize(
    ("answer", "says", "fix"),
    [
        (problem(401, "wrong-token"), "refuses: Something is wrong.", "set KTRDR_TOKEN"),
        (problem(403, "wrong-role", fix="Use another."), "refuses: Something is wrong.", "Use another."),
        (problem(404, "not-found"), "does not know what it was asked for", "Use the same version"),
        (problem(500, "defect"), "refuses: Something is wrong.", None),
        ((404, "text/html", "<h1>It works!</h1>"), "is not a ktrdr server", "without a path"),
        ((200, "text/html", "<h1>It works!</h1>"), "is not a ktrdr server", "without a path"),
        ((200, "application/json", '{"mode": "auto"}'), "does not understand: source", "same version"),
        ((404, PROBLEM, "[]"), "is not a ktrdr server", "without a path"),
    ],
)
def test_each_answer_is_an_error_that_says_what_to_do(answer: Answer, says: str, fix: str | None) -> None:
    error, server, _ = refused(answer)
    assert isinstance(error, ServerError)
    assert says in error.message
    assert fix is None or fix in str(error.fix)
    assert server.asked == [("GET", "Bearer secret")]
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda there: there.strategies(), "{}"),
        (lambda there: there.strategies(), '{"strategies": [{"name": "x"}]}'),
        (lambda there: there.verify("x"), '{"findings": [{"file": 1}]}'),
        (lambda there: there.check("x", {}, strict=False), '{"problems": null}'),
        (lambda there: there.default_mode(), '{"default_mode": "moon", "source": "it says so"}'),
        (lambda there: there.dead_letters.list(reason=None, limit=1), '{"letters": [], "looked_at": 0}'),
        (lambda there: there.clean(apply=False), '{"refuse": [{}], "left_alone": []}'),
        (lambda there: there.log("x", "debug"), '{"data": [{}], "next_after": null}'),
        (lambda there: there.start(TrainingWish("x"), None), '{"id": "x"}'),
        (lambda there: there.list_operations(state=None, strategy=None, limit=1, before=None), "[]"),
    ],
)
def test_what_another_version_answers_is_an_error_that_says_so(
    ask: Callable[[ServedInstallation], object], answer: str
) -> None:
    with (
        answering((200, "application/json", answer)) as server,
        pytest.raises(ServerError, match="does not understand") as raised,
    ):
        ask(ServedInstallation(Server(server.url, None)))
    assert "same version" in str(raised.value.fix)


def test_a_problem_is_the_error_that_it_was_there() -> None:
    error, _, _ = refused(problem(404, "no-such-operation", "There is no operation 'x'.", "Look."))
    assert type(error) is OperationNotFoundError
    assert (error.message, error.fix) == ("There is no operation 'x'.", "Look.")


def test_no_code_stands_for_two_errors() -> None:
    codes = [code for _, _, code in CODES if code != "invalid-request"]
    assert len(set(codes)) == len(codes)


def test_who_is_busy_is_asked_again_when_it_says() -> None:
    with answering(
        problem(429, "too-many-requests"), (502, "text/html", ""), GOOD, Retry_After="7"
    ) as server:
        pauses: list[float] = []
        found = Server(server.url, None, pause=pauses.append).get("/x", MODE)
    assert found.source == "set at run time"
    assert pauses == [7.0, 7.0]
    assert server.asked == [("GET", None)] * 3


def test_who_stays_busy_is_given_up_with_what_it_says() -> None:
    error, server, pauses = refused(problem(503, "database-unavailable", "It is away."))
    assert isinstance(error, DatabaseUnavailableError)
    assert len(server.asked) == len(pauses) + 1 == 5


def test_a_gateway_that_does_not_reach_the_server_is_told_from_a_server_of_another_kind() -> None:
    error, server, _ = refused((502, "text/html", "<h1>Bad Gateway</h1>"))
    assert isinstance(error, ServerUnreachableError)
    assert "a gateway before it answers 502" in error.message
    assert len(server.asked) == 5


def test_a_token_is_not_sent_on_to_another_server() -> None:
    with answering(GOOD) as other:
        error, _, _ = refused((307, "text/plain", ""), Location=f"{other.url}/x")
    assert f"sends on to {other.url}/x" in error.message
    assert other.asked == []


def test_one_that_accepts_and_never_answers_is_waited_for_once() -> None:
    pauses: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server = Server(url, None, pause=pauses.append, timeout=httpx.Timeout(60.0, read=0.1))
        with pytest.raises(ServerUnreachableError, match=r"has not answered within 0\.1 s") as raised:
            server.get("/x", MODE)
    assert pauses == []
    assert "overloaded" in str(raised.value.fix)


def test_a_server_that_is_not_there_is_an_error_after_some_tries() -> None:
    with answering(GOOD) as gone:
        url = gone.url
    pauses: list[float] = []
    with pytest.raises(ServerUnreachableError, match="cannot be reached") as raised:
        Server(url, None, pause=pauses.append).get("/x", MODE)
    assert len(pauses) == 4
    assert "KTRDR_SERVER" in str(raised.value.fix)


@pytest.mark.parametrize(
    "url",
    [
        "box:8420",
        "ftp://box",
        "http://",
        "https://me:secret@box",
        "http://box?x=1",
        "http://box:x",
        "http://box:99999",
        "http://box:0",
        "http://[box",
        "http://me:secret@box:x",
        "",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Server(url, None)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("token", ["", "two secrets", "secret\nsecret", "sécret", "secret\x7f"])
def test_what_cannot_be_a_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(SettingsError, match="no token has") as raised:
        Server("http://box", SecretStr(token))
    assert "cret" not in str(raised.value).replace("secrets", "")
    assert "KTRDR_TOKEN_FILE" in str(raised.value.fix)


def test_authorities_that_cannot_be_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    for name in ("no.pem", "not-there.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        with answering(GOOD) as server, pytest.raises(SettingsError, match=name) as raised:
            Server(server.url, None).get("/x", MODE)
        assert "SSL_CERT_FILE" in str(raised.value.fix)


def test_http_and_https_taken_for_each_other_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Certificates.make(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with answering(GOOD) as plain:
        url = plain.url.replace("http:", "https:")
        with pytest.raises(ServerUnreachableError) as raised:
            Server(url, None, pause=lambda s: None).get("/x", MODE)
        assert "give its address with http://" in str(raised.value.fix)
    with answering(GOOD) as encrypted:
        encrypted.socket = context.wrap_socket(encrypted.socket, server_side=True)
        url = encrypted.url.replace("https:", "http:")
        with pytest.raises(ServerUnreachableError) as raised:
            Server(url, None, pause=lambda s: None).get("/x", MODE)
        assert "give its address with https://" in str(raised.value.fix)


def test_an_address_with_a_path_is_doubted_when_nothing_is_found_there() -> None:
    with answering(problem(404, "not-found")) as server, pytest.raises(ServerError) as raised:
        Server(f"{server.url}/api/v1/", None).get("/x", MODE)
    assert "without /api/v1, unless" in str(raised.value.fix)


@pytest.mark.parametrize(
    ("url", "is_exposed"),
    [("http://box:8420", True), ("https://box:8420", False), ("http://127.0.0.1:1", False)],
)
def test_a_token_that_others_can_read_is_told(url: str, is_exposed: bool) -> None:
    assert Server(url, SecretStr("x")).is_exposed is is_exposed
    assert not Server(url, None).is_exposed
