"""Buckets: what is missing, denied, away or cut, on a fake of S3 that is spoken to over HTTP."""

import hashlib
import os
import random
import socket
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from obstore.store import S3Store

from ktrdr.blobs.object_store import ObjectBlobStore
from ktrdr.blobs.opening import open_blob_store
from ktrdr.blobs.store import BlobInventory
from ktrdr.errors import BlobCorruptError, BlobError, BlobUnavailableError
from ktrdr.events import BlobRef
from ktrdr.settings import Settings
from tests.contract.blob_harness import S3Harness, moto_backend, moto_url
from tests.cutting_proxy import CuttingProxy

MIB = 1024 * 1024
CONTENT = random.Random(2).randbytes(20 * MIB)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REF = BlobRef(uri=f"blob:{SHA256}", sha256=SHA256, size=len(CONTENT))
CHANGING_FILE = Path("/proc/sys/kernel/random/uuid")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url())
    return monkeypatch


def at(endpoint: str, bucket: str = "bucket") -> ObjectBlobStore:
    """Return a store that does not try for long."""
    objects = S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id="key",
        secret_access_key="secret",
        client_options={"allow_http": True, "connect_timeout": "1s", "read_timeout": "2s"},
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=3)},
    )
    return ObjectBlobStore(objects, f"s3://{bucket}")


def assert_every_call_raises(store: BlobInventory, tmp_path: Path, match: str, fix: str) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    for call in (
        lambda: store.put(b"content"),
        lambda: store.put_file(tmp_path / "source"),
        lambda: store.get(REF, REF.size),
        lambda: store.fetch(REF, tmp_path / "fetched"),
        lambda: store.exists(SHA256),
        lambda: store.delete(SHA256),
        lambda: list(store.entries()),
    ):
        with pytest.raises(BlobUnavailableError, match=match) as failure:
            call()
        assert failure.value.retryable
        assert fix in str(failure.value.fix)
        assert "secret" not in str(failure.value)
        assert "\n" not in str(failure.value)
    assert not list(tmp_path.glob("*fetched*"))


def test_the_settings_and_the_environment_open_a_bucket(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    moto_backend().create_bucket("from-settings", "us-east-1")
    store = open_blob_store(Settings(home=tmp_path, blob_store="s3://from-settings/a/b"))
    ref = store.put(b"content")
    assert store.get(ref, limit_bytes=100) == b"content"
    assert list(moto_backend().buckets["from-settings"].keys) == [f"a/b/{ref.sha256[:2]}/{ref.sha256[2:]}"]


def test_a_bucket_that_is_missing_is_an_error_and_no_missing_blob(tmp_path: Path) -> None:
    assert_every_call_raises(at(moto_url(), "nowhere"), tmp_path, "no such bucket", "Create the bucket")


def test_a_store_that_is_away_is_an_error_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert_every_call_raises(at(f"http://127.0.0.1:{port}"), tmp_path, "s3://bucket", "AWS_ENDPOINT_URL")


class Refusing:
    """A server that answers every request alike."""

    def __init__(self, status: str, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
        self._head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        self._body = body
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Refusing":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as request:
                head = b"".join(iter(request.readline, b"\r\n")).decode().lower()
                length = head.partition("content-length: ")[2].partition("\r\n")[0]
                request.read(int(length or 0))
                client.sendall(self._head + (b"" if head.startswith("head") else self._body))


@pytest.mark.parametrize(
    ("status", "code"),
    [("403 Forbidden", "AccessDenied"), ("403 Forbidden", "InvalidAccessKeyId"), ("401 Unauthorized", "No")],
)
def test_a_store_that_denies_access_says_which_rights_are_needed(
    tmp_path: Path, status: str, code: str
) -> None:
    with Refusing(status, code) as refusing:
        assert_every_call_raises(at(refusing.url), tmp_path, "access was denied", "AWS_ACCESS_KEY_ID")


def test_a_store_that_is_overloaded_is_an_error_that_says_so(tmp_path: Path) -> None:
    with Refusing("503 Slow Down", "SlowDown") as refusing:
        store = at(refusing.url)
        with pytest.raises(BlobUnavailableError, match="SlowDown"):
            store.put(b"content")


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(3))
def test_a_download_goes_on_where_the_connection_was_cut(tmp_path: Path, seed: int) -> None:
    harness = S3Harness()
    rng = random.Random(seed)
    store = harness.inventory
    store.put(CONTENT)
    port = int(moto_url().rpartition(":")[2])
    proxy = CuttingProxy(port, [rng.randrange(MIB, 8 * MIB) for _ in range(2)])
    with proxy.running() as url:
        objects = S3Store(
            harness.bucket,
            prefix="installation/blobs",
            endpoint=url,
            access_key_id="key",
            secret_access_key="secret",
            client_options={"allow_http": True},
        )
        fetched = ObjectBlobStore(objects, "s3://through-proxy").fetch(REF, tmp_path / "fetched")
    assert fetched.read_bytes() == CONTENT
    assert proxy.cuts == 2


def test_only_what_is_below_the_prefix_and_named_by_hash_is_an_entry() -> None:
    harness = S3Harness()
    ref = harness.inventory.put(b"content")
    backend = moto_backend()
    for key in ("README", f"{SHA256[:2]}/{SHA256[2:]}", f"installation/{SHA256[:2]}/{SHA256[2:]}"):
        backend.put_object(harness.bucket, key, b"other")
    for name in ("README", "ab/cd", f"{ref.sha256[:2]}/{ref.sha256[2:]}.bak"):
        backend.put_object(harness.bucket, f"installation/blobs/{name}", b"other")
    assert [entry.sha256 for entry in harness.inventory.entries()] == [ref.sha256]


@pytest.mark.skipif(not CHANGING_FILE.exists(), reason="only Linux has a file that differs at each reading")
def test_a_file_that_changes_while_it_is_stored_is_refused() -> None:
    harness = S3Harness()
    with pytest.raises(BlobCorruptError, match="other content"):
        harness.store.put_file(CHANGING_FILE)
    assert list(harness.inventory.entries()) == []


@pytest.mark.fault
def test_a_large_file_that_changes_while_it_is_stored_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    harness = S3Harness()
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    proxy = CuttingProxy(int(moto_url().rpartition(":")[2]))
    proxy.when_up(1, lambda: os.truncate(source, 15 * MIB))
    with proxy.running() as url, pytest.raises(BlobError):
        at(url, harness.bucket).put_file(source)
    assert list(harness.inventory.entries()) == []
    assert not moto_backend().buckets[harness.bucket].multiparts


def test_listing_many_blobs_takes_several_pages() -> None:
    harness = S3Harness()
    backend = moto_backend()
    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(1500)]
    for name in names:
        backend.put_object(harness.bucket, f"installation/blobs/{name[:2]}/{name[2:]}", b"")
    assert {entry.sha256 for entry in harness.inventory.entries()} == set(names)


@pytest.mark.fault
def test_closing_ends_what_is_in_progress_and_leaves_nothing(tmp_path: Path) -> None:
    harness = S3Harness()
    (tmp_path / "source").write_bytes(CONTENT * 3)
    proxy = CuttingProxy(int(moto_url().rpartition(":")[2]))
    with proxy.running() as url:
        store = at(url, harness.bucket)
        proxy.when_up(MIB, store.close)
        with pytest.raises(BlobUnavailableError, match="was closed"):
            store.put_file(tmp_path / "source")
    assert list(harness.inventory.entries()) == []
    assert not moto_backend().buckets[harness.bucket].multiparts
