"""Partial blobs on the backend's disk: who may write, what is kept, what is cleared."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.uploads import UploadBusyError, Uploads, UploadState, WrongOffsetError
from ktrdr.errors import BlobCorruptError, BlobRefusedError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(DirectoryBlobStore(tmp_path / "blobs"), limit_bytes=len(CONTENT))


def test_only_one_may_write_at_a_time(uploads: Uploads) -> None:
    with uploads.open(SHA256, len(CONTENT), 0) as upload:
        upload.write(CONTENT[:100])
        with pytest.raises(UploadBusyError, match="Someone else") as busy:
            uploads.open(SHA256, len(CONTENT), 100)
        assert busy.value.offset == 100
        with pytest.raises(UploadBusyError):
            uploads.begin(SHA256, len(CONTENT))
        upload.write(CONTENT[100:200])
        assert upload.keep() == UploadState(200, complete=False)
    with uploads.open(SHA256, len(CONTENT), 200) as upload:
        upload.write(CONTENT[200:])
        assert upload.keep() == UploadState(len(CONTENT), complete=True)
    assert uploads.store.exists(SHA256)


def test_who_comes_after_the_end_finds_it_complete(uploads: Uploads) -> None:
    with uploads.open(SHA256, len(CONTENT), 0) as upload:
        upload.write(CONTENT)
        upload.keep()
    assert uploads.begin(SHA256, len(CONTENT)) == UploadState(len(CONTENT), complete=True)
    with pytest.raises(WrongOffsetError) as wrong:
        uploads.open(SHA256, len(CONTENT), len(CONTENT))
    assert wrong.value.offset == 0


def test_what_was_written_stays_without_being_kept(uploads: Uploads) -> None:
    with uploads.open(SHA256, len(CONTENT), 0) as upload:
        upload.write(CONTENT[:100])
    assert uploads.begin(SHA256, len(CONTENT)) == UploadState(100, complete=False)


def test_a_blob_of_which_all_had_come_before_a_crash_is_complete_when_it_is_begun(uploads: Uploads) -> None:
    with uploads.open(SHA256, len(CONTENT), 0) as upload:
        upload.write(CONTENT)
    assert uploads.begin(SHA256, len(CONTENT)) == UploadState(len(CONTENT), complete=True)
    assert uploads.store.exists(SHA256)


def test_wrong_content_of_which_all_had_come_before_a_crash_is_discarded(uploads: Uploads) -> None:
    with uploads.open(SHA256, len(CONTENT), 0) as upload:
        upload.write(b"?" * len(CONTENT))
    assert uploads.begin(SHA256, len(CONTENT)) == UploadState(0, complete=False)
    assert not uploads.store.exists(SHA256)


def test_more_than_was_announced_is_not_written(uploads: Uploads) -> None:
    with uploads.open(SHA256, 100, 0) as upload:
        with pytest.raises(BlobRefusedError, match="More than the 100 bytes"):
            upload.write(CONTENT[:101])
        assert upload.offset == 0


@pytest.mark.parametrize(
    "sha256", ["", "..", "../" + "0" * 61, "0" * 63, "G" * 64, SHA256.upper(), SHA256 + "/"]
)
def test_what_is_no_hash_is_refused(uploads: Uploads, sha256: str) -> None:
    with pytest.raises(BlobRefusedError):
        uploads.begin(sha256, 1)
    with pytest.raises(BlobRefusedError):
        uploads.open(sha256, 1, 0)
    assert not uploads.store.root.exists()


def test_only_what_nobody_goes_on_with_is_removed(uploads: Uploads) -> None:
    now = datetime.now(UTC)
    names = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]
    old, young, busy = names
    for name in names:
        with uploads.open(name, 1000, 0) as upload:
            upload.write(b"partial")
    directory = uploads.store.root / "uploads"
    (directory / "README").write_bytes(b"not ours")
    for name in (old, busy, "README"):
        os.utime(directory / name, (0, 0))
    with uploads.open(busy, 1000, 7):
        assert uploads.remove_abandoned(now - timedelta(hours=1)) == 1
    assert {path.name for path in directory.iterdir()} == {young, busy, "README"}


def test_of_many_threads_that_send_the_same_each_ends_well(uploads: Uploads) -> None:
    def send(_: int) -> None:
        complete = False
        while not complete:
            with suppress(UploadBusyError, WrongOffsetError):
                state = uploads.begin(SHA256, len(CONTENT))
                if not (complete := state.complete):
                    with uploads.open(SHA256, len(CONTENT), state.offset) as upload:
                        upload.write(CONTENT[state.offset : state.offset + 512])
                        complete = upload.keep().complete

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(8)))
    with uploads.store.open(SHA256) as file:
        assert file.read() == CONTENT
    assert not list((uploads.store.root / "uploads").iterdir())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    content=st.binary(max_size=300),
    steps=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.booleans()), max_size=12),
)
def test_whatever_is_sent_only_the_blob_itself_gets_into_the_store(
    tmp_path: Path, content: bytes, steps: list[tuple[int, int, bool]]
) -> None:
    store = DirectoryBlobStore(tmp_path / "random")
    uploads = Uploads(store, limit_bytes=1000)
    sha256 = hashlib.sha256(content).hexdigest()
    store.put(content)
    store.delete(sha256)
    for offset, size, is_right in steps:
        try:
            with uploads.open(sha256, len(content), offset) as upload:
                piece = content[offset : offset + size]
                upload.write(piece if is_right else bytes(byte ^ 1 for byte in piece))
                upload.keep()
        except (WrongOffsetError, BlobCorruptError, BlobRefusedError):
            continue
    if store.exists(sha256):
        with store.open(sha256) as file:
            assert file.read() == content
    for _ in range(2):  # what is wrong is found at the end, and sent again from the beginning
        state = uploads.begin(sha256, len(content))
        if not state.complete:
            try:
                with uploads.open(sha256, len(content), state.offset) as upload:
                    upload.write(content[state.offset :])
                    upload.keep()
            except BlobCorruptError:
                continue
    assert uploads.begin(sha256, len(content)).complete
