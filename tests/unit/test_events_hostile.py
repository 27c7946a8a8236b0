"""Whatever arrives, reading it raises nothing but `CodecError`, soon, and in little memory."""

import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import CodecError, OversizedError, UndecodableError, UnknownEventError
from ktrdr.events import EVENT_TYPES, Envelope, Event, Message, codec, decode, encode
from ktrdr.events.compression import compress, decompress
from ktrdr.events.structure import MAX_DEPTH, check_structure
from tests.unit.events_cases import EXAMPLES, example

MIB = 1024 * 1024
FAILED = "ktrdr.training.failed.v1"
TYPE_NAMES = st.sampled_from([event_type.type_name() for event_type in EVENT_TYPES])


def message_of(body: bytes, type_name: str = FAILED, **properties: Any) -> Message:
    return Message(body=body, message_id="0193", type=type_name, **properties)


def sent(event: Event) -> Message:
    return encode(Envelope(event, "0193", "agent@host", datetime(2026, 1, 1, tzinfo=UTC)))


def read(message: Message) -> None:
    """Decode, letting nothing through but what a consumer expects."""
    refusal = ""
    try:
        decode(message)
    except CodecError as error:
        refusal = str(error)
    assert len(refusal) < 2000
    assert refusal.isprintable()


# --- any bytes ---


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=200), TYPE_NAMES, st.sampled_from([None, "zstd"]))
def test_random_bytes(body: bytes, type_name: str, encoding: str | None) -> None:
    read(message_of(body, type_name, content_encoding=encoding))
    if encoding:
        read(message_of(compress(body), type_name, content_encoding=encoding))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(EXAMPLES), st.randoms(use_true_random=False), st.booleans())
def test_a_real_event_with_bytes_changed_cut_or_added(
    event: Event, dice: random.Random, compressed: bool
) -> None:
    message = sent(event)
    body = bytearray(compress(message.body) if compressed else message.body)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(body) + 1)
        match dice.randrange(4):
            case 0:
                body[at : at + 1] = dice.randbytes(1)
            case 1:
                del body[at:]
            case 2:
                body[at:at] = dice.randbytes(dice.randint(1, 6))
            case 3:
                del body[at : at + dice.randint(1, 6)]
    read(replace(message, body=bytes(body), content_encoding="zstd" if compressed else None))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=30)
    | st.binary(max_size=30)
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999))
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.integers(0, 9) | st.binary(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(EXAMPLES), st.data(), ANYTHING)
@case(example("ktrdr.training.requested"), None, msgpack.Timestamp(2**62, 0))
@case(example("ktrdr.training.requested"), None, "9999-12-31T23:59:59-23:59")
def test_a_real_event_with_a_field_of_any_value(
    event: Event, data: st.DataObject | None, value: object
) -> None:
    fields = event.model_dump(mode="json", round_trip=True)
    paths = list(paths_of(fields))
    path = data.draw(st.sampled_from(paths)) if data is not None else ["requested_at"]
    inner = fields
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    read(message_of(msgpack.packb(fields), event.type_name()))


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each value in a structure is."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, below in inner:
        found += paths_of(below, (*path, key))
    return found


# --- wrong in one way ---


FIELDS = msgpack.unpackb(sent(example("ktrdr.training.failed")).body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid msgpack"),
        (b"\xc1", "0xc1 is no type"),
        (b"\x82\xa1a", "not valid msgpack"),
        (msgpack.packb(FIELDS) + b"\x00", "not valid msgpack"),
        (msgpack.packb(FIELDS)[:-1], "not valid msgpack"),
        (b"\x81\xa1\xff\x01", "not valid msgpack"),
        (b"\x81\x80\x01", "not valid msgpack"),
        (b"\x81\x90\x01", "not valid msgpack"),
        (msgpack.packb([FIELDS]), "is a list, not a map"),
        (msgpack.packb("x"), "is a str, not a map"),
        (msgpack.packb(None), "is a NoneType, not a map"),
        (msgpack.packb({}), "Field required"),
        (msgpack.packb({**FIELDS, "attempt": 0}), "attempt: Input should be greater than or equal to 1"),
        (msgpack.packb({**FIELDS, "cause": "bad_luck"}), "cause: Input should be"),
        (msgpack.packb({**FIELDS, "claim_id": "../x"}), "claim_id: String should match pattern"),
        (msgpack.packb({**FIELDS, "at": msgpack.Timestamp(2**62, 0)}), "not valid msgpack"),
        (msgpack.packb({**FIELDS, "at": msgpack.ExtType(5, b"x")}), None),
    ],
)
def test_a_body_that_is_wrong_says_how(body: bytes, message: str | None) -> None:
    if message is None:  # a field that is not known may hold anything
        assert decode(message_of(body)).event == example("ktrdr.training.failed")
        return
    with pytest.raises(UndecodableError, match=message):
        decode(message_of(body))


@pytest.mark.parametrize(
    ("type_name", "message"),
    [
        ("ktrdr.training.failed.v2", "known in version 1, not 2"),
        ("ktrdr.training.failed.v01", "known in version 1, not 01"),
        ("ktrdr.training.unheard.v1", "No event has the type 'ktrdr.training.unheard'"),
        ("ktrdr.training.failed", "is not the type of an event"),
        ("", "is not the type of an event"),
        ("ktrdr.training.failed.v1\n", "is not the type of an event"),
        ("\ud800" * 300_000, "is not the type of an event"),
        ("x.v" + "9" * 100_000, "is not the type of an event"),
    ],
)
def test_a_type_that_is_not_known_says_so(type_name: str, message: str) -> None:
    body = sent(example("ktrdr.training.failed")).body
    with pytest.raises(UnknownEventError, match=message) as caught:
        decode(message_of(body, type_name))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"content_type": "application/json"}, "content type is 'application/json'"),
        ({"content_encoding": "gzip"}, "content encoding 'gzip' is not known"),
        ({"content_encoding": "a\nb"}, "content encoding 'a b' is not known"),
        ({"content_type": "a\nb"}, "content type is 'a b'"),
        ({"message_id": ""}, "without a message id"),
    ],
)
def test_properties_that_are_wrong_say_so(properties: dict[str, str], message: str) -> None:
    with pytest.raises(UndecodableError, match=message):
        decode(replace(sent(example("ktrdr.training.failed")), **properties))  # type: ignore[arg-type]  # all strings


@pytest.mark.parametrize("time", ["", "yesterday", "2026-01-01T00:00:00", "0001-01-01T00:00:00+10:00", 7])
def test_a_time_that_cannot_be_read_is_no_reason_to_refuse_an_event(time: str | int) -> None:
    message = sent(example("ktrdr.training.failed"))
    headers = {**message.headers, "cloudEvents:time": time}
    assert decode(replace(message, headers=headers)).occurred_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_an_event_of_an_unknown_sender_is_read() -> None:
    message = replace(
        sent(example("ktrdr.training.failed")), headers={"traceparent": 1}, app_id=None, timestamp=None
    )
    envelope = decode(message)
    assert envelope.sender == "unknown"
    assert envelope.traceparent is None
    assert envelope.occurred_at == datetime(1970, 1, 1, tzinfo=UTC)


# --- too much ---


def test_a_body_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(OversizedError, match="is over"):
        decode(message_of(bytes(codec.MAX_BODY_BYTES + 1)))


def zstd_frame(declared: int, blocks: bytes, *, window: int | None = None) -> bytes:
    """A frame by RFC 8878: an 8-byte content size, and a window descriptor unless it is a single segment."""
    descriptor = 0b1100_0000 if window is not None else 0b1110_0000
    header = b"\x28\xb5\x2f\xfd" + bytes([descriptor])
    return header + (bytes([window]) if window is not None else b"") + struct.pack("<Q", declared) + blocks


def run_length_block(size: int, *, last: bool) -> bytes:
    """Four bytes that become up to 128 KiB."""
    return struct.pack("<I", size << 3 | 1 << 1 | last)[:3] + b"\xc0"


BLOCKS_200_MIB = b"".join(run_length_block(128 * 1024, last=n == 1599) for n in range(1600))
UNDECLARED = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(50 * MIB))
SMALL = run_length_block(100, last=True)


def packed_bomb(unit: bytes, count: int, header: Callable[[int], bytes]) -> bytes:
    return header(count) + unit * count


def array(count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count)


def nested_arrays_that_never_come() -> bytes:
    body = (array(12 * MIB) * 1000).ljust(12 * MIB + 5000, b"\xc0")
    return b"\x81\xa1a" + body


BOMBS: dict[str, tuple[bytes, str | None]] = {
    "zstd that declares what it holds, too much": (zstd_frame(200 * MIB, BLOCKS_200_MIB), "zstd"),
    "zstd that declares little": (zstd_frame(100, BLOCKS_200_MIB), "zstd"),
    "zstd that declares nothing is inside": (zstd_frame(0, BLOCKS_200_MIB), "zstd"),
    "zstd that declares just less than the limit": (zstd_frame(16 * MIB, BLOCKS_200_MIB), "zstd"),
    "zstd that does not declare": (UNDECLARED, "zstd"),
    "zstd that declares an exabyte": (zstd_frame(1 << 60, SMALL), "zstd"),
    "zstd that wants 3.75 TiB of history": (zstd_frame(100, SMALL, window=0xFF), "zstd"),
    "zstd that wants 2 GiB of history": (zstd_frame(100, SMALL, window=(31 - 10) << 3), "zstd"),
    "many zstd frames": (compress(bytes(MIB)) * 2000, "zstd"),
    "16 MiB of empty maps": (compress(b"\x81\xa1a" + packed_bomb(b"\x80", 15 * MIB, array)), "zstd"),
    "16 MiB of empty lists": (compress(b"\x81\xa1a" + packed_bomb(b"\x90", 15 * MIB, array)), "zstd"),
    "16 MiB of short texts": (compress(b"\x81\xa1a" + packed_bomb(b"\xa2ab", 5 * MIB, array)), "zstd"),
    "12 MiB of empty maps, not compressed": (b"\x81\xa1a" + packed_bomb(b"\x80", 11 * MIB, array), None),
    "arrays of millions that never come": (compress(nested_arrays_that_never_come()), "zstd"),
    "a map of 4 billion": (b"\xdf\xff\xff\xff\xff", None),
    "an array of 4 billion": (b"\x81\xa1a\xdd\xff\xff\xff\xff", None),
    "a text of 4 GiB": (b"\x81\xa1a\xdb\xff\xff\xff\xff", None),
    "bytes of 4 GiB": (b"\x81\xa1a\xc6\xff\xff\xff\xff", None),
    "an extension of 4 GiB": (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", None),
    "nested a million deep": (compress(b"\x91" * MIB + b"\xc0"), "zstd"),
    "nested maps a million deep": (compress(b"\x81\xa1a" * MIB + b"\xc0"), "zstd"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_stays_within_memory(name: str) -> None:
    body, encoding = BOMBS[name]
    message = message_of(body, content_encoding=encoding)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decode(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The content itself may have up to 16 MiB.
    assert peak < 20 * MIB, f"{peak / MIB:.0f} MiB"


def test_bombs_stay_within_the_memory_of_a_process_too() -> None:
    # What zstandard and msgpack allocate by themselves is not traced, so ask the operating system.
    program = """
import resource, sys
from tests.unit.test_events_hostile import BOMBS, message_of, read
messages = [message_of(body, content_encoding=encoding) for body, encoding in BOMBS.values()]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for message in messages:
    read(message)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 64 * MIB


def test_many_wrong_fields_make_a_short_message() -> None:
    body = msgpack.packb({**FIELDS, "metrics": {f"m{n}": "x" for n in range(9000)}})
    with pytest.raises(UndecodableError, match=r"\(and \d+ more\)") as caught:
        decode(message_of(body, "ktrdr.training.progress.v1"))
    assert len(str(caught.value)) < 1000


def test_a_name_of_a_field_that_goes_on_for_ever_makes_a_short_message_of_one_line() -> None:
    fields = example("ktrdr.training.progress").model_dump()
    body = msgpack.packb({**fields, "metrics": {"a\n" * 100_000: "x"}})
    with pytest.raises(UndecodableError, match=r"metrics\.a a a") as caught:
        decode(message_of(body, "ktrdr.training.progress.v1"))
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


# --- zstd ---


@given(st.binary(max_size=5000))
def test_what_was_compressed_is_decompressed(data: bytes) -> None:
    assert decompress(compress(data), limit=5000) == data


def test_content_of_exactly_the_limit_is_accepted() -> None:
    assert decompress(compress(b"x" * 1000), limit=1000) == b"x" * 1000
    with pytest.raises(OversizedError, match=r"declares 1,001 bytes; the limit is 1,000"):
        decompress(compress(b"x" * 1001), limit=1000)


FRAME = compress(b"x" * 1000)
SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"abcd"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 100,
        FRAME[:4],
        FRAME[:-1],
        FRAME + b"x",
        FRAME + FRAME,
        FRAME + SKIPPABLE,
        SKIPPABLE,
        SKIPPABLE + FRAME,
        compress(b"") + b"x",
        compress(b"") + FRAME,
        UNDECLARED,
        zstd_frame(99, SMALL),
        zstd_frame(101, SMALL),
        zstd_frame(0, SMALL),
    ],
)
def test_what_is_not_one_whole_frame_is_refused(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        decompress(data, limit=64 * MIB)


def test_a_frame_whose_checksum_is_wrong_is_refused() -> None:
    frame = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(b"x" * 1000))
    assert decompress(bytes(frame), limit=1000) == b"x" * 1000
    frame[-1] ^= 1
    with pytest.raises(UndecodableError):
        decompress(bytes(frame), limit=1000)


# --- the look at the headers ---


def count_values(value: object) -> int:
    match value:
        case dict():
            return 1 + sum(count_values(key) + count_values(inner) for key, inner in value.items())
        case list():
            return 1 + sum(count_values(inner) for inner in value)
        case _:
            return 1


def depth_of(value: object) -> int:
    match value:
        case dict() if value:
            return 1 + max(depth_of(inner) for inner in value.values())
        case list() if value:
            return 1 + max(depth_of(inner) for inner in value)
        case _:
            return 0


@settings(deadline=None, max_examples=300)
@given(ANYTHING | st.text(min_size=200, max_size=70_000) | st.lists(st.none(), min_size=10, max_size=500))
@case(b"x" * 70_000)
@case({"a": "x" * 300, "b": b"x" * 300})
@case([msgpack.ExtType(1, bytes(n)) for n in (1, 2, 3, 4, 8, 16, 17, 300, 70_000)])
@case([1.5, 2**7, 2**8, 2**16, 2**32, -1, -(2**5) - 1, -(2**8), -(2**16), -(2**32), None, True])
@case({str(n): n for n in range(70_000)})
def test_values_are_counted_as_they_are_unpacked(value: object) -> None:
    packed, values, depth = msgpack.packb(value), count_values(value), depth_of(value)
    check_structure(packed, max_values=values, max_depth=depth)
    if values > 1:
        with pytest.raises(OversizedError, match="values"):
            check_structure(packed, max_values=values - 1, max_depth=depth)
    if depth > 0:
        with pytest.raises(OversizedError, match="deeper"):
            check_structure(packed, max_values=values, max_depth=depth - 1)


def test_single_precision_numbers_are_counted_too() -> None:
    packed = msgpack.packb([0.5] * 10, use_single_float=True)
    check_structure(packed, max_values=11)
    with pytest.raises(OversizedError):
        check_structure(packed, max_values=10)


def test_nesting_up_to_the_limit_is_read() -> None:
    for depth, allowed in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False)):
        body = b"\x91" * depth + b"\xc0"
        if allowed:
            check_structure(body)
        else:
            with pytest.raises(OversizedError):
                check_structure(body)


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_the_look_at_the_headers_ends_for_any_bytes(content: bytes) -> None:
    try:
        check_structure(content)
    except CodecError:
        return
