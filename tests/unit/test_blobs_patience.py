"""How long a call goes on trying."""

import pytest

from ktrdr.blobs.patience import Patience


class Time:
    """Seconds that pass only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def pause_until_the_end(patience: Patience) -> None:
    def go_on() -> None:
        while True:
            patience.pause(ConnectionError("the last one"))

    with pytest.raises(ConnectionError, match="the last one"):
        go_on()


def test_it_ends_when_nothing_was_achieved_for_so_long(time: Time) -> None:
    pause_until_the_end(Patience(60, monotonic=time.monotonic, sleep=time.sleep))
    assert time.now == pytest.approx(1060)


def test_pauses_double_with_jitter_up_to_a_limit(time: Time) -> None:
    pause_until_the_end(Patience(120, monotonic=time.monotonic, sleep=time.sleep))
    for number, pause_s in enumerate(time.pauses[:-1]):
        longest_s = min(0.1 * 2**number, 5)
        assert longest_s / 2 <= pause_s <= longest_s


def test_progress_begins_it_anew(time: Time) -> None:
    patience = Patience(60, monotonic=time.monotonic, sleep=time.sleep)
    for _ in range(10):
        time.now += 59
        patience.progressed()
    assert time.pauses == []
    pause_until_the_end(patience)
    assert time.now == pytest.approx(1000 + 590 + 60)
    assert time.pauses[0] <= 0.1


def test_without_patience_the_first_failure_is_the_last(time: Time) -> None:
    pause_until_the_end(Patience(0, monotonic=time.monotonic, sleep=time.sleep))
    assert time.pauses == []
