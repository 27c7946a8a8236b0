"""Which bars of a triple barrier are labelled (CUSUM), and what each label weighs (uniqueness)."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.labels import LABELS, Labels
from ktrdr.labels.cusum import cusum_events
from ktrdr.labels.uniqueness import uniqueness
from tests.unit.label_cases import (
    MakeBars,
    bars_closing_at,
    by_number,
    go_on,
    triple_barrier_by_definition,
    volatility_by_definition,
)


def labels_of(bars: pd.DataFrame, **parameters: object) -> Labels:
    return LABELS.get("triple_barrier")(**parameters).compute(bars, go_on)


# --- events ---------------------------------------------------------------------------------------


def events_by_definition(returns: list[float], thresholds: list[float | None]) -> list[int]:
    """Bars up to which some sum of returns less thresholds, since the last event, is above the threshold."""
    events = []
    for sign in (1, -1):
        begin = 0
        for at, threshold in enumerate(thresholds):
            if threshold is None:
                begin = at + 1
                continue
            sums = [
                sum(sign * returns[i] - (thresholds[i] or 0) for i in range(since, at + 1))
                for since in range(begin, at + 1)
            ]
            if max(sums) > threshold:
                events.append(at)
                begin = at + 1
    return sorted(events)


def test_events_by_hand() -> None:
    returns = np.array([np.nan, 0.5, 1.5, 1.5, 0.0, 2.0, 2.5, -3.0, -1.5, -1.75])
    # Rises less 1:       0, 0.5, 1.0, 0, 1.0, 2.5 → anew; falls plus 1: -2.0 → anew, -0.5, -1.25 → anew
    events = cusum_events(returns, np.full(10, 1.0), go_on)
    assert events.tolist() == [6, 7, 9]


@settings(max_examples=60)
@given(
    returns=st.lists(st.floats(-3, 3), min_size=1, max_size=60),
    threshold=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    known_from=st.integers(0, 10),
)
def test_events_by_their_definition(returns: list[float], threshold: float, known_from: int) -> None:
    thresholds = [None if at < known_from else threshold * (1 + at / 7) for at in range(len(returns))]
    events = cusum_events(
        np.array(returns), np.array([np.nan if h is None else h for h in thresholds]), go_on
    )
    assert events.tolist() == events_by_definition(returns, thresholds)


def test_many_bars_have_the_events_that_few_have() -> None:
    returns = np.random.default_rng(1).normal(0, 1, 100_000)
    events = cusum_events(returns, np.full(100_000, 1.0), go_on)
    part = events_by_definition(returns[65_400:65_700].tolist(), [1.0] * 300)
    # After the first events the sums are the same, whatever was before.
    assert [at - 65_400 for at in events if 65_500 <= at < 65_700] == [at for at in part if at >= 100]


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    threshold=st.sampled_from([0.0, -1.0, 0.004, 0.008]),
    multiplier=st.sampled_from([0.25, 0.5, 1.0]),
    method=st.sampled_from(["atr", "close"]),
)
def test_only_events_are_labelled_each_as_it_would_be_among_all(
    random_bars: MakeBars, seed: int, threshold: float, multiplier: float, method: str
) -> None:
    bars = random_bars(60, seed=seed)
    closes = bars["close"].tolist()
    returns = [0.0] + [math.log(now / before) for before, now in pairwise(closes)]
    thresholds: list[float | None] = [None, *[threshold] * 59]
    if threshold <= 0:
        found = [volatility_by_definition(bars, at, 12, "close") for at in range(60)]
        thresholds = []
        for at in range(60):
            so_far = [value for value in found[: at + 1] if value is not None]
            thresholds.append(multiplier * sum(so_far) / len(so_far) if so_far else None)
    events = set(events_by_definition(returns, thresholds))
    everywhere = triple_barrier_by_definition(bars, 2.0, 1.5, 9, 12, method)
    expected = {at: label for at, label in everywhere.items() if at in events}
    parameters = {"max_holding_period": 9, "vol_span": 12, "vol_method": method}
    wanted = parameters | {"cusum_threshold": threshold, "cusum_multiplier": multiplier}
    if not expected:
        with pytest.raises(DataError, match="never add up to the CUSUM threshold"):
            labels_of(bars, **wanted)
        return
    labels = labels_of(bars, **wanted)
    assert by_number(labels, bars) == expected


def test_labels_at_events_have_the_times_of_the_events(eurusd: pd.DataFrame) -> None:
    labels = labels_of(eurusd, cusum_threshold=0.0008)
    closes = np.log(eurusd["close"])
    moved = (closes - closes.shift(1)).abs()[labels.times]
    assert 100 < len(labels.times) < 2000
    assert (moved > 0.0008).all()  # what an event needs at the least, at its own bar


def test_without_events_the_error_says_what_to_lower(eurusd: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="CUSUM threshold in 6225 bars") as caught:
        labels_of(eurusd, cusum_threshold=0.5)
    assert "Lower cusum_threshold" in str(caught.value.fix)


# --- weights --------------------------------------------------------------------------------------


def uniqueness_by_definition(spans: list[tuple[int, int]]) -> list[float]:
    means = []
    for begin, end in spans:
        shares = [1 / sum(first <= step < last for first, last in spans) for step in range(begin, end)]
        means.append(sum(shares) / len(shares))
    return [mean / (sum(means) / len(means)) for mean in means]


def test_weights_by_hand() -> None:
    # Step 0 is the first label's alone, step 1 it shares with the second, the others are the third's.
    weights = uniqueness(np.array([0, 1, 2]), np.array([2, 2, 4]), go_on)
    assert weights.tolist() == pytest.approx([0.75 / 0.75, 0.5 / 0.75, 1 / 0.75])


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 30)), min_size=1, max_size=40))
def test_weights_by_their_definition(steps: list[tuple[int, int]]) -> None:
    starts = np.cumsum([step for step, _ in steps])
    ends = starts + [length for _, length in steps]
    weights = uniqueness(starts, ends, go_on)
    spans = list(zip(starts.tolist(), ends.tolist(), strict=True))
    assert weights.tolist() == pytest.approx(uniqueness_by_definition(spans), rel=1e-9)


@pytest.mark.parametrize("cusum", [None, 0.0])
def test_labels_weigh_by_what_they_share_with_other_labels_and_1_on_average(
    eurusd: pd.DataFrame, cusum: float | None
) -> None:
    bars = eurusd.iloc[:300]
    parameters: dict[str, object] = {"pt_multiplier": 6.0, "sl_multiplier": 5.0, "cusum_threshold": cusum}
    labels = labels_of(bars, compute_weights=True, **parameters)
    spans = [(at, known) for at, (_, known) in by_number(labels, bars).items()]
    assert labels.weights is not None
    assert labels.weights.tolist() == pytest.approx(uniqueness_by_definition(spans))
    assert labels.weights.mean() == pytest.approx(1.0)
    assert labels.weights.min() > 0
    unweighted = labels_of(bars, **parameters)
    assert unweighted.weights is None
    assert by_number(unweighted, bars) == by_number(labels, bars)


def test_fewer_labels_share_less() -> None:
    closes = [100.0 + (at % 5) for at in range(200)]
    bars = bars_closing_at(closes)
    bars["high"] += 0.5
    bars["low"] -= 0.5
    everywhere = labels_of(bars, compute_weights=True)
    at_events = labels_of(bars, compute_weights=True, cusum_threshold=0.01)
    assert everywhere.weights is not None
    assert at_events.weights is not None
    assert len(at_events.weights) < len(everywhere.weights) / 3
