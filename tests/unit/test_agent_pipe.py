"""Frames between agent and runner."""

import asyncio
import hashlib
import socket
import struct
from datetime import UTC, datetime
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.endings import Cancelled, Failed, Trained
from host_agent.frames import FRAMES, Cancel, Ended, Frame, LogLine, Progressed, Ready, Start
from host_agent.pipe import MAX_FRAME_BYTES, encode_frame, read_frame, receive_frame
from ktrdr.errors import OversizedError, UndecodableError
from ktrdr.events.causes import FailureCause
from ktrdr.events.references import BlobRef, DatasetRef
from ktrdr.training.job import Dataset, TrainingJob
from ktrdr.training.progress import Progress, Stage
from tests.unit.agent_cases import manifest

SHA256 = hashlib.sha256(b"bars").hexdigest()
JOB = TrainingJob(
    operation_id="op-1",
    attempt=2,
    strategy_name="momentum",
    strategy_yaml="name: ünï",
    datasets=(
        Dataset(
            ref=DatasetRef(
                symbol="EURUSD",
                timeframe="1h",
                blob=BlobRef(uri=f"blob:{SHA256}", sha256=SHA256, size=4),
                rows=1,
                start=datetime(2024, 1, 1, tzinfo=UTC),
                end=datetime(2024, 1, 1, 3, 4, 5, 678, tzinfo=UTC),
            ),
            path=Path("/data/bars \udcff.parquet"),
        ),
    ),
    seed=2**62,
    overrides={"training.epochs": 3, "model.architecture.hidden_layers": [4, None, {"a": 0.1}]},
    threads=2,
)
PROGRESS = Progress(
    stage=Stage.TRAIN,
    fraction=0.25,
    epoch=3,
    epochs=10,
    batch=4,
    batches=9,
    metrics={"val_loss": 0.1},
    eta_s=7.5,
)
EXAMPLES: list[Frame] = [
    Start(run_id="a", job=JOB, bundle=Path("/spool/model.bundle"), max_bundle_bytes=10),
    Cancel(run_id="a"),
    Ready(device="cuda", device_name="GPU", memory_bytes=2**40, import_seconds=1.5),
    Progressed.of("a", PROGRESS),
    LogLine(level="info", event="line", fields={"rows": 3, "of": [1, "b"], "nothing": None}),
    Ended(run_id="a", ending=Trained(manifest=manifest(b"x"))),
    Ended(run_id="a", ending=Failed(cause=FailureCause.OUT_OF_MEMORY, message="m", traceback="t", epoch=1)),
    Ended(run_id="a", ending=Cancelled(epoch=4)),
]


def through_a_socket(data: bytes) -> Frame:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        return receive_frame(theirs)


async def through_a_stream(data: bytes) -> Frame:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_frame(reader)


def test_every_kind_of_frame_has_an_example() -> None:
    assert {type(frame) for frame in EXAMPLES} == set(FRAMES.values())


@pytest.mark.parametrize("frame", EXAMPLES, ids=lambda frame: type(frame).__name__)
async def test_a_frame_arrives_as_it_was_sent(frame: Frame) -> None:
    assert through_a_socket(encode_frame(frame)) == frame
    assert await through_a_stream(encode_frame(frame)) == frame


def test_progress_is_the_same_on_the_other_side() -> None:
    frame = through_a_socket(encode_frame(Progressed.of("a", PROGRESS)))
    assert isinstance(frame, Progressed)
    assert frame.progress() == PROGRESS


@given(
    st.text(),
    st.dictionaries(st.text(), st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.none()),
)
def test_any_line_of_the_log_can_be_sent(event: str, fields: dict[str, bool | int | str | None]) -> None:
    line = LogLine(level="info", event=event, fields={**fields})
    assert through_a_socket(encode_frame(line)) == line


def test_frames_follow_each_other() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"".join(encode_frame(frame) for frame in EXAMPLES))
        assert [receive_frame(theirs) for _ in EXAMPLES] == EXAMPLES


def test_a_frame_over_the_limit_is_not_sent() -> None:
    line = LogLine(level="info", event="x" * MAX_FRAME_BYTES)
    with pytest.raises(OversizedError):
        encode_frame(line)


async def test_a_length_over_the_limit_is_refused_before_the_rest_is_read() -> None:
    prefix = struct.pack(">I", MAX_FRAME_BYTES + 1)
    with pytest.raises(OversizedError):
        through_a_socket(prefix)
    with pytest.raises(OversizedError):
        await through_a_stream(prefix)


@pytest.mark.parametrize("size", [0, 2, 4, 10])
async def test_a_pipe_that_closes_within_a_frame_is_at_its_end(size: int) -> None:
    data = encode_frame(Cancel(run_id="a"))[:size]
    with pytest.raises(EOFError):
        through_a_socket(data)
    with pytest.raises(EOFError):
        await through_a_stream(data)


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"",
        msgpack.packb(7),
        msgpack.packb(["cancel"]),
        msgpack.packb(["surprise", {}]),
        msgpack.packb([["cancel"], {}]),
        msgpack.packb(["cancel", {"run_id": "a", "more": 1}]),
        msgpack.packb(["cancel", {"run_id": 3}]),
    ],
)
async def test_what_is_not_a_frame_is_an_error(body: bytes) -> None:
    data = struct.pack(">I", len(body)) + body
    with pytest.raises(UndecodableError):
        through_a_socket(data)
    with pytest.raises(UndecodableError):
        await through_a_stream(data)
