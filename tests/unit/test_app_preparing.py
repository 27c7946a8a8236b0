"""Preparing the same training again: what is remembered, and what must not be."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ktrdr.app.preparing import Preparing
from ktrdr.backend.wishes import StrategyText, TrainingWish
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.clock import SystemClock
from ktrdr.drill.market import write_bars, write_strategy
from ktrdr.errors import DataError, StrategyError
from ktrdr.events.references import BlobRef, Codec
from ktrdr.settings import Settings

WISH = TrainingWish("drill", seed=7)


class _LateClock(SystemClock):
    """A clock by which every file was last changed long ago, and that is put on by hand."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(hours=1)

    def monotonic(self) -> float:
        return self.passed_s


class _Case:
    def __init__(self, directory: Path) -> None:
        self.settings = Settings(
            home=directory / "home", data_dir=directory / "data", strategies_dir=directory / "strategies"
        )
        for made in (self.settings.data_dir, self.settings.strategies_dir):
            made.mkdir()
        write_bars(self.settings.data_dir)
        write_strategy(self.settings.strategies_dir)
        self.clock = _LateClock()
        self.blobs = DirectoryBlobStore(self.settings.blobs_dir)
        self.preparing = Preparing(self.settings, self.blobs, self.clock)
        self.bars = next(self.settings.data_dir.iterdir())
        self.strategy = next(self.settings.strategies_dir.iterdir())


@pytest.fixture
def case(tmp_path: Path) -> _Case:
    case = _Case(tmp_path)
    case.preparing.prepare(WISH)
    return case


def test_the_same_wish_is_prepared_once(case: _Case) -> None:
    remembered = case.preparing.prepare(WISH)
    assert case.preparing.prepare(WISH) is remembered
    other_seed = TrainingWish("drill", seed=8)
    assert case.preparing.prepare(other_seed) is remembered


def test_what_preparing_has_loaded_is_not_looked_at_by_the_garbage_collector_again(case: _Case) -> None:
    assert gc.get_freeze_count() > 10_000


def test_bars_that_changed_are_read_anew(case: _Case) -> None:
    before = case.preparing.prepare(WISH)
    lines = case.bars.read_text().splitlines()
    case.bars.write_text("\n".join(lines[:-1]) + "\n")
    after = case.preparing.prepare(WISH)
    assert after.datasets[0].rows == before.datasets[0].rows - 1


def test_bars_that_are_gone_are_missed_at_once(case: _Case) -> None:
    case.preparing.prepare(WISH)
    case.bars.unlink()
    with pytest.raises(DataError):
        case.preparing.prepare(WISH)


def test_a_strategy_that_changed_is_checked_anew(case: _Case) -> None:
    case.preparing.prepare(WISH)
    case.strategy.write_text("name: nothing else")
    with pytest.raises(StrategyError):
        case.preparing.prepare(WISH)


def test_another_wish_is_another_preparation(case: _Case) -> None:
    remembered = case.preparing.prepare(WISH)
    epochs = TrainingWish("drill", seed=7, overrides={"training.epochs": 2})
    sent_along = TrainingWish(StrategyText(case.strategy.read_text()), seed=7)
    assert case.preparing.prepare(epochs).strategy.overrides == {"training.epochs": 2}
    assert case.preparing.prepare(sent_along) is not remembered


def test_a_snapshot_that_is_gone_from_the_store_is_put_again(case: _Case) -> None:
    sha256 = case.preparing.prepare(WISH).datasets[0].blob.sha256
    case.blobs.delete(sha256)
    case.preparing.prepare(WISH)
    assert case.blobs.exists(sha256)


def test_a_snapshot_is_put_again_after_a_while_so_that_no_collection_takes_it(case: _Case) -> None:
    remembered = case.preparing.prepare(WISH)
    case.clock.passed_s = 60.0
    assert case.preparing.prepare(WISH) is not remembered


def test_bars_that_have_just_changed_are_not_remembered(tmp_path: Path) -> None:
    case = _Case(tmp_path)
    # By the clock of the machine they were written a moment ago, and may be written again in the same tick.
    preparing = Preparing(case.settings, case.blobs, _Backwards())
    preparing.prepare(WISH)
    assert preparing.prepare(WISH) is not preparing.prepare(WISH)


class _Backwards(SystemClock):
    """A clock by which every file was changed just now."""

    def now(self) -> datetime:
        return super().now() - timedelta(hours=1)


def test_bars_are_read_in_a_few_threads_however_many_ask(case: _Case) -> None:
    store = _AskedStore(case.settings.blobs_dir)
    preparing = Preparing(case.settings, store, case.clock)
    wishes = [TrainingWish("drill", overrides={"training.epochs": epochs}) for epochs in range(1, 9)]
    together = threading.Barrier(len(wishes))

    def ask(wish: TrainingWish) -> threading.Thread:
        together.wait(60)
        preparing.prepare(wish)
        return threading.current_thread()

    with ThreadPoolExecutor(len(wishes)) as clients:
        asking = set(clients.map(ask, wishes))
    assert len(asking) == len(wishes)
    assert store.askers.isdisjoint(asking)
    assert 1 <= len(store.askers) <= 4


class _AskedStore(DirectoryBlobStore):
    """A store that knows in which threads it was given anything."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.askers: set[threading.Thread] = set()

    def put(self, data: bytes, *, codec: Codec = Codec.NONE) -> BlobRef:
        self.askers.add(threading.current_thread())
        return super().put(data, codec=codec)
