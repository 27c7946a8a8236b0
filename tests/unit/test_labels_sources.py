"""What must hold for every label source: when a label is known, and which bars cannot be labelled."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ktrdr.errors import DataError
from ktrdr.labels import LABELS, Labels, LabelSource

MakeBars = Callable[..., pd.DataFrame]

SOURCES = [
    pytest.param(LABELS.get("forward_return")(horizon=7), id="forward_return"),
    pytest.param(LABELS.get("triple_barrier")(max_holding_period=9, vol_span=12), id="triple_barrier-atr"),
    pytest.param(
        LABELS.get("triple_barrier")(max_holding_period=9, vol_span=12, vol_method="close", pt_multiplier=4),
        id="triple_barrier-close",
    ),
    pytest.param(LABELS.get("zigzag")(), id="zigzag"),
]


def go_on() -> None:
    """A check that never stops anything."""


def known_by(labels: Labels, time: pd.Timestamp) -> pd.DataFrame:
    """The labels that are known when the bar of that time closes."""
    table = pd.DataFrame({"label": labels.values, "known_at": labels.known_at}, index=labels.times)
    return table[table["known_at"] <= time]


def test_every_source_is_tested() -> None:
    assert {LABELS.get(str(parameter.id).partition("-")[0]) for parameter in SOURCES} == {
        source for _, source in LABELS
    }


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 149), seed=st.integers(0, 2**32 - 1))
def test_nothing_after_the_bar_at_which_a_label_is_known_can_change_it(
    source: LabelSource, random_bars: MakeBars, cut: int, seed: int
) -> None:
    bars = random_bars(150, seed=seed)
    scrambled = bars.copy()
    scrambled.iloc[cut + 1 :] = random_bars(150, seed=seed + 1, step=0.1).iloc[cut + 1 :]
    labels = source.compute(bars, go_on)
    pd.testing.assert_frame_equal(
        known_by(source.compute(scrambled, go_on), bars.index[cut]), known_by(labels, bars.index[cut])
    )


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(40, 150), seed=st.integers(0, 2**32 - 1))
def test_bars_that_end_when_a_label_is_known_give_the_same_label(
    source: LabelSource, random_bars: MakeBars, rows: int, seed: int
) -> None:
    bars = random_bars(150, seed=seed)
    end = bars.index[rows - 1]
    whole = known_by(source.compute(bars, go_on), end)
    if whole.empty:  # as can be with zigzag only
        with pytest.raises(DataError):
            source.compute(bars.iloc[:rows], go_on)
        return
    if source.horizon_bars:  # a label needs all of its horizon, even where it is known sooner
        whole = whole[whole.index <= bars.index[rows - 1 - source.horizon_bars]]
    pd.testing.assert_frame_equal(
        known_by(source.compute(bars.iloc[:rows], go_on), end), whole, check_freq=False
    )


@pytest.mark.parametrize("source", SOURCES)
def test_labels_are_in_order_of_time_and_known_after_their_bar(
    source: LabelSource, eurusd: pd.DataFrame
) -> None:
    labels = source.compute(eurusd, go_on)
    assert len(labels.times) == len(labels.values) == len(labels.known_at) > 1000
    assert labels.times.is_monotonic_increasing
    assert labels.times.is_unique
    assert labels.times.isin(eurusd.index).all()
    ahead = eurusd.index.get_indexer(labels.known_at) - eurusd.index.get_indexer(labels.times)
    assert ahead.min() >= 1
    if source.horizon_bars:
        assert ahead.max() <= source.horizon_bars
    if source.classes:
        assert labels.values.dtype == np.int64
        assert set(labels.values) == set(range(len(source.classes)))
    else:
        assert labels.values.dtype == np.float32


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("price", [0.0, -1.0, np.nan, np.inf])
def test_a_price_that_is_not_positive_is_refused_with_its_time(
    source: LabelSource, price: float, eurusd: pd.DataFrame
) -> None:
    bars = eurusd.iloc[:200].copy()
    bars.iloc[40, bars.columns.get_loc("close")] = price
    with pytest.raises(DataError, match=r"2017-01-03T14:00:00\+00:00 has the close price"):
        source.compute(bars, go_on)


@pytest.mark.parametrize(
    ("name", "parameters", "needed"),
    [
        ("forward_return", {}, 21),
        ("forward_return", {"horizon": 1}, 2),
        ("triple_barrier", {}, 100),
        ("triple_barrier", {"vol_method": "close"}, 101),
        ("zigzag", {}, 2),
    ],
)
def test_too_few_bars_are_refused_with_the_number_needed(
    name: str, parameters: dict[str, object], needed: int, random_bars: MakeBars
) -> None:
    source = LABELS.get(name)(**parameters)
    bars = random_bars(needed, step=0.3)
    for rows in {0, needed - 1}:
        message = f"{name} labels need at least {needed} bars, but there are {rows}"
        with pytest.raises(DataError, match=message):
            source.compute(bars.iloc[:rows], go_on)
    assert len(source.compute(bars, go_on).times) == 1


@pytest.mark.parametrize("source", SOURCES)
def test_a_check_that_raises_stops_the_work(source: LabelSource, eurusd: pd.DataFrame) -> None:
    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    with pytest.raises(StopError):
        source.compute(eurusd, stop)


@pytest.mark.parametrize("source", SOURCES)
def test_the_bars_are_left_as_they_were(source: LabelSource, eurusd: pd.DataFrame) -> None:
    bars = eurusd.iloc[:500].copy()
    source.compute(bars, go_on)
    pd.testing.assert_frame_equal(bars, eurusd.iloc[:500])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("forward_return", {"horizon": 0}),
        ("forward_return", {"horizon": 20.0}),
        ("triple_barrier", {"pt_multiplier": 0}),
        ("triple_barrier", {"sl_multiplier": float("nan")}),
        ("triple_barrier", {"max_holding_period": 0}),
        ("triple_barrier", {"vol_method": "garch"}),
        ("triple_barrier", {"profit_target": 2.0}),
        ("zigzag", {"zigzag_threshold": 0}),
        ("zigzag", {"zigzag_threshold": 1}),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, parameters: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LABELS.get(name)(**parameters)


@pytest.mark.parametrize("name", LABELS.names())
def test_former_names_lead_to_parameters_and_ignored_names_do_not(name: str) -> None:
    kind = LABELS.get(name)
    assert set(kind.former_names.values()) <= set(kind.model_fields)
    assert not set(kind.ignored_names) & set(kind.model_fields)
