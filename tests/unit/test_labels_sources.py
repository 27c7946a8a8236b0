"""What must hold for every label source: when a label is known, and which bars cannot be labelled."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ktrdr.errors import DataError
from ktrdr.labels import LABELS, Labels, LabelSource
from tests.unit.label_cases import MakeBars, bars_closing_at, go_on


def source(name: str, **parameters: object) -> LabelSource:
    return LABELS.get(name)(**parameters)


BARRIERS = {"max_holding_period": 9, "vol_span": 12}
SOURCES = [
    pytest.param(source("context", horizon=6, bearish_threshold=-0.002), id="context"),
    pytest.param(source("forward_return", horizon=7), id="forward_return"),
    pytest.param(
        source("regime", atr_period=5, vol_lookback=20, macro_atr_mult=2, micro_atr_mult=0.5), id="regime"
    ),
    pytest.param(source("triple_barrier", **BARRIERS), id="triple_barrier-atr"),
    pytest.param(
        source("triple_barrier", **BARRIERS, vol_method="close", pt_multiplier=4), id="triple_barrier-close"
    ),
    pytest.param(
        source("triple_barrier", **BARRIERS, compute_weights=True, cusum_threshold=0),
        id="triple_barrier-at-events",
    ),
    pytest.param(source("zigzag"), id="zigzag"),
]


def known_by(labels: Labels, time: pd.Timestamp) -> pd.DataFrame:
    """The labels that are known when the bar of that time closes."""
    table = pd.DataFrame({"label": labels.values, "known_at": labels.known_at}, index=labels.times)
    return table[table["known_at"] <= time]


def test_every_source_is_tested() -> None:
    assert {LABELS.get(str(parameter.id).partition("-")[0]) for parameter in SOURCES} == {
        source for _, source in LABELS
    }


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=12)
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
@settings(max_examples=12)
@given(rows=st.integers(40, 150), seed=st.integers(0, 2**32 - 1))
def test_bars_that_end_when_a_label_is_known_give_the_same_label(
    source: LabelSource, random_bars: MakeBars, rows: int, seed: int
) -> None:
    bars = random_bars(150, seed=seed)
    end = bars.index[rows - 1]
    whole = known_by(source.compute(bars, go_on), end)
    if source.horizon_bars:  # a label needs all of its horizon, even where it is known sooner
        whole = whole[whole.index <= bars.index[rows - 1 - source.horizon_bars]]
    if whole.empty:  # as can be where a leg must have turned, or an event been
        with pytest.raises(DataError):
            source.compute(bars.iloc[:rows], go_on)
        return
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
    if getattr(source, "cusum_threshold", None) is None:  # else the first event may come later
        assert labels.times[0] == eurusd.index[source.warmup_bars]
    if labels.weights is not None:
        assert len(labels.weights) == len(labels.times)
        assert labels.weights.min() > 0
        assert labels.weights.mean() == pytest.approx(1.0)
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
    bars = eurusd.iloc[:600].copy()
    bars.iloc[40, bars.columns.get_loc("close")] = price
    with pytest.raises(DataError, match=r"2017-01-03T14:00:00\+00:00 has the close price"):
        source.compute(bars, go_on)


@pytest.mark.parametrize(
    ("name", "parameters", "needed"),
    [
        ("context", {}, 6),
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


def test_too_few_bars_for_a_regime_are_refused_before_a_leg_is_looked_for(eurusd: pd.DataFrame) -> None:
    regime = source("regime", atr_period=10, vol_lookback=50)
    with pytest.raises(DataError, match="regime labels need at least 61 bars, but there are 60"):
        regime.compute(eurusd.iloc[:60], go_on)
    with pytest.raises(DataError, match="Of 61 bars, none after the first 50"):
        regime.compute(eurusd.iloc[:61], go_on)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("unit", [2.0**-27, 2.0**27])
def test_prices_of_any_size_have_the_same_labels(
    source: LabelSource, unit: float, eurusd: pd.DataFrame
) -> None:
    scaled = eurusd.iloc[:1500].copy()  # prices of 1e-8 and of 1e8
    scaled[["open", "high", "low", "close"]] *= unit
    labels, same = source.compute(eurusd.iloc[:1500], go_on), source.compute(scaled, go_on)
    end = eurusd.index[1499]
    pd.testing.assert_frame_equal(known_by(labels, end), known_by(same, end))


@pytest.mark.parametrize("source", SOURCES)
def test_a_price_that_never_moves_gives_labels_that_say_so_or_an_error(source: LabelSource) -> None:
    bars = bars_closing_at([1.25] * 400)
    if source.horizon_bars and not hasattr(source, "vol_span"):
        values = source.compute(bars, go_on).values
        assert set(values.tolist()) == {source.classes.index("NEUTRAL") if source.classes else 0.0}
    else:
        with pytest.raises(DataError, match=r"400 bars|volatility \(\w+\) is 0 at every bar"):
            source.compute(bars, go_on)


@pytest.mark.parametrize("source", SOURCES)
def test_a_price_that_only_rises_has_no_label_of_another_kind(source: LabelSource) -> None:
    bars = bars_closing_at([1.02**at for at in range(300)])
    bars["high"] *= 1.001
    bars["low"] *= 0.999
    if LABELS.name_of(type(source)) == "regime":
        with pytest.raises(DataError, match="has ended"):
            source.compute(bars, go_on)
        return
    values = source.compute(bars, go_on).values
    if source.classes:
        assert set(values[1:]) == {0}  # BUY or BULLISH
    else:
        assert (values > 0).all()


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
        ("context", {"horizon": 0}),
        ("context", {"bullish_threshold": float("inf")}),
        ("context", {"treshold": 0.1}),
        ("forward_return", {"horizon": 0}),
        ("forward_return", {"horizon": 20.0}),
        ("triple_barrier", {"pt_multiplier": 0}),
        ("triple_barrier", {"sl_multiplier": float("nan")}),
        ("triple_barrier", {"max_holding_period": 0}),
        ("triple_barrier", {"vol_method": "garch"}),
        ("triple_barrier", {"profit_target": 2.0}),
        ("triple_barrier", {"compute_weights": "yes"}),
        ("triple_barrier", {"cusum_threshold": float("nan")}),
        ("triple_barrier", {"cusum_multiplier": 0}),
        ("regime", {"macro_atr_mult": 0}),
        ("regime", {"atr_period": 1}),
        ("regime", {"atr_period": 14.0}),
        ("regime", {"progression_tolerance": 1.1}),
        ("regime", {"vol_crisis_threshold": -1}),
        ("regime", {"vol_lookback": 1}),
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
