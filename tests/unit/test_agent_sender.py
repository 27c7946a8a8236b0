"""How the runner says things without ever waiting for the agent."""

import socket
import time
from collections.abc import Iterator

import pytest

from host_agent.endings import Cancelled
from host_agent.frames import Ended, Frame, LogLine, Progressed
from host_agent.pipe import receive_frame
from host_agent.sender import FrameSender
from ktrdr.training.progress import Progress, Stage


@pytest.fixture
def pipe() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def progressed(epoch: int) -> Progressed:
    return Progressed.of("a", Progress(stage=Stage.TRAIN, fraction=0.5, epoch=epoch))


def receive_until_end(pipe: socket.socket) -> list[Frame]:
    frames = [receive_frame(pipe)]
    while not isinstance(frames[-1], Ended):
        frames.append(receive_frame(pipe))
    return frames


END = Ended(run_id="a", ending=Cancelled())


def test_the_first_progress_comes_at_once(pipe: tuple[socket.socket, socket.socket]) -> None:
    sender = FrameSender(pipe[0], interval_s=60)
    sender.progress(progressed(1))
    assert receive_frame(pipe[1]) == progressed(1)


def test_a_few_come_at_once_however_close_together(pipe: tuple[socket.socket, socket.socket]) -> None:
    sender = FrameSender(pipe[0], interval_s=60)
    for epoch in range(1, 5):
        sender.progress(progressed(epoch))
        assert receive_frame(pipe[1]) == progressed(epoch)
    sender.progress(progressed(5))
    sender.progress(progressed(6))
    sender.send(END)
    assert receive_until_end(pipe[1]) == [progressed(6), END]


def test_of_progress_within_the_interval_only_the_newest_comes(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    sender = FrameSender(pipe[0], interval_s=0.05)
    began = time.monotonic()
    epoch = 0
    while time.monotonic() - began < 0.3:
        epoch += 1
        sender.progress(progressed(epoch))
        time.sleep(0.0005)
    sender.send(END)
    frames = receive_until_end(pipe[1])[:-1]
    # Four at once, one per interval, one with the end.
    assert 2 <= len(frames) <= 5 + (time.monotonic() - began) / 0.05 + 1
    assert frames[-1] == progressed(epoch)
    epochs = [frame.epoch for frame in frames if isinstance(frame, Progressed)]
    assert epochs == sorted(set(epochs))


def test_progress_that_waits_comes_after_the_interval_by_itself(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    sender = FrameSender(pipe[0], interval_s=0.02)
    sender.progress(progressed(1))
    assert receive_frame(pipe[1]) == progressed(1)
    sender.progress(progressed(2))
    assert receive_frame(pipe[1]) == progressed(2)


def test_the_end_comes_after_the_newest_progress_and_every_line(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    sender = FrameSender(pipe[0], interval_s=60)
    sender.progress(progressed(1))
    assert receive_frame(pipe[1]) == progressed(1)
    lines = [LogLine(level="info", event=f"line {number}") for number in range(100)]
    for line in lines:
        sender.log(line)
    sender.progress(progressed(2))
    sender.send(END)
    assert receive_until_end(pipe[1]) == [*lines, progressed(2), END]


def test_progress_does_not_wait_for_lines(pipe: tuple[socket.socket, socket.socket]) -> None:
    sender = FrameSender(pipe[0])
    for _ in range(1000):
        sender.log(LogLine(level="info", event="x" * 1000))
    sender.progress(progressed(1))
    lines_before = 0
    while isinstance(receive_frame(pipe[1]), LogLine):
        lines_before += 1
    # What the pipe itself holds comes first, and what is being written.
    assert lines_before < 900


def test_an_agent_that_does_not_read_blocks_nobody_and_is_told_how_much_was_dropped(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    sender = FrameSender(pipe[0])
    line = LogLine(level="info", event="x" * 1000)
    for _ in range(12_000):
        sender.log(line)
    received = [receive_frame(pipe[1]) for _ in range(1000)]
    sender.log(LogLine(level="info", event="after"))
    sender.send(END)
    rest = receive_until_end(pipe[1])
    everything = [*received, *rest]
    notes = [
        frame for frame in everything if isinstance(frame, LogLine) and frame.event == "log lines dropped"
    ]
    dropped = sum(int(str(note.fields["lines"])) for note in notes)
    assert dropped > 0
    assert everything.count(line) + dropped == 12_000
    assert rest[-2:] == [LogLine(level="info", event="after"), END]


def test_an_agent_that_is_gone_is_no_error(pipe: tuple[socket.socket, socket.socket]) -> None:
    sender = FrameSender(pipe[0])
    pipe[1].close()
    sender.log(LogLine(level="info", event="x"))
    sender.progress(progressed(1))
    sender.send(END)
