import hashlib
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.errors import ModelCorruptError
from ktrdr.models.bundle import BUNDLE_FILES, digests, pack, unpack, unpack_pieces

FILES = {name: name.encode() for name in BUNDLE_FILES}


def encoded(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


@given(st.fixed_dictionaries({name: st.binary(max_size=200) for name in BUNDLE_FILES}))
def test_what_is_packed_is_unpacked(files: dict[str, bytes]) -> None:
    assert unpack(pack(files)) == files


@given(
    st.fixed_dictionaries({name: st.integers(0, 70_000) for name in BUNDLE_FILES}),
    st.lists(st.integers(0, 70_000), max_size=8),
)
def test_it_is_unpacked_from_pieces_of_any_size(sizes: dict[str, int], widths: list[int]) -> None:
    files = {name: bytes(size) for name, size in sizes.items()}
    packed = pack(files)
    pieces = []
    for width in widths:
        pieces.append(packed[:width])
        packed = packed[width:]
    assert unpack_pieces(iter([*pieces, packed])) == files


def test_of_a_length_that_lies_nothing_is_allocated() -> None:
    lying = pack(FILES)[:1] + encoded("model.safetensors") + b"\xc6\xff\xff\xff\xff" + b"x" * 1000
    tracemalloc.start()
    try:
        with pytest.raises(ModelCorruptError, match="ends in the middle"):
            unpack_pieces([lying])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_order_in_which_files_are_given_does_not_matter() -> None:
    assert pack(dict(reversed(FILES.items()))) == pack(FILES)


@pytest.mark.parametrize(
    "files", [{}, {**FILES, "extra": b""}, dict.fromkeys(BUNDLE_FILES[1:], b""), {**FILES, "../x": b""}]
)
def test_other_files_are_not_packed(files: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        pack(files)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"PK\x03\x04",
        encoded([1, 2, 3, 4]),
        encoded([["model.safetensors", b""]] * 4),
        encoded(7),
        encoded({}),
        encoded({**FILES, "extra": b""}),
        encoded(dict.fromkeys(BUNDLE_FILES[1:], b"")),
        encoded(dict.fromkeys(("../etc/passwd", *BUNDLE_FILES[1:]), b"")),
        encoded({**FILES, "metadata.json": "text"}),
        encoded({**FILES, "metadata.json": {"a": 1}}),
        encoded({b"model.safetensors": b"", "a": b"", "b": b"", "c": b""}),
        pack(FILES)[:-1],
        pack(FILES) + b"\x00",
        b"\x91" * 2000,
        # The weights twice, in place of the evaluation.
        b"\x84"
        + b"".join(encoded(part) for name in BUNDLE_FILES[:3] for part in (name, b"x"))
        + encoded(BUNDLE_FILES[0])
        + encoded(b"y"),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ModelCorruptError):
        unpack(data)


@given(st.binary(max_size=64), st.integers(0, 200))
def test_no_bytes_make_it_fail_otherwise(noise: bytes, position: int) -> None:
    packed = pack(FILES)
    try:
        files = unpack(packed[:position] + noise + packed[position + len(noise) :])
    except ModelCorruptError:
        return
    assert set(files) == set(BUNDLE_FILES)


def test_digests_say_hash_and_size_of_each_file() -> None:
    found: dict[str, Any] = digests(FILES)
    assert list(found) == list(BUNDLE_FILES)
    assert found["metadata.json"].sha256 == hashlib.sha256(b"metadata.json").hexdigest()
    assert found["metadata.json"].size == 13
