"""Which lines of an attempt are published, and how soon."""

from itertools import pairwise

import pytest

from host_agent.attempt_log import BURST, CAPACITY, LINES_PER_S, AttemptLog
from host_agent.frames import LogLine
from host_agent.journal import Claim
from ktrdr.events import LogEntry
from ktrdr.events.training import MAX_LINES, MAX_LOGGED_CHARACTERS, TrainingLogged
from ktrdr.logs.overhearing import Overheard
from tests.contract.virtual_clock import VirtualClock

CLAIM = Claim(operation_id="op-1", attempt=1, claim_id="c")


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def log(clock: VirtualClock) -> AttemptLog:
    return AttemptLog(CLAIM, clock=clock, on_said=lambda: None)


def line(event: str, level: str = "info") -> LogLine:
    return LogLine(level=level, event=event)


def everything(log: AttemptLog) -> list[LogEntry]:
    found: list[LogEntry] = []
    while entries := log.take(at_once=True):
        found += entries
    return found


def test_lines_keep_their_order_level_source_and_fields(log: AttemptLog) -> None:
    fields = {"slot": 1, "operation_id": "op-1", "attempt": 1, "agent": "alpha"}
    log.overhear(Overheard("info", "[1/4] Accepting", fields))
    log.relay(LogLine(level="debug", event="stage done", fields={"rows": 3, "names": ["a"]}))
    log.relay(line("odd", "notice"))
    log.overhear(Overheard("error", "failed", {"exception": "x" * 9000 + "ValueError"}))
    entries = log.take()
    assert [(e.number, e.level, e.source, e.event) for e in entries] == [
        (1, "info", "agent", "[1/4] Accepting"),
        (2, "debug", "executor", "stage done"),
        (3, "info", "executor", "odd"),
        (4, "error", "agent", "failed"),
    ]
    assert entries[0].fields == {"slot": 1}
    assert entries[1].fields == {"rows": 3, "names": '["a"]'}
    assert str(entries[3].fields["exception"]).endswith("ValueError")
    assert len(log) == 0


def test_a_flood_leaves_bounded_memory_the_severe_and_the_newest_and_what_the_agent_says(
    log: AttemptLog,
) -> None:
    log.overhear(Overheard("info", "[3/4] Running the executor", {}))
    log.relay(line("careful", "warning"))
    for number in range(100_000):
        log.relay(line(f"flood {number}", "debug" if number % 2 else "info"))
        assert len(log) <= CAPACITY
    log.overhear(Overheard("info", "[4/4] Delivering how it ended", {}))
    entries = everything(log)
    assert len(entries) == CAPACITY
    said = [entry.event for entry in entries]
    assert said[:2] == ["[3/4] Running the executor", "careful"]
    assert said[-2:] == ["flood 99998", "[4/4] Delivering how it ended"]
    assert not [entry for entry in entries if entry.level == "debug"]
    # Each line is there or is known to be missing.
    assert entries[-1].number == 100_003
    assert all(before.number < after.number for before, after in pairwise(entries))


async def test_so_many_lines_are_published_and_no_more(log: AttemptLog, clock: VirtualClock) -> None:
    taken = 0
    for _ in range(40):  # ten seconds
        for number in range(1000):
            log.relay(line(f"flood {number}"))
        taken += len(log.take())
        await clock.advance(0.25)
    assert taken <= BURST + 10 * LINES_PER_S
    assert taken > 10 * LINES_PER_S


def test_a_batch_fits_an_event_whatever_its_lines_hold(log: AttemptLog) -> None:
    for _ in range(CAPACITY):
        log.relay(
            LogLine(level="info", event="é" * 20_000, fields={str(n): "y" * 20_000 for n in range(100)})
        )
    seen = 0
    while entries := log.take(at_once=True):
        event = TrainingLogged(operation_id="op-1", attempt=1, claim_id="c", agent_id="a", lines=entries)
        assert len(event.lines) <= MAX_LINES
        assert sum(each.characters for each in event.lines) <= MAX_LOGGED_CHARACTERS
        seen += len(entries)
    assert seen == CAPACITY


def test_what_could_not_be_published_comes_first_again_as_long_as_there_is_room(log: AttemptLog) -> None:
    for number in range(1, 4):
        log.relay(line(f"line {number}"))
    taken = log.take()
    log.relay(line("line 4"))
    log.put_back(taken)
    assert [entry.event for entry in everything(log)] == [f"line {number}" for number in range(1, 5)]
    for number in range(CAPACITY):
        log.relay(line(f"later {number}"))
    log.put_back(taken)
    assert len(log) == CAPACITY
    assert everything(log)[0].event == "later 0"
