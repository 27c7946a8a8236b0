"""Serving the application: addresses, certificates, signals, clients that dawdle, and the end."""

import asyncio
import hashlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from ktrdr.backend.api import server as server_module
from ktrdr.backend.api.app import create_app
from ktrdr.backend.api.server import Certificate, certificate_of, serving
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.http import HttpBlobStore
from ktrdr.clock import SystemClock
from ktrdr.errors import BlobUnavailableError, SettingsError
from ktrdr.settings import Settings
from tests.blob_server import MIB, TOKEN, Served, blob_server
from tests.broker.certificates import Certificates
from tests.e2e.waiting import eventually

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LIMIT_S = 60


def app_of(root: Path, **options: Any) -> FastAPI:
    return create_app(DirectoryBlobStore(root), **{"token": TOKEN, "max_blob_bytes": 64 * MIB, **options})


# --- access ---------------------------------------------------------------------------------------


def test_without_a_token_there_is_no_application(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not served without a token") as refused:
        app_of(tmp_path, token=None)
    assert "KTRDR_BLOB_TOKEN" in str(refused.value.fix)


@pytest.mark.parametrize("token", ["", "short", "x" * 15])
def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(SettingsError, match="fewer than 16 characters"):
        app_of(tmp_path, token=SecretStr(token))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
async def test_what_is_unprotected_is_not_served_to_others(tmp_path: Path, host: str) -> None:
    app = app_of(tmp_path, token=None, unprotected=True)
    with pytest.raises(SettingsError, match=host):
        async with serving(app, host, 0):
            pass


async def test_what_is_unprotected_is_served_to_this_machine_if_that_is_wanted(tmp_path: Path) -> None:
    app = app_of(tmp_path, token=None, unprotected=True)
    async with serving(app, "127.0.0.1", 0) as (host, port):
        store = HttpBlobStore(f"http://{host}:{port}", None)
        ref = await asyncio.to_thread(store.put, CONTENT)
        assert await asyncio.to_thread(store.get, ref, MIB) == CONTENT
        store.close()


async def test_what_is_unprotected_is_no_prey_of_a_page_whose_name_leads_to_this_machine(
    tmp_path: Path,
) -> None:
    app = app_of(tmp_path, token=None, unprotected=True)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://rebound.example"
    ) as page:
        answer = await page.get(f"/api/v1/blobs/{SHA256}")
    assert (answer.status_code, answer.json()["code"]) == (403, "other-origin")


# --- address and certificate ----------------------------------------------------------------------


async def test_a_port_that_is_taken_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port} cannot be listened on") as refused:
            async with serving(app_of(tmp_path), "127.0.0.1", port):
                pass
    assert "KTRDR_LISTEN" in str(refused.value.fix)


async def test_an_address_of_another_machine_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1:0 cannot be listened on"):
        async with serving(app_of(tmp_path), "192.0.2.1", 0):
            pass


async def test_it_is_served_again_at_the_same_address(tmp_path: Path) -> None:
    async with serving(app_of(tmp_path), "127.0.0.1", 0) as (host, port), httpx.AsyncClient() as client:
        await client.get(f"http://{host}:{port}/health/live")
    async with serving(app_of(tmp_path), host, port), httpx.AsyncClient() as client:
        assert (await client.get(f"http://{host}:{port}/health/live")).status_code == 200


async def test_it_is_served_over_tls_to_those_who_trust_the_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Certificates.make(tmp_path)
    certificate = Certificate(made.certificate, made.key)
    async with serving(app_of(tmp_path / "blobs"), "127.0.0.1", 0, certificate=certificate) as (_, port):
        stranger = HttpBlobStore(f"https://127.0.0.1:{port}", TOKEN, give_up_after_s=1000)
        with pytest.raises(BlobUnavailableError, match="not trusted") as refused:
            await asyncio.to_thread(stranger.put, CONTENT)
        assert "SSL_CERT_FILE" in str(refused.value.fix)
        stranger.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        store = HttpBlobStore(f"https://127.0.0.1:{port}", TOKEN)
        ref = await asyncio.to_thread(store.put, CONTENT)
        assert await asyncio.to_thread(store.get, ref, MIB) == CONTENT
        store.close()


@pytest.mark.parametrize("missing", [True, False])
async def test_a_certificate_that_cannot_be_used_is_an_error(tmp_path: Path, missing: bool) -> None:
    made = Certificates.make(tmp_path)
    if missing:
        made.key.unlink()
    else:
        made.key.write_bytes(made.authority.read_bytes())
    with pytest.raises(SettingsError, match="certificate cannot be used"):
        async with serving(
            app_of(tmp_path), "127.0.0.1", 0, certificate=Certificate(made.certificate, made.key)
        ):
            pass


def test_a_certificate_without_its_key_is_an_error(tmp_path: Path) -> None:
    assert certificate_of(Settings(home=tmp_path)) is None
    both = Settings(home=tmp_path, listen_certificate=Path("a.pem"), listen_key=Path("a.key"))
    assert certificate_of(both) == Certificate(Path("a.pem"), Path("a.key"))
    for half in ({"listen_certificate": Path("a.pem")}, {"listen_key": Path("a.key")}):
        with pytest.raises(SettingsError, match="only with its key"):
            certificate_of(Settings(home=tmp_path, **half))


async def test_signals_stay_with_the_caller(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with serving(app_of(tmp_path), "127.0.0.1", 0):
        assert {number: signal.getsignal(number) for number in before} == before


# --- the end --------------------------------------------------------------------------------------


def raw_request(size: int, sent: bytes, offset: int = 0) -> bytes:
    return (
        f"PATCH /api/v1/blobs/{SHA256}/upload HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {TOKEN.get_secret_value()}\r\n"
        f"Upload-Length: {len(CONTENT)}\r\nUpload-Offset: {offset}\r\nContent-Length: {size}\r\n\r\n"
    ).encode() + sent


def until_partial(root: Path) -> None:
    partial = root / "uploads" / SHA256
    eventually(partial.exists, within_s=LIMIT_S, otherwise="no upload has begun")


@asynccontextmanager
async def open_upload(port: int, root: Path, sent: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """Begin to send, and stop in the middle."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw_request(len(CONTENT), sent))
        await writer.drain()
        await asyncio.to_thread(until_partial, root)
        yield reader
    finally:
        writer.close()


async def test_an_upload_that_does_not_end_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(LIMIT_S),
        AsyncExitStack() as client,
        serving(app_of(tmp_path), "127.0.0.1", 0, stop_within_s=1) as (_, port),
    ):
        await client.enter_async_context(open_upload(port, tmp_path, CONTENT[: 512 * 1024]))


async def test_an_upload_that_ends_in_time_is_let_to(tmp_path: Path) -> None:
    stopping = asyncio.Event()

    async def serve(address: asyncio.Future[int]) -> None:
        async with serving(app_of(tmp_path), "127.0.0.1", 0, stop_within_s=LIMIT_S) as (_, port):
            address.set_result(port)
            await stopping.wait()

    address: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        group.create_task(serve(address))
        port = await address
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw_request(len(CONTENT), CONTENT[:1000]))
        await writer.drain()
        await asyncio.to_thread(until_partial, tmp_path)
        stopping.set()
        writer.write(CONTENT[1000:])
        await writer.drain()
        assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"
        writer.close()
    assert DirectoryBlobStore(tmp_path).exists(SHA256)


# --- clients that dawdle --------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(server_module, "_HEAD_S", 0.3)
    monkeypatch.setattr(server_module, "_UNREAD_S", 0.3)
    with blob_server(tmp_path / "blobs", idle_s=0.3) as server:
        yield server


@contextmanager
def connection(server: Served) -> Iterator[socket.socket]:
    with socket.create_connection((server.host, server.port), timeout=LIMIT_S) as made:
        yield made


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow"])
def test_a_request_that_never_ends_is_not_waited_for(served: Served, sent: bytes) -> None:
    with connection(served) as client:
        client.sendall(sent)
        with suppress(ConnectionResetError):
            assert client.recv(1000) == b""


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(served: Served) -> None:
    with connection(served) as client:
        client.settimeout(0.01)
        client.sendall(b"GET / HTTP/1.1\r\n")

        def is_cut_off() -> bool:
            try:
                client.sendall(b"X")
                return client.recv(1000) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        eventually(is_cut_off, within_s=LIMIT_S, otherwise="it is still listened to")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nX-Large: " + b"x" * 1024,
        b"GET /" + b"x" * 1024,
        # After the parts of a body too.
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Large: x",
    ],
    ids=["a header", "a path", "a trailer"],
)
def test_a_head_that_is_too_large_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server_module, "_HEAD_S", 10 * LIMIT_S)  # it has time
    with blob_server(tmp_path / "blobs") as served, connection(served) as client:
        client.sendall(sent)
        with pytest.raises(ConnectionError):
            client.sendall(b"x" * 64 * MIB)


def test_requests_that_do_not_wait_for_answers_are_answered_in_their_order(served: Served) -> None:
    paths = ["/health/live", "/nowhere"] * 3
    with connection(served) as client:
        client.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
        answer = b""
        while answer.count(b"HTTP/1.1 ") < 6:
            answer += client.recv(65536)
    statuses = [each[:3] for each in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404"] * 3


def test_no_more_than_some_requests_wait_for_answers(served: Served) -> None:
    with connection(served) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        answer = b""
        with suppress(ConnectionError):
            while chunk := client.recv(65536):
                answer += chunk
    assert b"HTTP/1.1 400 " in answer
    assert answer.count(b"HTTP/1.1 200 ") < 500


def test_a_body_that_does_not_go_on_is_answered_and_what_has_come_is_kept(served: Served) -> None:
    with connection(served) as client:
        client.sendall(raw_request(len(CONTENT), CONTENT[:300_000]))
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too-slow"' in answer
    partial = served.store.root / "uploads" / SHA256
    assert partial.stat().st_size == 300_000
    store = HttpBlobStore(served.url, TOKEN)
    assert store.put(CONTENT).sha256 == SHA256
    store.close()


def test_nothing_is_kept_open_for_a_client_that_does_not_read(served: Served) -> None:
    ref = served.store.put(bytes(32 * MIB))
    path = str(served.store.root / ref.sha256[:2] / ref.sha256[2:])

    def is_being_read() -> bool:
        return any(file.path == path for file in psutil.Process().open_files())

    with connection(served) as client:
        request = f"GET /api/v1/blobs/{ref.sha256} HTTP/1.1\r\nHost: x\r\n"
        client.sendall(f"{request}Authorization: Bearer {TOKEN.get_secret_value()}\r\n\r\n".encode())
        eventually(is_being_read, within_s=LIMIT_S, otherwise="it is not sent")
        eventually(lambda: not is_being_read(), within_s=LIMIT_S, otherwise="it is still open")


# --- what was abandoned ---------------------------------------------------------------------------


class Later(SystemClock):
    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=2)


def test_uploads_that_nobody_went_on_with_for_a_day_are_removed(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    for name in ("uploads/" + SHA256, "incoming/0123456789abcdef"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"partial")
    (root / "uploads" / "README").write_bytes(b"not ours")
    store = DirectoryBlobStore(root)
    ref = store.put(CONTENT)

    partial, incoming = root / "uploads" / SHA256, root / "incoming" / "0123456789abcdef"

    async def serve_until(condition: Callable[[], object], clock: SystemClock) -> None:
        async with serving(app_of(root, clock=clock), "127.0.0.1", 0):
            await asyncio.to_thread(eventually, condition, within_s=LIMIT_S, otherwise="nothing is removed")

    asyncio.run(serve_until(lambda: True, SystemClock()))
    assert partial.exists()
    assert incoming.exists()
    asyncio.run(serve_until(lambda: not partial.exists() and not incoming.exists(), Later()))
    assert (root / "uploads" / "README").exists()
    assert store.get(ref, limit_bytes=MIB) == CONTENT
