"""The directory store: its layout, and what full disks, killed processes and lost power do to it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.uploads import Uploads
from ktrdr.errors import (
    BlobCorruptError,
    BlobError,
    BlobMissingError,
    BlobUnavailableError,
    StorageFullError,
)
from ktrdr.events import BlobRef
from tests.small_disk import SMALL_DISK_BYTES, fill

MIB = 1024 * 1024
CHANGING_FILE = Path("/proc/sys/kernel/random/uuid")
TOO_LARGE = os.urandom(2 * SMALL_DISK_BYTES)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def stored_at(ref: BlobRef) -> str:
    return f"{ref.sha256[:2]}/{ref.sha256[2:]}"


def test_blobs_lie_in_directories_by_the_first_two_digits(tmp_path: Path) -> None:
    ref = DirectoryBlobStore(tmp_path).put(b"content")
    assert files(tmp_path) == [stored_at(ref)]


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    DirectoryBlobStore(tmp_path / "blobs")
    assert not (tmp_path / "blobs").exists()


def test_a_relative_root_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = DirectoryBlobStore(Path("blobs"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ref = store.put(b"content")
    assert files(tmp_path) == [f"blobs/{stored_at(ref)}"]


def test_two_stores_in_one_directory_share_its_blobs(tmp_path: Path) -> None:
    ref = DirectoryBlobStore(tmp_path).put(b"content")
    assert DirectoryBlobStore(tmp_path).get(ref, limit_bytes=100) == b"content"


def test_other_files_are_no_entries(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    ref = store.put(b"content")
    for name in ("README", "ab/cd", "incoming/0123", f"{stored_at(ref)}.bak", "zz/" + "0" * 62):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [entry.sha256 for entry in store.entries()] == [ref.sha256]


def test_a_root_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"")
    with pytest.raises(BlobError, match=f"cannot be stored in {tmp_path}/blobs"):
        DirectoryBlobStore(tmp_path / "blobs").put(b"content")


@pytest.mark.skipif(not CHANGING_FILE.exists(), reason="only Linux has a file that differs at each reading")
def test_a_file_that_changes_while_it_is_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BlobCorruptError, match="other content"):
        DirectoryBlobStore(tmp_path).put_file(CHANGING_FILE)
    assert files(tmp_path) == []


def test_a_name_that_is_taken_by_a_directory_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    ref = store.put(b"content")
    (tmp_path / stored_at(ref)).unlink()
    (tmp_path / stored_at(ref)).mkdir()
    with pytest.raises(BlobError, match="cannot be stored"):
        store.put(b"content")
    assert files(tmp_path) == []


# --- a share that is not mounted ------------------------------------------------------------------


def be_gone(root: Path) -> None:
    root.rename(root.with_name("away"))


def be_an_empty_mount_point(root: Path) -> None:
    be_gone(root)
    root.mkdir()


def come_back(root: Path) -> None:
    if root.exists():
        root.rmdir()
    root.with_name("away").rename(root)


@pytest.mark.parametrize("go_away", [be_gone, be_an_empty_mount_point])
@pytest.mark.parametrize("is_known", [True, False], ids=["to who has used it", "to a new process"])
def test_what_is_on_a_share_that_is_away_is_not_missing(
    tmp_path: Path, go_away: Callable[[Path], None], is_known: bool
) -> None:
    root, store = tmp_path / "blobs", DirectoryBlobStore(tmp_path / "blobs")
    ref = store.put(b"content")
    go_away(root)
    store = store if is_known else DirectoryBlobStore(root)
    reads: list[Callable[[], object]] = [
        lambda: store.get(ref, limit_bytes=100),
        lambda: list(store.stream(ref, limit_bytes=100)),
        lambda: store.fetch(ref, tmp_path / "fetched"),
        lambda: store.exists(ref.sha256),
        lambda: store.open(ref.sha256).close(),
    ]
    for read in reads:
        with pytest.raises(BlobUnavailableError, match=f"{root} is away"):
            read()
    assert list(store.entries()) == []
    come_back(root)
    for read in reads:
        read()
    assert (tmp_path / "fetched").read_bytes() == b"content"


@pytest.mark.parametrize("go_away", [be_gone, be_an_empty_mount_point])
def test_nothing_is_written_beside_a_share_that_is_away(
    tmp_path: Path, go_away: Callable[[Path], None]
) -> None:
    root, store = tmp_path / "blobs", DirectoryBlobStore(tmp_path / "blobs")
    uploads = Uploads(store, limit_bytes=100)
    ref, other = store.put(b"content"), "0" * 64
    (tmp_path / "file").write_bytes(b"content")
    writes: list[Callable[[], object]] = [
        lambda: store.put(b"other"),
        lambda: store.put_file(tmp_path / "file"),
        lambda: store.renew(ref),
        lambda: store.set_aside(ref.sha256, datetime.now(UTC) - timedelta(days=1)),
        lambda: store.claim("me"),
        lambda: uploads.begin(other, 1),
        lambda: uploads.open(other, 1, 0).close(),
        lambda: store.adopt(tmp_path / "file", ref),
    ]
    go_away(root)
    for write in writes:
        with pytest.raises(BlobUnavailableError, match=f"{root} is away"):
            write()
    assert not root.exists() or list(root.iterdir()) == []
    come_back(root)
    assert files(root) == [stored_at(ref)]
    for write in writes:
        write()


def test_a_store_whose_content_is_gone_for_good_goes_on_once_that_is_said(tmp_path: Path) -> None:
    root, store = tmp_path / "blobs", DirectoryBlobStore(tmp_path / "blobs")
    ref = store.put(b"content")
    be_an_empty_mount_point(root)
    with pytest.raises(BlobUnavailableError) as caught:
        store.get(ref, limit_bytes=100)
    Path(str(caught.value.fix).rpartition("touch ")[2]).touch()
    with pytest.raises(BlobMissingError):
        store.get(ref, limit_bytes=100)
    assert store.get(store.put(b"content"), limit_bytes=100) == b"content"


# --- durability -----------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which file is flushed")
@pytest.mark.parametrize("by_file", [False, True])
def test_content_is_flushed_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_file: bool
) -> None:
    root = tmp_path / "blobs"
    store = DirectoryBlobStore(root)
    source = tmp_path / "source"
    source.write_bytes(b"content")
    flushed: list[tuple[str, list[str]]] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        flushed.append((str(path.relative_to(root)), files(root)))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    ref = store.put_file(source) if by_file else store.put(b"content")
    (incoming, there), shard, top = flushed
    assert incoming.startswith("incoming/")
    assert there == [incoming]
    assert shard == (ref.sha256[:2], [stored_at(ref)])
    assert top == (".", [stored_at(ref)])


_PUT = """
import sys
from pathlib import Path
from ktrdr.blobs.directory import DirectoryBlobStore
store = DirectoryBlobStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
ref = store.put(bytes(range(256)) * (1 << 16))
print(ref.model_dump_json(), flush=True)
"""


@pytest.mark.fault
@pytest.mark.parametrize("delay_ms", [0, 2, 5, 10, 20, 40])
def test_a_process_that_is_killed_leaves_a_blob_whole_or_absent(tmp_path: Path, delay_ms: int) -> None:
    content = bytes(range(256)) * (1 << 16)
    process = subprocess.Popen(
        [sys.executable, "-c", _PUT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(delay_ms / 1000)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()

    store = DirectoryBlobStore(tmp_path)
    entries = list(store.entries())
    assert bool(entries) >= bool(said), "it said that the blob was safe"
    assert all(entry.size == len(content) for entry in entries)
    store.remove_abandoned(before=datetime.now(UTC) + timedelta(minutes=1))
    ref = store.put(content)
    assert store.get(ref, limit_bytes=len(content)) == content
    assert files(tmp_path) == [stored_at(ref)]


def test_only_what_was_abandoned_long_ago_is_removed(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    assert store.remove_abandoned(before=datetime.now(UTC)) == 0
    ref = store.put(b"content")
    incoming = tmp_path / "incoming"
    now = datetime.now(UTC)
    for name, age in (("old", 3600), ("old#1", 3600), ("new", 0)):
        (incoming / name).write_bytes(b"half")
        then = now.timestamp() - age
        os.utime(incoming / name, (then, then))
    assert store.remove_abandoned(before=now - timedelta(minutes=30)) == 2
    assert files(tmp_path) == sorted([stored_at(ref), "incoming/new"])


# --- a full disk ----------------------------------------------------------------------------------


@pytest.mark.fault
def test_putting_on_a_full_disk_is_refused_and_leaves_nothing(small_disk: Path) -> None:
    store = DirectoryBlobStore(small_disk)
    safe = store.put(b"put before")
    with pytest.raises(StorageFullError, match="No space left") as refused:
        store.put(TOO_LARGE)
    assert str(small_disk) in str(refused.value)
    assert refused.value.fix == "Free some space and try again."
    assert files(small_disk) == [stored_at(safe)]
    assert store.get(safe, limit_bytes=100) == b"put before"


@pytest.mark.fault
def test_putting_a_file_on_a_full_disk_is_refused_and_leaves_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(TOO_LARGE * 4)
    store = DirectoryBlobStore(small_disk)
    with pytest.raises(StorageFullError, match="No space left"):
        store.put_file(source)
    assert files(small_disk) == []


@pytest.mark.fault
def test_a_full_disk_that_was_cleared_takes_the_blob(small_disk: Path) -> None:
    store = DirectoryBlobStore(small_disk)
    content = TOO_LARGE[: SMALL_DISK_BYTES // 4]
    filler = fill(small_disk)
    with pytest.raises(StorageFullError):
        store.put(content)
    filler.unlink()
    assert store.get(store.put(content), limit_bytes=len(content)) == content


@pytest.mark.fault
@pytest.mark.parametrize("free_bytes", [0, 4096, 256 * 1024])
def test_fetching_onto_a_full_disk_is_refused_and_leaves_nothing(
    small_disk: Path, tmp_path: Path, free_bytes: int
) -> None:
    store = DirectoryBlobStore(tmp_path / "blobs")
    ref = store.put(TOO_LARGE)
    filler = fill(small_disk, leave_bytes=free_bytes)
    with pytest.raises(StorageFullError, match="No space left") as refused:
        store.fetch(ref, small_disk / "cache" / "file")
    assert "cache/file cannot be written" in str(refused.value)
    assert files(small_disk) == [filler.name]


def test_importing_the_store_brings_neither_pandas_nor_torch() -> None:
    code = (
        "import sys, ktrdr.blobs.directory; print({'pandas', 'torch', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
