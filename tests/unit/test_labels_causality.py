"""Every label source keeps what it says of when its labels are known; one that does not is found out."""

import re
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.labels import LABELS, Labels, LabelSource
from ktrdr.labels.base import labels_at
from ktrdr.labels.causality import find_label_leak
from ktrdr.market.bars import Bars
from tests.unit.label_cases import MakeBars, go_on
from tests.unit.test_labels_sources import SOURCES


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1), step=st.sampled_from([0.004, 0.02]))
def test_no_source_knows_of_the_future(
    source: LabelSource, random_bars: MakeBars, seed: int, step: float
) -> None:
    try:
        leak = find_label_leak(source, random_bars(150, seed=seed, step=step), go_on, cuts=4, seed=seed)
    except DataError:  # too calm for a leg
        return
    assert leak is None


@pytest.mark.parametrize("name", LABELS.names())
def test_no_source_knows_of_the_future_of_real_bars(name: str, eurusd: pd.DataFrame) -> None:
    assert find_label_leak(LABELS.get(name)(), eurusd.iloc[:1200], go_on, cuts=5) is None


class Plugin(LabelSource):
    """RISES where the close is higher three bars on, as a user might write it."""

    classes: ClassVar[tuple[str, ...]] = ("FALLS", "RISES")

    @property
    def horizon_bars(self) -> int:
        return 3

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        check()
        closes = bars["close"].to_numpy()
        at = np.arange(len(bars) - 3)
        return labels_at(bars, at, (closes[at + 3] > closes[at]).astype(np.int64), at + 3)


class KnownTooEarly(Plugin):
    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        labels = super().compute(bars, check)
        return Labels(labels.times, labels.values, bars.index[2 : 2 + len(labels.times)])


class AgainstTheWholeMean(Plugin):
    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        labels = super().compute(bars, check)
        values = (bars["close"] > bars["close"].mean()).to_numpy()[: len(labels.times)]
        return Labels(labels.times, values.astype(np.int64), labels.known_at)


class OnlyBeforeLargeMoves(Plugin):
    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        labels = super().compute(bars, check)
        ahead = (bars["close"].shift(-9) / bars["close"] - 1).abs().to_numpy()[: len(labels.times)]
        kept = np.flatnonzero(ahead > 0.01)
        return Labels(labels.times[kept], labels.values[kept], labels.known_at[kept])


class WeighedByTheFuture(Plugin):
    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        labels = super().compute(bars, check)
        ahead = (bars["close"].shift(-9) / bars["close"]).fillna(1.0).to_numpy()[: len(labels.times)]
        return Labels(labels.times, labels.values, labels.known_at, ahead / ahead.mean())


class KnownWhenTheFutureSays(Plugin):
    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        labels = super().compute(bars, check)
        later = 3 + (bars["close"].shift(-9) > bars["close"]).to_numpy()[: len(labels.times)]
        at = np.minimum(np.arange(len(labels.times)) + later, len(bars) - 1)
        return Labels(labels.times, labels.values, bars.index[at])


class FailsInTrouble(Plugin):
    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        if bars["close"].pct_change().abs().max() > 0.05:
            raise DataError("The price jumps.")
        return super().compute(bars, check)


class ReturnsOfTheWhole(Plugin):
    classes: ClassVar[tuple[str, ...]] = ()

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        labels = super().compute(bars, check)
        returns = bars["close"].pct_change(3).shift(-3).to_numpy()[: len(labels.times)]
        return Labels(labels.times, (returns / returns.std()).astype(np.float32), labels.known_at)


def test_a_plugin_that_keeps_its_word_passes(random_bars: MakeBars) -> None:
    assert find_label_leak(Plugin(), random_bars(300), go_on) is None


@pytest.mark.parametrize(
    ("source", "change"),
    [
        (KnownTooEarly(), r"it is (RISES instead of FALLS|FALLS instead of RISES)\.$"),
        (AgainstTheWholeMean(), r"it is (RISES instead of FALLS|FALLS instead of RISES)\.$"),
        (OnlyBeforeLargeMoves(), r"it is (gone|not there)\.$"),
        (WeighedByTheFuture(), r"it has another weight among those known by then\.$"),
        (KnownWhenTheFutureSays(), r"it is (known at that of 2020-\S+|gone|not there)\.$"),
        (FailsInTrouble(), r"there is none \(The price jumps\.\)\.$"),
        (ReturnsOfTheWhole(), r"it is -?\d\S* instead of -?\d\S*\.$"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LabelSource) else "",
)
def test_a_leak_is_told_with_its_bar_and_what_changes(
    source: LabelSource, change: str, random_bars: MakeBars
) -> None:
    bars = random_bars(300)
    leak = find_label_leak(source, bars, go_on)
    assert leak is not None
    assert leak.time in bars.index
    assert leak.known_at in bars.index
    where = f"The label of the bar of {leak.time.isoformat()} is said to be known at the close of the bar of "
    assert str(leak).startswith(f"{where}{leak.known_at.isoformat()}, but with other bars after that ")
    assert re.search(change, str(leak)), str(leak)


def test_the_bars_are_left_as_they_were_and_the_check_is_called(random_bars: MakeBars) -> None:
    bars = random_bars(200)
    before = bars.copy()
    calls: list[None] = []
    find_label_leak(Plugin(), bars, lambda: calls.append(None), cuts=4)
    pd.testing.assert_frame_equal(bars, before)
    assert len(calls) == 1 + 4 * 3
