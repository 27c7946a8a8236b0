"""Labels against hand-worked cases and against their definitions, written out slowly."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ktrdr.errors import DataError
from ktrdr.labels import LABELS
from tests.unit.label_cases import (
    MakeBars,
    bars_closing_at,
    bars_of,
    compute,
    triple_barrier_by_definition,
)

BUY, HOLD, SELL = 0, 1, 2
BULLISH, BEARISH, NEUTRAL = 0, 1, 2


# --- forward return -------------------------------------------------------------------------------


def test_forward_return_is_relative_to_the_bar_itself() -> None:
    closes = [100.0, 110.0, 105.0, 99.0]
    labels = compute("forward_return", bars_closing_at(closes), horizon=2)
    assert labels == {0: (pytest.approx(0.05), 2), 1: (pytest.approx(-0.1), 3)}


def test_forward_return_by_its_definition(eurusd: pd.DataFrame) -> None:
    closes = eurusd["close"].tolist()
    expected = {
        at: (float(np.float32((closes[at + 20] - closes[at]) / closes[at])), at + 20)
        for at in range(len(closes) - 20)
    }
    assert compute("forward_return", eurusd) == expected


def test_a_return_beyond_single_precision_is_an_error() -> None:
    with pytest.raises(DataError, match=r"from 2020-01-01T01:00:00\+00:00 on is 1e\+60, too large"):
        compute("forward_return", bars_closing_at([1.0, 1e-30, 1e30]), horizon=1)


# --- context --------------------------------------------------------------------------------------


def test_context_by_hand() -> None:
    closes = [128.0, 128.0, 129.0, 130.0, 128.5, 127.0, 127.25]
    labels = compute(
        "context", bars_closing_at(closes), horizon=1, bullish_threshold=1 / 128, bearish_threshold=-1 / 130
    )
    assert labels == {
        0: (NEUTRAL, 1),
        1: (NEUTRAL, 2),  # exactly at the threshold
        2: (NEUTRAL, 3),
        3: (BEARISH, 4),
        4: (BEARISH, 5),
        5: (NEUTRAL, 6),
    }
    assert compute("context", bars_closing_at(closes), horizon=3)[0] == (BULLISH, 3)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"horizon": 24, "bullish_threshold": 0.001, "bearish_threshold": -0.002},
        {"bearish_threshold": 0.004},
    ],
)
def test_context_by_its_definition(eurusd: pd.DataFrame, parameters: dict[str, float]) -> None:
    given = {"horizon": 5, "bullish_threshold": 0.005, "bearish_threshold": -0.005} | parameters
    ahead = int(given["horizon"])
    closes = eurusd["close"].tolist()
    expected = {}
    for at in range(len(closes) - ahead):
        change = (closes[at + ahead] - closes[at]) / closes[at]
        up, down = change > given["bullish_threshold"], change < given["bearish_threshold"]
        expected[at] = (BULLISH if up else BEARISH if down else NEUTRAL, at + ahead)
    assert compute("context", eurusd, **parameters) == expected


def test_the_bullish_threshold_must_be_above_the_bearish_one() -> None:
    for bullish in (-0.005, -0.01):
        with pytest.raises(ValidationError, match=r"must be above bearish_threshold \(-0\.005\)"):
            LABELS.get("context")(bullish_threshold=bullish)


# --- zigzag ---------------------------------------------------------------------------------------


def zigzag_by_definition(closes: list[float], threshold: float) -> list[int]:
    """The label of every bar before the last extreme, which may still move."""
    first = closes[0]
    away = [at for at, c in enumerate(closes) if c >= first * (1 + threshold) or c <= first * (1 - threshold)]
    if not away:
        return []
    turns = [0]
    begin, rising = away[0], closes[away[0]] > first
    while True:
        peak = max if rising else min
        for at in range(begin, len(closes)):
            extreme = peak(closes[begin : at + 1])
            if closes[at] <= extreme * (1 - threshold) if rising else closes[at] >= extreme * (1 + threshold):
                turns.append(closes.index(extreme, begin))
                begin, rising = at, not rising
                break
        else:
            break
    last = closes.index(peak(closes[begin:]), begin)
    labels = []
    for at in range(last):
        turn_after = next((turn for turn in [*turns, last] if turn > at), last)
        turn_before = max(turn for turn in turns if turn <= at)
        rise = closes[turn_after] > closes[turn_before]
        labels.append(HOLD if at in turns else BUY if rise else SELL)
    return labels


def test_zigzag_by_hand() -> None:
    closes = [100, 101, 103, 102, 100, 99, 101.1, 100]
    labels = compute("zigzag", bars_closing_at(closes), zigzag_threshold=0.02)
    assert labels == {
        0: (HOLD, 2),  # the first bar; 103 is the first close 2 % away from it
        1: (BUY, 2),
        2: (HOLD, 4),  # the top, once 100 is 2 % below it
        3: (SELL, 4),
        4: (SELL, 5),  # within the fall, once 99 carries it on
        5: (HOLD, 6),
    }


def test_the_first_of_equal_closes_is_the_turning_point() -> None:
    closes = [100, 110, 110, 110, 90, 120]
    labels = compute("zigzag", bars_closing_at(closes), zigzag_threshold=0.05)
    assert [label for label, _ in labels.values()] == [HOLD, HOLD, SELL, SELL, HOLD]


prices = st.lists(st.integers(90, 115).map(float), min_size=2, max_size=60)


@settings(deadline=None)
@given(closes=prices, threshold=st.sampled_from([0.01, 0.02, 0.05, 0.1]))
def test_zigzag_by_its_definition(closes: list[float], threshold: float) -> None:
    bars = bars_closing_at(closes)
    expected = zigzag_by_definition(closes, threshold)
    if not expected:
        with pytest.raises(DataError, match="never moves"):
            compute("zigzag", bars, zigzag_threshold=threshold)
        return
    labels = compute("zigzag", bars, zigzag_threshold=threshold)
    assert list(labels) == list(range(len(expected)))
    assert [label for label, _ in labels.values()] == expected


@settings(deadline=None)
@given(closes=prices)
def test_a_zigzag_label_is_known_at_the_first_bar_that_settles_it(closes: list[float]) -> None:
    by_bars_so_far = [zigzag_by_definition(closes[: end + 1], 0.02) for end in range(len(closes))]
    if not by_bars_so_far[-1]:
        return
    bars = bars_closing_at(closes)
    for at, (_, known) in compute("zigzag", bars, zigzag_threshold=0.02).items():
        assert known == next(end for end, labels in enumerate(by_bars_so_far) if len(labels) > at)


def test_zigzag_by_its_definition_on_real_bars(eurusd: pd.DataFrame) -> None:
    bars = eurusd.iloc[:1500]
    labels = compute("zigzag", bars, zigzag_threshold=0.005)
    expected = zigzag_by_definition(bars["close"].tolist(), 0.005)
    assert [label for label, _ in labels.values()] == expected
    assert expected.count(HOLD) > 10


def test_zigzag_says_what_to_do_when_the_price_hardly_moves(eurusd: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"never moves by 50\.00% .* Lower zigzag_threshold"):
        compute("zigzag", eurusd, zigzag_threshold=0.5)


# --- triple barrier -------------------------------------------------------------------------------

# (high - low) / close is 1/64, so that the barriers of the second bar are 130 and 126 (for an exact binary
# fraction), and a return of less than √2/128, 1.41 points, over two bars is a HOLD.
QUIET = (129.0, 127.0, 128.0)


@pytest.mark.parametrize(
    ("next_bars", "label", "known_after"),
    [
        ([(130, 127, 129), QUIET], BUY, 1),
        ([(129.9, 127, 129), (130, 128, 129)], BUY, 2),
        ([(129, 126, 127), QUIET], SELL, 1),
        ([(129, 126.1, 127), (128, 126, 127)], SELL, 2),
        ([(131, 126.1, 127), (128, 120, 121)], BUY, 1),
        # Both in one bar: its close decides.
        ([(131, 125, 128.5), QUIET], BUY, 1),
        ([(131, 125, 128), QUIET], BUY, 1),
        ([(131, 125, 127.9), QUIET], SELL, 1),
        # Neither: the return over all of them decides.
        ([QUIET, QUIET], HOLD, 2),
        ([QUIET, (129.9, 128, 129.4)], HOLD, 2),
        ([QUIET, (129.9, 128, 129.5)], BUY, 2),
        ([QUIET, (128, 126.1, 126.6)], HOLD, 2),
        ([QUIET, (128, 126.1, 126.5)], SELL, 2),
    ],
)
def test_triple_barrier_by_hand(
    next_bars: list[tuple[float, float, float]], label: int, known_after: int
) -> None:
    labels = compute(
        "triple_barrier",
        bars_of([QUIET, QUIET, *next_bars]),
        pt_multiplier=1,
        sl_multiplier=1,
        max_holding_period=2,
        vol_span=2,
    )
    assert labels == {1: (label, 1 + known_after)}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pt=st.floats(0.5, 8),
    sl=st.floats(0.5, 8),
    holding=st.integers(1, 30),
    span=st.integers(2, 20),
    method=st.sampled_from(["atr", "close"]),
)
def test_triple_barrier_by_its_definition(
    random_bars: MakeBars, seed: int, pt: float, sl: float, holding: int, span: int, method: str
) -> None:
    bars = random_bars(90, seed=seed)
    labels = compute(
        "triple_barrier",
        bars,
        pt_multiplier=pt,
        sl_multiplier=sl,
        max_holding_period=holding,
        vol_span=span,
        vol_method=method,
    )
    assert labels == triple_barrier_by_definition(bars, pt, sl, holding, span, method)


@pytest.mark.parametrize("method", ["atr", "close"])
def test_triple_barrier_by_its_definition_on_real_bars(eurusd: pd.DataFrame, method: str) -> None:
    bars = eurusd.iloc[1000:1600]
    labels = compute("triple_barrier", bars, pt_multiplier=6.0, sl_multiplier=5.0, vol_method=method)
    assert labels == triple_barrier_by_definition(bars, 6.0, 5.0, 50, 50, method)
    assert {label for label, _ in labels.values()} == {BUY, HOLD, SELL}


def test_many_bars_are_labelled_as_few_are(random_bars: MakeBars) -> None:
    bars = random_bars(40_000)
    whole = compute("triple_barrier", bars)
    for start in (16_000, 32_500):
        part = compute("triple_barrier", bars.iloc[start - 2000 : start + 600])
        for at in range(start, start + 500):
            label, known = part[at - start + 2000]
            assert whole[at] == (label, known + start - 2000)


def test_bars_without_volatility_have_no_barriers_and_no_label(eurusd: pd.DataFrame) -> None:
    bars = eurusd.iloc[:300].copy()
    bars.iloc[:150, :4] = 1.05
    labels = compute("triple_barrier", bars)
    assert min(labels) == 150
    with pytest.raises(DataError, match="volatility"):
        compute("triple_barrier", bars.iloc[:150])
