"""Pauses between tries, and warnings about what is tried again and again."""

import random

import pytest
from structlog.testing import capture_logs

from host_agent.complaint import Complaint
from host_agent.waiting import Backoff
from tests.contract.virtual_clock import VirtualClock


def test_pauses_double_up_to_their_limit_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(1, 8, random.Random(1))
    for expected in (1, 2, 4, 8, 8):
        assert 0.75 * expected <= backoff.next() <= 1.25 * expected
    backoff.reset()
    assert backoff.next() <= 1.25


def test_two_that_failed_together_do_not_try_again_together() -> None:
    pauses = {round(Backoff(1, 8, random.Random(seed)).next(), 3) for seed in range(20)}
    assert len(pauses) > 15


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def test_what_is_wrong_for_a_day_is_said_a_few_times_and_its_end_once(clock: VirtualClock) -> None:
    complaint = Complaint("it is broken", clock)
    with capture_logs() as lines:
        for _ in range(24 * 360):
            complaint.repeat(reason="rust")
            await clock.advance(10)
        complaint.withdraw("it works", by="oil")
        complaint.withdraw("it works", by="oil")
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert 20 <= len(warnings) <= 40
    assert warnings[0] == {"event": "it is broken", "log_level": "warning", "reason": "rust"}
    assert [line["for_s"] for line in warnings[1:4]] == [60, 180, 420]
    [end] = [line for line in lines if line["log_level"] == "info"]
    assert end == {"event": "it works", "log_level": "info", "by": "oil", "after_s": 86400.0}


async def test_what_is_wrong_anew_is_said_at_once(clock: VirtualClock) -> None:
    complaint = Complaint("it is broken", clock)
    with capture_logs() as lines:
        for _ in range(3):
            complaint.repeat()
            complaint.withdraw()
    assert [line["log_level"] for line in lines] == ["warning"] * 3
