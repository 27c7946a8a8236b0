"""What a blob store brings to be tested against the contract of the port."""

import itertools
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.http import HttpBlobStore
from ktrdr.blobs.object_store import ObjectBlobStore
from ktrdr.blobs.store import BlobInventory, BlobStore
from tests.blob_server import TOKEN, Served, blob_server

_numbers = itertools.count(1)


class BlobHarness(ABC):
    """A store, and a way to reach behind it."""

    store: BlobStore
    inventory: BlobInventory
    """The same store, as seen by who keeps house in it."""

    @abstractmethod
    def overwrite(self, sha256: str, content: bytes) -> None:
        """Replace the stored content, as a broken disk or an intruder would."""

    @abstractmethod
    def age(self, sha256: str, by: timedelta) -> None:
        """Make the blob that much older."""


class DirectoryHarness(BlobHarness):
    """A directory in which something was put before: another one may be a share that is not mounted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = self.inventory = DirectoryBlobStore(root)
        self.inventory.delete(self.store.put(b"of before").sha256)

    def overwrite(self, sha256: str, content: bytes) -> None:
        self._path(sha256).write_bytes(content)

    def age(self, sha256: str, by: timedelta) -> None:
        then = self._path(sha256).stat().st_mtime - by.total_seconds()
        os.utime(self._path(sha256), (then, then))

    def _path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256[2:]


class HttpHarness(DirectoryHarness):
    """The backend's endpoint, which keeps blobs in a directory."""

    def __init__(self, server: Served) -> None:
        for path in server.store.root.glob("*"):
            shutil.rmtree(path)
        super().__init__(server.store.root)
        self.store = HttpBlobStore(server.url, TOKEN, give_up_after_s=10)


class S3Harness(BlobHarness):
    """A fake of S3 that is spoken to over HTTP."""

    def __init__(self) -> None:
        self.bucket = f"bucket-{next(_numbers)}"
        moto_backend().create_bucket(self.bucket, "us-east-1")
        objects = S3Store(
            self.bucket,
            prefix="installation/blobs",
            endpoint=moto_url(),
            access_key_id="key",
            secret_access_key="secret",
            region="us-east-1",
            client_options={"allow_http": True},
        )
        self.objects = objects
        self.store = self.inventory = ObjectBlobStore(objects, f"s3://{self.bucket}/installation/blobs")

    def overwrite(self, sha256: str, content: bytes) -> None:
        obstore.put(self.objects, f"{sha256[:2]}/{sha256[2:]}", content)

    def age(self, sha256: str, by: timedelta, *, aside: bool = False) -> None:
        directory = "installation/blobs" + "/aside" * aside
        key = moto_backend().buckets[self.bucket].keys[f"{directory}/{sha256[:2]}/{sha256[2:]}"]
        key.last_modified -= by


@cache
def moto_url() -> str:
    """Return the address of a fake of S3 that lives as long as this process."""
    # Not above, like the other: 0.5 s for each who only finds these tests.
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def moto_backend() -> Any:
    """Return what the fake of S3 has, to look at and to tamper with."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


@pytest.fixture(scope="session")
def http_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The endpoint of all tests of this process; each begins with an empty store."""
    with blob_server(tmp_path_factory.mktemp("served") / "blobs") as server:
        yield server


@pytest.fixture(params=["directory", "s3", "http"])
def blob_harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobHarness]:
    """An empty store of each kind."""
    match request.param:
        case "directory":
            harness: BlobHarness = DirectoryHarness(tmp_path / "blobs")
        case "s3":
            harness = S3Harness()
        case "http":
            harness = HttpHarness(request.getfixturevalue("http_server"))
    yield harness
    if isinstance(harness.store, HttpBlobStore):
        harness.store.close()
