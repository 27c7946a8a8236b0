"""The store of a backend elsewhere: lost connections, restarts, full disks, and what else goes wrong."""

import hashlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.http import HttpBlobStore
from ktrdr.errors import (
    BlobCorruptError,
    BlobError,
    BlobRefusedError,
    BlobUnavailableError,
    StorageFullError,
)
from ktrdr.events import BlobRef
from tests.blob_server import MIB, TOKEN, blob_server
from tests.cutting_proxy import CuttingProxy
from tests.e2e.waiting import eventually
from tests.small_disk import SMALL_DISK_BYTES

CONTENT = random.Random(1).randbytes(20 * MIB)
SMALL = b"content of a blob"
REF = BlobRef(
    uri=f"blob:{hashlib.sha256(CONTENT).hexdigest()}",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
)
OVERHEAD = 64 * 1024
"""Heads of requests and answers, and what the proxy holds, for each connection."""
LOST_BY_RESET = 8 * MIB
"""What a kernel has received and throws away: 6 MiB by default on Linux."""


class Budgets:
    """What connections through a proxy may use up; settable while it runs."""

    def __init__(self, *budgets: int) -> None:
        self.budgets = list(budgets)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if not self.budgets:
            raise StopIteration
        return self.budgets.pop(0)


def store_at(url: str, *, give_up_after_s: float = 15) -> HttpBlobStore:
    return HttpBlobStore(url, TOKEN, give_up_after_s=give_up_after_s)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def partial_bytes(root: Path) -> int:
    try:
        return (root / "uploads" / REF.sha256).stat().st_size
    except FileNotFoundError:
        return 0


def reached(root: Path, size: int) -> bool:
    return partial_bytes(root) >= size


# --- lost connections -----------------------------------------------------------------------------


def some_cuts(seed: int) -> list[int]:
    rng = random.Random(seed)
    cuts = [0, 1, rng.randrange(1000), *(rng.randrange(8 * MIB) for _ in range(4))]
    rng.shuffle(cuts)
    return cuts


@pytest.mark.fault
@pytest.mark.parametrize("with_reset", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_an_upload_goes_on_where_the_connection_was_cut(
    tmp_path: Path, source: Path, seed: int, with_reset: bool
) -> None:
    with blob_server(tmp_path / "blobs") as server:
        proxy = CuttingProxy(server.port, some_cuts(seed), with_reset=with_reset)
        with proxy.running() as url:
            store = store_at(url)
            assert store.put_file(source) == REF
            store.close()
        assert server.store.get(REF, limit_bytes=REF.size) == CONTENT
    assert proxy.cuts >= 5
    lost = LOST_BY_RESET if with_reset else OVERHEAD
    assert proxy.up < REF.size + proxy.cuts * lost


@pytest.mark.fault
@pytest.mark.parametrize("with_reset", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_download_goes_on_where_the_connection_was_cut(tmp_path: Path, seed: int, with_reset: bool) -> None:
    with blob_server(tmp_path / "blobs") as server:
        server.store.put(CONTENT)
        proxy = CuttingProxy(server.port, some_cuts(seed), with_reset=with_reset)
        with proxy.running() as url:
            store = store_at(url)
            fetched = store.fetch(REF, tmp_path / "fetched")
            store.close()
    assert fetched.read_bytes() == CONTENT
    assert proxy.cuts >= 5
    lost = LOST_BY_RESET if with_reset else OVERHEAD
    assert proxy.down < REF.size + proxy.cuts * lost


@pytest.mark.fault
def test_a_connection_that_never_lasts_is_an_error_in_time(tmp_path: Path, source: Path) -> None:
    with blob_server(tmp_path / "blobs") as server:
        proxy = CuttingProxy(server.port, itertools.repeat(50))
        with proxy.running() as url:
            store = store_at(url, give_up_after_s=0.5)
            with pytest.raises(BlobUnavailableError, match="does not answer") as failure:
                store.put_file(source)
            with pytest.raises(BlobUnavailableError, match="does not answer"):
                store.fetch(REF, tmp_path / "fetched")
            with pytest.raises(BlobUnavailableError, match="does not answer"):
                store.exists(REF.sha256)
            store.close()
    assert failure.value.retryable
    assert "KTRDR_BLOB_STORE" in str(failure.value.fix)
    assert not list(tmp_path.glob("*fetched*"))


@pytest.mark.fault
def test_another_agent_process_goes_on_where_the_last_one_left_off(tmp_path: Path, source: Path) -> None:
    budgets = Budgets(12 * MIB, *[0] * 50)
    with blob_server(tmp_path / "blobs") as server:
        proxy = CuttingProxy(server.port, budgets)
        with proxy.running() as url:
            first = store_at(url, give_up_after_s=0.3)
            with pytest.raises(BlobUnavailableError):
                first.put_file(source)
            first.close()
            budgets.budgets.clear()
            there = 12 * MIB - OVERHEAD
            eventually(partial(reached, server.store.root, there), within_s=60, otherwise="it is not written")
            sent = proxy.up
            second = store_at(url)
            second.put_file(source)
            second.close()
        assert server.store.get(REF, limit_bytes=REF.size) == CONTENT
    assert proxy.up - sent < REF.size - there + OVERHEAD


_SERVER = """
import asyncio, sys
from pathlib import Path
from ktrdr.backend.api.app import create_app
from ktrdr.backend.api.server import serving
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.logs import configure_logging
from pydantic import SecretStr

async def serve():
    store = DirectoryBlobStore(Path(sys.argv[1]))
    app = create_app(store, token=SecretStr(sys.argv[3]), max_blob_bytes=1 << 30)
    async with serving(app, "127.0.0.1", int(sys.argv[2])):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

configure_logging("warning")
asyncio.run(serve())
"""


_STARTS = 30


class ServerProcess:
    """The endpoint in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, root: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._root = root
        self.kills = 0
        self._restarting = threading.Lock()
        self.partial_at_kill: list[int] = []
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", _SERVER, str(self._root), str(self.port), TOKEN.get_secret_value()]
        for _ in range(_STARTS):
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert self._process.stdout is not None
            if self._process.stdout.readline() == "ready\n":
                return
            # Somebody's connection has the port for a moment.
            self._process.communicate()
        raise AssertionError(f"port {self.port} is not to be had")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def peak_bytes(self) -> int:
        """Return the most memory that it has had."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def restart(self) -> None:
        # It listens before it says so, and the next kill may be due by then.
        with self._restarting:
            self.kill()
            self.kills += 1
            self.partial_at_kill.append(partial_bytes(self._root))
            self.start()


@pytest.mark.fault
def test_a_backend_that_is_killed_goes_on_with_the_upload_when_it_is_back(
    tmp_path: Path, source: Path
) -> None:
    server = ServerProcess(tmp_path / "blobs")
    try:
        proxy = CuttingProxy(server.port)
        up_at_kill: list[int] = []

        def restart() -> None:
            up_at_kill.append(proxy.up)
            server.restart()

        for reaches in (2 * MIB, 6 * MIB, 10 * MIB):
            proxy.when(partial(reached, tmp_path / "blobs", reaches), restart)
        with proxy.running() as url:
            store = store_at(url, give_up_after_s=30)
            store.put_file(source)
            store.close()
    finally:
        server.kill()
    assert server.kills == 3
    assert min(server.partial_at_kill) >= 2 * MIB
    # After each kill only what had not come to the disk was sent again.
    assert proxy.up - up_at_kill[-1] < REF.size - server.partial_at_kill[-1] + OVERHEAD
    assert DirectoryBlobStore(tmp_path / "blobs").get(REF, limit_bytes=REF.size) == CONTENT


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.fault
def test_closing_ends_what_is_in_progress(tmp_path: Path, source: Path) -> None:
    with blob_server(tmp_path / "blobs") as server:
        proxy = CuttingProxy(server.port)
        with proxy.running() as url:
            store = store_at(url, give_up_after_s=1000)
            proxy.when_up(2 * MIB, store.close)
            with pytest.raises(BlobUnavailableError, match="closed"):
                store.put_file(source)
            with pytest.raises(BlobUnavailableError, match="was closed"):
                store.get(REF, REF.size)
            store.close()
        assert proxy.up < REF.size / 2
        assert list(server.store.entries()) == []


@pytest.mark.fault
def test_closing_ends_waiting_for_a_backend_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    store = store_at(f"http://127.0.0.1:{port}", give_up_after_s=1000)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.put, SMALL)
        store.close()
        with pytest.raises(BlobUnavailableError):
            waiting.result(10)


# --- several at once, and strangers ---------------------------------------------------------------


@pytest.mark.parametrize("senders", [2, 5])
def test_of_several_who_send_the_same_each_ends_well(tmp_path: Path, senders: int) -> None:
    with blob_server(tmp_path / "blobs") as server:
        stores = [store_at(server.url) for _ in range(senders)]
        with ThreadPoolExecutor(senders) as pool:
            refs = list(pool.map(lambda store: store.put(CONTENT), stores))
        for store in stores:
            store.close()
        assert refs == [REF] * senders
        assert server.store.get(REF, limit_bytes=REF.size) == CONTENT
        assert not list(server.store.root.glob("uploads/*"))


@pytest.mark.fault
def test_of_two_who_send_the_same_one_takes_over_when_the_other_is_cut_off(
    tmp_path: Path, source: Path
) -> None:
    with blob_server(tmp_path / "blobs") as server:
        proxy = CuttingProxy(server.port, Budgets(8 * MIB, *[0] * 50))
        started = threading.Event()
        proxy.when_up(4 * MIB, started.set)
        with proxy.running() as url, ThreadPoolExecutor(1) as pool:
            unlucky, lucky = store_at(url, give_up_after_s=0.3), store_at(server.url)
            failing = pool.submit(unlucky.put_file, source)
            assert started.wait(60)
            assert lucky.put_file(source) == REF
            # Whether it still got through depends on who had finished first; it is one of the two.
            with suppress(BlobUnavailableError):
                assert failing.result(20) == REF
            unlucky.close()
            lucky.close()
        assert server.store.get(REF, limit_bytes=REF.size) == CONTENT


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(2))
def test_of_several_who_send_the_same_over_bad_lines_each_ends_well(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with blob_server(tmp_path / "blobs") as server, ExitStack() as lines, ThreadPoolExecutor(4) as pool:
        stores = []
        for _ in range(4):
            cuts = [rng.randrange(6 * MIB) for _ in range(5)]
            proxy = CuttingProxy(server.port, cuts, with_reset=rng.random() < 0.5)
            stores.append(store_at(lines.enter_context(proxy.running()), give_up_after_s=60))
            lines.callback(stores[-1].close)
        assert list(pool.map(lambda store: store.put(CONTENT), stores)) == [REF] * 4
        assert server.store.get(REF, limit_bytes=REF.size) == CONTENT
        assert not list(server.store.root.glob("uploads/*"))


def test_what_others_sent_under_this_hash_is_found_out_and_replaced(tmp_path: Path) -> None:
    with blob_server(tmp_path / "blobs") as server:
        response = httpx.patch(
            f"{server.url}/api/v1/blobs/{REF.sha256}/upload",
            headers={
                "Authorization": f"Bearer {TOKEN.get_secret_value()}",
                "Upload-Length": str(REF.size),
                "Upload-Offset": "0",
            },
            content=b"garbage",
        )
        assert response.json() == {"offset": 7, "complete": False}
        store = store_at(server.url)
        assert store.put(CONTENT) == REF
        store.close()
        assert server.store.get(REF, limit_bytes=REF.size) == CONTENT


# --- what the backend says ------------------------------------------------------------------------


@pytest.mark.parametrize("token", [SecretStr("some-other-token-0123456789"), None])
def test_a_wrong_token_is_said_at_once(tmp_path: Path, token: SecretStr | None) -> None:
    with blob_server(tmp_path / "blobs") as server:
        ref = server.store.put(SMALL)
        store = HttpBlobStore(server.url, token, give_up_after_s=1000)
        for call in (
            lambda: store.put(SMALL),
            lambda: store.get(ref, 100),
            lambda: store.fetch(ref, tmp_path / "fetched"),
            lambda: store.exists(ref.sha256),
        ):
            with pytest.raises(BlobUnavailableError, match="401") as refused:
                call()
            assert "KTRDR_BLOB_TOKEN" in str(refused.value.fix)
            assert TOKEN.get_secret_value() not in str(refused.value)
        store.close()


@pytest.mark.fault
def test_a_full_disk_at_the_backend_is_said_at_once(small_disk: Path) -> None:
    with blob_server(small_disk) as server:
        store = store_at(server.url, give_up_after_s=1000)
        with pytest.raises(StorageFullError, match="bytes free") as full:
            store.put(CONTENT)
        assert "at the backend" in str(full.value.fix)
        assert store.put(SMALL).size == len(SMALL)
        store.close()
    assert len(CONTENT) > SMALL_DISK_BYTES


def test_what_the_backend_does_not_take_is_refused_at_once(tmp_path: Path) -> None:
    with blob_server(tmp_path / "blobs", max_blob_bytes=MIB) as server:
        store = store_at(server.url, give_up_after_s=1000)
        with pytest.raises(BlobRefusedError, match="the limit is 1,048,576") as refused:
            store.put(CONTENT)
        store.close()
    assert "KTRDR_MAX_MODEL_BYTES" in str(refused.value.fix)


def test_a_blob_that_was_cut_short_on_the_backends_disk_is_found_out(tmp_path: Path) -> None:
    with blob_server(tmp_path / "blobs") as server:
        server.store.put(CONTENT)
        (server.store.root / REF.sha256[:2] / REF.sha256[2:]).write_bytes(CONTENT[:-1000])
        store = store_at(server.url)
        with pytest.raises(BlobCorruptError, match=r"20,970,520 bytes in place of 20,971,520"):
            store.fetch(REF, tmp_path / "fetched")
        store.close()
    assert not list(tmp_path.glob("*fetched*"))


class Elsewhere:
    """Something that is no ktrdr backend, and answers everything alike."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.recv(65536)
                client.sendall(self._answer)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    "said",
    [
        answer("404 Not Found", b"<html>"),
        answer("200 OK", b"hello"),
        answer("200 OK", b"[]"),
        answer("200 OK", b'{"offset": -1, "complete": false}'),
        answer("200 OK", b'{"offset": 99, "complete": false}'),
        answer("302 Found", b"", "Location: http://169.254.169.254/"),
    ],
)
def test_what_is_no_ktrdr_backend_is_found_out(tmp_path: Path, said: bytes) -> None:
    elsewhere = Elsewhere(said)
    store = store_at(elsewhere.url, give_up_after_s=0.2)
    try:
        with pytest.raises(BlobUnavailableError) as failure:
            store.put(SMALL)
        assert "KTRDR_BLOB_STORE" in str(failure.value.fix)
        ref = BlobRef(uri=f"blob:{'0' * 64}", sha256="0" * 64, size=17)
        with pytest.raises(BlobError):
            store.fetch(ref, tmp_path / "fetched")
    finally:
        store.close()
        elsewhere.stop()
    assert not list(tmp_path.glob("*fetched*"))


@pytest.mark.parametrize(
    "said",
    [
        answer("503 Service Unavailable"),
        answer("500 Internal Server Error", b"{", "Content-Type: application/problem+json"),
        answer("429 Too Many Requests"),
        answer("200 OK", b'{"offset": 0, "complete": false}'),
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    ],
)
def test_what_may_pass_is_tried_again_for_a_while(said: bytes) -> None:
    elsewhere = Elsewhere(said)
    store = store_at(elsewhere.url, give_up_after_s=0.3)
    try:
        with pytest.raises(BlobUnavailableError) as failure:
            store.put(SMALL)
        assert failure.value.retryable
    finally:
        store.close()
        elsewhere.stop()


def test_a_file_that_is_changed_while_it_is_sent_is_refused(tmp_path: Path, source: Path) -> None:
    with blob_server(tmp_path / "blobs") as server:
        proxy = CuttingProxy(server.port)

        def change() -> None:
            with source.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(bytes([CONTENT[-1] ^ 1]))

        proxy.when_up(2 * MIB, change)
        with proxy.running() as url:
            store = store_at(url)
            with pytest.raises(BlobCorruptError, match="meanwhile"):
                store.put_file(source)
            store.close()
        assert list(server.store.entries()) == []


def test_a_file_that_becomes_shorter_while_it_is_sent_is_refused(tmp_path: Path, source: Path) -> None:
    with blob_server(tmp_path / "blobs") as server:
        proxy = CuttingProxy(server.port)
        proxy.when_up(2 * MIB, lambda: os.truncate(source, 5 * MIB))
        with proxy.running() as url:
            store = store_at(url)
            with pytest.raises(BlobCorruptError, match="meanwhile"):
                store.put_file(source)
            store.close()
        assert list(server.store.entries()) == []


_MEASURED = """
import resource, sys
from pathlib import Path
from pydantic import SecretStr
from ktrdr.blobs.http import HttpBlobStore
store = HttpBlobStore(sys.argv[1], SecretStr(sys.argv[2]))
store.put(b"warm")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
ref = store.put_file(Path(sys.argv[3]))
store.fetch(ref, Path(sys.argv[3] + ".fetched"))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_a_large_model_is_never_in_the_memory_of_the_agent_or_of_the_backend(tmp_path: Path) -> None:
    size = 96 * MIB
    large = tmp_path / "large"
    with large.open("wb") as file:
        for number in range(size // MIB):
            file.write(bytes([number]) * MIB)
    server = ServerProcess(tmp_path / "blobs")
    try:
        command = [sys.executable, "-c", _MEASURED, f"http://127.0.0.1:{server.port}"]
        command += [TOKEN.get_secret_value(), str(large)]
        grown = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(grown.stdout) < 32 * MIB
        assert server.peak_bytes() < size
    finally:
        server.kill()
