"""What every label source keeps, and what is said of one that does not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import DataError, PluginError
from ktrdr.labels import Labels, LabelSource
from ktrdr.labels.base import labels_at
from ktrdr.labels.contract import label_faults, sound_labels
from ktrdr.market.bars import Bars
from tests.unit.label_cases import MakeBars, go_on
from tests.unit.test_labels_sources import SOURCES


class Plugin(LabelSource):
    """Up where the next close is higher, and whatever a test makes of it."""

    classes: ClassVar[tuple[str, ...]] = ("DOWN", "UP")
    change: ClassVar[Callable[[Any], Any]] = staticmethod(lambda labels: labels)

    @property
    def horizon_bars(self) -> int:
        return 1

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        closes = bars["close"].to_numpy()
        at = np.arange(len(bars) - 1)
        return type(self).change(labels_at(bars, at, (closes[1:] > closes[:-1]).astype(np.int64), at + 1))


def plugin(change: Callable[[Any], Any], **attributes: Any) -> LabelSource:
    made: type[Plugin] = type("Changed", (Plugin,), {"change": staticmethod(change), **attributes})
    return made()


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_keeps_its_contract(source: LabelSource, eurusd: pd.DataFrame) -> None:
    bars = eurusd.iloc[:1000]
    assert label_faults(source, bars, go_on) == ()
    assert len(sound_labels(source, bars, go_on).times) > 100


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.filterwarnings("error")
@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from([1e-12, 1e-6, 0.01, 0.5, 5.0]),
    unit=st.sampled_from([1e-8, 1.0, 1e8]),
    flat=st.integers(0, 120),
)
def test_whatever_the_prices_labels_are_sound_or_there_is_a_reason_why_not(
    source: LabelSource, random_bars: MakeBars, seed: int, step: float, unit: float, flat: int
) -> None:
    bars = random_bars(150, seed=seed, step=step)
    bars["low"] = np.maximum(bars["low"], bars[["open", "close"]].min(axis=1) / 2)
    bars.iloc[20 : 20 + flat, :4] = bars["close"].iloc[20]
    bars.iloc[:, :4] *= unit
    try:
        wrong: object = label_faults(source, bars, go_on)
    except DataError as error:
        wrong = () if error.fix else "an error without a word of what to do"
    assert wrong == ()


def test_a_plugin_that_keeps_its_contract_has_no_faults(random_bars: MakeBars) -> None:
    assert label_faults(Plugin(), random_bars(50), go_on) == ()


def test_whoever_knows_a_label_at_once_may_say_so(random_bars: MakeBars) -> None:
    assert label_faults(plugin(lambda it: replace(it, known_at=it.times)), random_bars(50), go_on) == ()


LATER = pd.Timestamp("2030-01-01", tz="UTC")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (plugin(lambda it: replace(it, values=it.values[:-1])), "there are 49 times, but 48 values"),
        (plugin(lambda it: replace(it, known_at=it.known_at[1:])), "there are 49 times, but 48 known_at"),
        (plugin(lambda it: replace(it, weights=np.ones(3))), "there are 49 times, but 3 weights"),
        (
            plugin(lambda it: replace(it, times=it.times + pd.Timedelta("1min"))),
            "times has 2020-01-01 00:01:00+00:00, at which there is no bar",
        ),
        (plugin(lambda it: replace(it, times=it.times[::-1])), "times are not strictly increasing"),
        (
            plugin(lambda it: it, warmup_bars=property(lambda self: 2)),
            "the bar of 2020-01-01 00:00:00+00:00 has a label, but warmup_bars is 2",
        ),
        (
            plugin(lambda it: replace(it, known_at=it.known_at.where(it.known_at < it.times[9], LATER))),
            "known_at has 2030-01-01 00:00:00+00:00, at which there is no bar",
        ),
        (
            plugin(lambda it: replace(it, known_at=it.times[:1].repeat(49))),
            "the label of 2020-01-01 01:00:00+00:00 is known before its bar",
        ),
        (
            plugin(lambda it: replace(it, known_at=it.known_at[-1:].repeat(49))),
            "the label of 2020-01-01 00:00:00+00:00 is known 49 bars later, but horizon_bars is 1",
        ),
        (
            plugin(lambda it: replace(it, values=it.values.astype(np.int32))),
            "the values are int32, not int64",
        ),
        (plugin(lambda it: replace(it, values=it.values * 2)), "the value 2 is no class: there are 2"),
        (plugin(lambda it: replace(it, values=it.values - 1)), "the value -1 is no class: there are 2"),
        (plugin(lambda it: replace(it, values=it.values.tolist())), "the values are a list, not an array"),
        (plugin(lambda it: it, classes=()), "the values are int64, not float32"),
        (
            plugin(lambda it: replace(it, values=np.log(it.values.astype(np.float32))), classes=()),
            "the value -inf is not finite",
        ),
        (plugin(lambda it: replace(it, weights=np.zeros(49))), "a weight is not a number above 0"),
        (plugin(lambda it: replace(it, weights=np.full(49, np.nan))), "a weight is not a number above 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_fault_is_told_in_words(source: LabelSource, fault: str, random_bars: MakeBars) -> None:
    bars = random_bars(50)
    assert fault in label_faults(source, bars, go_on)
    with pytest.raises(PluginError, match=r"The label source \S+\.Changed breaks its contract: ") as caught:
        sound_labels(source, bars, go_on)
    assert fault in str(caught.value)


def test_bars_that_are_changed_and_labels_that_are_drawn_are_faults(random_bars: MakeBars) -> None:
    class Careless(Plugin):
        def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
            labels = super().compute(bars, check)
            bars["close"] = 1.0
            return labels

    assert label_faults(Careless(), random_bars(50), go_on) == ("the bars were changed",)

    random = np.random.default_rng(1)
    drawn = plugin(lambda it: replace(it, values=random.integers(0, 2, len(it.times))))
    assert label_faults(drawn, random_bars(50), go_on) == (
        "the labels are others each time they are computed",
    )
