"""Regime labels against hand-worked cases and against their definition, written out slowly."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ktrdr.errors import DataError
from ktrdr.labels import LABELS
from tests.unit.label_cases import MakeBars, bars_closing_at, bars_of, compute, deviation

UP, DOWN, RANGING, VOLATILE = 0, 1, 2, 3
DEFAULTS = {
    "macro_atr_mult": 3.0,
    "micro_atr_mult": 1.0,
    "atr_period": 14,
    "progression_tolerance": 0.5,
    "vol_crisis_threshold": 2.0,
    "vol_lookback": 120,
}
SMALL = {"macro_atr_mult": 1.5, "micro_atr_mult": 0.3, "atr_period": 3, "vol_lookback": 5}


def turns_by_definition(
    closes: list[float], shares: list[float]
) -> tuple[list[tuple[int, int, bool]], list[int]]:
    """Turning points as (bar, bar that confirms it, whether it is a low), and each bar's live extreme."""
    turns, live = [], []
    begin, rising = 0, None
    for at, close in enumerate(closes):
        leg = closes[begin : at + 1]
        if rising is None:
            extreme = 0
            rising = True if close >= closes[0] * (1 + shares[at]) else None
            rising = False if close <= closes[0] * (1 - shares[at]) else rising
            turned = rising is not None
        else:
            extreme = begin + leg.index(max(leg) if rising else min(leg))
            back = closes[extreme] * (1 - shares[at] if rising else 1 + shares[at])
            turned = close <= back if rising else close >= back
            rising = rising != turned
        if turned:
            turns.append((extreme, at, bool(rising)))
            begin = extreme = at
        live.append(extreme)
    return turns, live


def regime_by_definition(bars: pd.DataFrame, **parameters: float) -> dict[int, tuple[int, int]]:
    """Bar → class, and the bar at which it is known."""
    given = DEFAULTS | parameters
    period, lookback = int(given["atr_period"]), int(given["vol_lookback"])
    high, low, close = (bars[name].tolist() for name in ("high", "low", "close"))
    ranges = [high[0] - low[0]]
    for at in range(1, len(bars)):
        before = close[at - 1]
        ranges.append(max(high[at] - low[at], abs(high[at] - before), abs(low[at] - before)))
    begin = period - 1
    shares = [
        sum(ranges[at - begin : at + 1]) / period / close[at] or float("inf")
        for at in range(begin, len(bars))
    ]
    macro, _ = turns_by_definition(close[begin:], [given["macro_atr_mult"] * share for share in shares])
    micro, live = turns_by_definition(close[begin:], [given["micro_atr_mult"] * share for share in shares])
    returns = np.diff(np.log(close))  # returns[at] is that of bar at + 1

    labels = {}
    for (first, _, is_low), (last, confirmed, _) in pairwise(macro):
        certain = [at for at, extreme in enumerate(live) if extreme > last]
        if not certain:
            break
        known = begin + max(confirmed, certain[0])
        steps = [(begin + at, low_turn) for at, _, low_turn in micro if first <= at <= last]
        points = [close[at] for at, low_turn in steps if low_turn == is_low]
        onward = [(b > a) if is_low else (b < a) for a, b in pairwise(points)]
        trend = len(steps) >= 4 and sum(onward) / len(onward) >= given["progression_tolerance"]
        for at in range(begin + first, begin + last):
            if at < lookback or at + period >= len(bars):
                continue
            past, future = deviation(returns[at - lookback : at]), deviation(returns[at : at + period])
            crisis = past > 0 and future / past > given["vol_crisis_threshold"]
            value = VOLATILE if crisis else (UP if is_low else DOWN) if trend else RANGING
            labels[at] = (value, max(known, at + period))
    return labels


def stairs(heights: list[float]) -> pd.DataFrame:
    """Bars with a range of 1 around their close: one that moves by 2 has a true range of 2.5."""
    return bars_of([(height + 0.5, height - 0.5, height) for height in heights])


RISE = [100, 102, 101, 104, 103, 106, 105, 108, 107, 110]
WITHIN = {"macro_atr_mult": 2.5, "micro_atr_mult": 0.3, "atr_period": 2, "vol_lookback": 2}


def test_a_leg_that_rises_in_steps_is_up_until_its_turning_point_and_known_when_that_is() -> None:
    labels = compute(
        "regime", stairs([*RISE, 108, 106, 104, 102, 100, 98]), vol_crisis_threshold=99, **WITHIN
    )
    # The top is bar 9; the average range is 2.5 of 102, so that bar 13 is the first to have fallen by 6.74.
    assert labels == dict.fromkeys(range(2, 9), (UP, 13))


def test_a_leg_that_falls_in_steps_is_down() -> None:
    falling = [200 - height for height in RISE]
    labels = compute("regime", stairs([*falling, 92, 94, 96, 98, 100]), vol_crisis_threshold=99, **WITHIN)
    assert labels == dict.fromkeys(range(2, 9), (DOWN, 12))


def test_a_leg_without_steps_is_ranging() -> None:
    smooth = [100, 101, 102, 103, 104, 105, 106, 107, 108, 109]
    labels = compute("regime", stairs([*smooth, 107, 105, 103, 101, 99]), vol_crisis_threshold=1e6, **WITHIN)
    assert {label for label, _ in labels.values()} == {RANGING}


@pytest.mark.parametrize(("tolerance", "label"), [(0.5, UP), (0.66, UP), (0.67, RANGING), (1.0, RANGING)])
def test_a_trend_needs_its_share_of_steps_that_go_on(tolerance: float, label: int) -> None:
    # The lows within the leg are 100, where it begins, 102, 101 and 105: two of three are higher.
    heights = [100, 100, 104, 102, 105, 101, 108, 105, 111, 109, 107, 105]
    parameters = WITHIN | {"macro_atr_mult": 1.5, "progression_tolerance": tolerance}
    labels = compute("regime", stairs(heights), vol_crisis_threshold=99, **parameters)
    assert labels == dict.fromkeys(range(2, 8), (label, 10))


@pytest.mark.parametrize(("next_close", "label"), [(110.0, RANGING), (103.0, UP)])
def test_a_leg_is_known_only_when_its_steps_are_too(next_close: float, label: int) -> None:
    heights = [100.0, 100.0, 110.0, 105.0, 116.0, 104.0, 118.0, 116.0, 104.9, *[next_close] * 3]
    bars = stairs(heights)
    # A wide bar at the top: that the close is far above the last low, 104, is less than it takes for a step.
    bars.iloc[6, bars.columns.get_loc("high")] = 160.0
    # Bar 8 ends the leg, but only bar 9 tells whether 104, lower than the low before, was the end of a step.
    parameters = {"macro_atr_mult": 1.2, "micro_atr_mult": 0.5, "atr_period": 2, "vol_lookback": 2}
    labels = compute("regime", bars, progression_tolerance=0.6, vol_crisis_threshold=99, **parameters)
    assert [labels[at] for at in range(2, 6)] == [(label, 9)] * 4


def test_bars_before_a_crisis_are_volatile_whatever_their_leg() -> None:
    calm = [100 + at * 0.1 + (at % 2) * 0.3 for at in range(40)]
    crisis = [108, 100, 109, 99, 110, 98, 90, 80]
    labels = compute("regime", stairs([*calm, *crisis]), atr_period=3, vol_lookback=20, macro_atr_mult=2.0)
    volatile = [at for at, (label, _) in labels.items() if label == VOLATILE]
    # From where one of the next three returns is of the crisis.
    assert volatile
    assert min(volatile) == 37


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    macro=st.floats(0.8, 3),
    micro=st.floats(0.05, 0.79),
    period=st.integers(2, 8),
    tolerance=st.sampled_from([0.0, 0.34, 0.5, 0.75, 1.0]),
    crisis=st.sampled_from([0.8, 1.2, 2.0]),
    lookback=st.integers(2, 20),
)
def test_regimes_by_their_definition(
    random_bars: MakeBars,
    seed: int,
    macro: float,
    micro: float,
    period: int,
    tolerance: float,
    crisis: float,
    lookback: int,
) -> None:
    bars = random_bars(120, seed=seed)
    parameters = {
        "macro_atr_mult": macro,
        "micro_atr_mult": micro,
        "atr_period": period,
        "progression_tolerance": tolerance,
        "vol_crisis_threshold": crisis,
        "vol_lookback": lookback,
    }
    expected = regime_by_definition(bars, **parameters)
    if not expected:
        with pytest.raises(DataError, match="regime labels none"):
            compute("regime", bars, **parameters)
        return
    assert compute("regime", bars, **parameters) == expected


def test_regimes_by_their_definition_on_real_bars(eurusd: pd.DataFrame) -> None:
    bars = eurusd.iloc[:1500]
    labels = compute("regime", bars)
    assert labels == regime_by_definition(bars)
    assert {label for label, _ in labels.values()} == {UP, DOWN, RANGING, VOLATILE}


def test_bars_beyond_a_block_are_compared_with_those_before_it(random_bars: MakeBars) -> None:
    bars = random_bars(133_000, step=0.001)
    labels = compute("regime", bars, vol_crisis_threshold=1.0, vol_lookback=30)
    returns = np.diff(np.log(bars["close"].to_numpy()))
    found = [labels[at][0] == VOLATILE for at in range(131_000, 131_150)]
    assert found == [
        deviation(returns[at : at + 14]) > deviation(returns[at - 30 : at]) for at in range(131_000, 131_150)
    ]
    assert 10 < sum(found) < 140


@pytest.mark.parametrize(
    "change",
    [
        {"macro_atr_mult": 5.0},
        {"micro_atr_mult": 0.5},
        {"atr_period": 20},
        {"progression_tolerance": 0.9},
        {"vol_crisis_threshold": 1.2},
        {"vol_lookback": 60},
    ],
)
def test_every_parameter_changes_labels(eurusd: pd.DataFrame, change: dict[str, float]) -> None:
    bars = eurusd.iloc[:1000]
    assert compute("regime", bars, **change) != compute("regime", bars)


@pytest.mark.parametrize("closes", [[100.0] * 200, [100.0 + at for at in range(200)]])
def test_a_price_that_never_turns_is_an_error_that_says_what_to_do(closes: list[float]) -> None:
    with pytest.raises(DataError, match="Of 200 bars, none after the first 120 is in a leg of 3 ") as caught:
        compute("regime", bars_closing_at(closes))
    assert "Lower macro_atr_mult" in str(caught.value.fix)


def test_a_flat_part_turns_nothing_and_is_no_crisis() -> None:
    up = [100 + at + (at % 2) * 2.0 for at in range(30)]
    flat = [up[-1]] * 30
    closes = [*up, *flat, *reversed(up), *[at * 2.0 + 80 for at in range(40)]]
    labels = compute("regime", bars_closing_at(closes), **SMALL)
    assert labels == regime_by_definition(bars_closing_at(closes), **SMALL)
    assert VOLATILE not in {labels[at][0] for at in range(36, 56)}


def test_steps_must_be_smaller_than_legs() -> None:
    with pytest.raises(ValidationError, match=r"micro_atr_mult \(3\) must be less than macro_atr_mult \(3\)"):
        LABELS.get("regime")(micro_atr_mult=3.0)
