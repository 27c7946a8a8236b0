"""What every blob store promises. Another store is added to `blob_harness` and must pass all of it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktrdr.blobs.store import BlobStore
from ktrdr.errors import BlobCorruptError, BlobError, BlobMissingError, BlobRefusedError
from ktrdr.events import BlobRef, Codec
from tests.contract.blob_harness import BlobHarness, blob_harness, http_server

__all__ = ["blob_harness", "http_server"]

MIB = 1024 * 1024
CONTENT = b"content of a blob"
LARGE = bytes(range(256)) * (6 * MIB // 256)  # more than one part of an upload


@pytest.fixture
def harness(blob_harness: BlobHarness) -> BlobHarness:
    return blob_harness


@pytest.fixture
def store(harness: BlobHarness) -> BlobStore:
    return harness.store


def reference(content: bytes) -> BlobRef:
    sha256 = hashlib.sha256(content).hexdigest()
    return BlobRef(uri=f"blob:{sha256}", sha256=sha256, size=len(content))


@pytest.mark.parametrize("content", [b"", b"x", CONTENT, LARGE], ids=["empty", "byte", "small", "large"])
class TestContent:
    def test_is_got_as_it_was_put(self, store: BlobStore, content: bytes) -> None:
        ref = store.put(content)
        assert ref == reference(content)
        assert store.get(ref, limit_bytes=len(content)) == content

    def test_of_a_file_is_got_as_it_was(self, store: BlobStore, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "file"
        path.write_bytes(content)
        ref = store.put_file(path)
        assert ref == reference(content)
        assert store.get(ref, limit_bytes=len(content)) == content
        assert path.read_bytes() == content

    def test_is_fetched_into_a_file(self, store: BlobStore, tmp_path: Path, content: bytes) -> None:
        ref = store.put(content)
        destination = tmp_path / "cache" / "of agent" / "file"
        assert store.fetch(ref, destination) == destination
        assert destination.read_bytes() == content
        assert list(destination.parent.iterdir()) == [destination]

    def test_that_was_tampered_with_is_refused(
        self, harness: BlobHarness, tmp_path: Path, content: bytes
    ) -> None:
        store = harness.store
        ref = store.put(content)
        wrong = [content + b"!", content[:-1], b"\x01" + content[1:]] if content else [b"!"]
        for other in wrong:
            harness.overwrite(ref.sha256, other)
            with pytest.raises(BlobCorruptError, match=ref.sha256):
                store.get(ref, limit_bytes=10 * MIB)
            with pytest.raises(BlobCorruptError, match=ref.sha256):
                store.fetch(ref, tmp_path / "file")
            assert not list(tmp_path.glob("*file*"))

    def test_that_was_tampered_with_is_right_after_another_put(
        self, harness: BlobHarness, content: bytes
    ) -> None:
        store = harness.store
        ref = store.put(content)
        harness.overwrite(ref.sha256, b"\x01" + content[1:])
        store.put(content)
        assert store.get(ref, limit_bytes=len(content)) == content


class TestPutting:
    def test_twice_is_as_good_as_once(self, harness: BlobHarness) -> None:
        assert harness.store.put(CONTENT) == harness.store.put(CONTENT)
        assert [entry.sha256 for entry in harness.inventory.entries()] == [reference(CONTENT).sha256]

    def test_again_makes_it_young(self, harness: BlobHarness) -> None:
        store = harness.store
        ref = store.put(CONTENT)
        harness.age(ref.sha256, by=timedelta(days=7))
        (old,) = harness.inventory.entries()
        store.put(CONTENT)
        (new,) = harness.inventory.entries()
        assert new.modified - old.modified > timedelta(days=6)

    def test_notes_how_it_is_compressed(self, store: BlobStore, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(CONTENT)
        assert store.put(CONTENT, codec=Codec.ZSTD).codec is Codec.ZSTD
        assert store.put_file(tmp_path / "file", codec=Codec.ZSTD).codec is Codec.ZSTD

    def test_a_missing_file_is_an_error_that_names_it(self, store: BlobStore, tmp_path: Path) -> None:
        with pytest.raises(BlobError, match=r"nothing-here cannot be read: No such file"):
            store.put_file(tmp_path / "nothing-here")

    def test_at_once_from_many_threads_leaves_each_blob_whole(self, harness: BlobHarness) -> None:
        store = harness.store
        contents = [bytes([number]) * 100_000 for number in range(5)] * 8
        with ThreadPoolExecutor(8) as pool:
            refs = list(pool.map(store.put, contents))
        for ref, content in zip(refs, contents, strict=True):
            assert store.get(ref, limit_bytes=MIB) == content
        assert len(list(harness.inventory.entries())) == 5


class TestGetting:
    def test_what_is_missing_is_an_error_that_names_it(self, store: BlobStore, tmp_path: Path) -> None:
        ref = reference(CONTENT)
        with pytest.raises(BlobMissingError, match=ref.sha256):
            store.get(ref, limit_bytes=MIB)
        with pytest.raises(BlobMissingError, match=ref.sha256):
            store.fetch(ref, tmp_path / "file")
        assert not list(tmp_path.glob("*file*"))

    def test_what_is_over_the_limit_is_refused(self, store: BlobStore) -> None:
        ref = store.put(CONTENT)
        with pytest.raises(BlobRefusedError, match="17 bytes, over the limit of 16"):
            store.get(ref, limit_bytes=16)

    def test_a_size_other_than_the_reference_says_is_refused(
        self, harness: BlobHarness, tmp_path: Path
    ) -> None:
        ref = harness.store.put(LARGE)
        small = ref.model_copy(update={"size": 16})
        # It is checked against what is stored, before that is read.
        with pytest.raises(BlobCorruptError, match=r"6,291,456 bytes in place of 16"):
            harness.store.get(small, limit_bytes=16)
        with pytest.raises(BlobCorruptError, match=r"6,291,456 bytes in place of 16"):
            harness.store.fetch(small, tmp_path / "file")

    @pytest.mark.parametrize(
        "uri",
        [
            "blob:{other}",
            "blob:{sha256}/../{other}",
            "blob:{sha256} ",
            "blob:{upper}",
            "blob://{sha256}",
            "BLOB:{sha256}",
            "{sha256}",
            "",
            "file:///etc/passwd",
            "http://169.254.169.254/{sha256}",
            "s3://bucket/{sha256}",
            "../../etc/passwd",
        ],
    )
    def test_a_reference_to_elsewhere_is_refused(self, store: BlobStore, tmp_path: Path, uri: str) -> None:
        ref = store.put(CONTENT)
        elsewhere = uri.format(sha256=ref.sha256, upper=ref.sha256.upper(), other=reference(b"").sha256)
        hostile = ref.model_copy(update={"uri": elsewhere})
        with pytest.raises(BlobRefusedError):
            store.get(hostile, limit_bytes=MIB)
        with pytest.raises(BlobRefusedError):
            store.fetch(hostile, tmp_path / "file")
        assert not (tmp_path / "file").exists()

    @pytest.mark.parametrize(
        "sha256", ["", "../../etc/passwd", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n"]
    )
    def test_what_is_no_hash_is_refused_everywhere(
        self, harness: BlobHarness, tmp_path: Path, sha256: str
    ) -> None:
        store = harness.store
        hostile = BlobRef.model_construct(uri=f"blob:{sha256}", sha256=sha256, size=1, codec=Codec.NONE)
        with pytest.raises(BlobRefusedError):
            store.get(hostile, limit_bytes=MIB)
        with pytest.raises(BlobRefusedError):
            store.fetch(hostile, tmp_path / "file")
        with pytest.raises(BlobRefusedError):
            store.exists(sha256)
        with pytest.raises(BlobRefusedError):
            harness.inventory.delete(sha256)


class TestFetching:
    def test_again_uses_what_is_there(self, harness: BlobHarness, tmp_path: Path) -> None:
        ref = harness.store.put(CONTENT)
        destination = harness.store.fetch(ref, tmp_path / "file")
        first = destination.stat()
        harness.inventory.delete(ref.sha256)
        assert harness.store.fetch(ref, destination) == destination
        assert destination.stat() == first

    @pytest.mark.parametrize("there", [b"", b"other", CONTENT[:-1] + b"x"])
    def test_replaces_what_is_not_that_blob(self, store: BlobStore, tmp_path: Path, there: bytes) -> None:
        destination = tmp_path / "file"
        destination.write_bytes(there)
        store.fetch(store.put(CONTENT), destination)
        assert destination.read_bytes() == CONTENT

    def test_replaces_a_link_and_not_what_it_leads_to(self, store: BlobStore, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.write_bytes(CONTENT)
        destination = tmp_path / "file"
        destination.symlink_to(target)
        store.fetch(store.put(CONTENT), destination)
        assert not destination.is_symlink()
        target.write_bytes(b"changed")
        assert destination.read_bytes() == CONTENT

    def test_leaves_what_is_there_when_it_fails(self, harness: BlobHarness, tmp_path: Path) -> None:
        ref = harness.store.put(LARGE)
        harness.overwrite(ref.sha256, LARGE[:-1] + b"?")
        destination = tmp_path / "file"
        destination.write_bytes(b"of before")
        with pytest.raises(BlobCorruptError, match="other content"):
            harness.store.fetch(ref, destination)
        assert destination.read_bytes() == b"of before"
        assert list(tmp_path.glob("*file*")) == [destination]

    def test_at_once_from_many_threads_is_one_whole_file(self, store: BlobStore, tmp_path: Path) -> None:
        ref = store.put(LARGE)
        destination = tmp_path / "cache" / "file"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: store.fetch(ref, destination), range(8)))
        assert destination.read_bytes() == LARGE
        assert list(destination.parent.iterdir()) == [destination]

    def test_a_destination_that_cannot_be_written_is_an_error_that_names_it(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        ref = store.put(CONTENT)
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(BlobError, match="cannot be written"):
            store.fetch(ref, tmp_path / "file" / "below")
        (tmp_path / "directory" / "child").mkdir(parents=True)
        with pytest.raises(BlobError, match="cannot be written"):
            store.fetch(ref, tmp_path / "directory")
        assert not list(tmp_path.glob(".directory*"))


class TestKeeping:
    def test_a_blob_exists_until_it_is_deleted(self, harness: BlobHarness) -> None:
        ref = harness.store.put(CONTENT)
        assert harness.store.exists(ref.sha256)
        harness.inventory.delete(ref.sha256)
        assert not harness.store.exists(ref.sha256)
        assert list(harness.inventory.entries()) == []
        with pytest.raises(BlobMissingError):
            harness.store.get(ref, limit_bytes=MIB)

    def test_deleting_what_is_not_there_is_no_error(self, harness: BlobHarness) -> None:
        harness.inventory.delete(reference(CONTENT).sha256)

    def test_an_empty_store_has_no_entries(self, harness: BlobHarness) -> None:
        assert list(harness.inventory.entries()) == []
        assert not harness.store.exists(reference(CONTENT).sha256)

    def test_entries_tell_hash_size_and_time(self, harness: BlobHarness) -> None:
        before = datetime.now(UTC) - timedelta(seconds=5)
        refs = [harness.store.put(content) for content in (b"", CONTENT, LARGE)]
        entries = sorted(harness.inventory.entries(), key=lambda entry: entry.size)
        assert [(entry.sha256, entry.size) for entry in entries] == [(ref.sha256, ref.size) for ref in refs]
        for entry in entries:
            assert before < entry.modified < datetime.now(UTC) + timedelta(seconds=5)

    def test_entries_can_be_deleted_while_they_are_read(self, harness: BlobHarness) -> None:
        for number in range(100):
            harness.store.put(bytes([number]))
        for entry in harness.inventory.entries():
            harness.inventory.delete(entry.sha256)
        assert list(harness.inventory.entries()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(contents=st.lists(st.binary(max_size=200), max_size=8), data=st.data())
def test_a_store_behaves_like_a_dictionary(
    harness: BlobHarness, contents: list[bytes], data: st.DataObject
) -> None:
    for entry in harness.inventory.entries():
        harness.inventory.delete(entry.sha256)
    expected: dict[str, bytes] = {}
    for content in contents:
        ref = harness.store.put(content)
        expected[ref.sha256] = content
        if data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(expected)))
            harness.inventory.delete(gone)
            del expected[gone]
    assert {entry.sha256: entry.size for entry in harness.inventory.entries()} == {
        sha256: len(content) for sha256, content in expected.items()
    }
    for content in expected.values():
        assert harness.store.get(reference(content), limit_bytes=200) == content
