"""Whatever becomes an input of a network sees the past only, and what sees more is caught."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.features.causality import (
    find_leaks,
    indicator_leaks,
    membership_leaks,
    normalization_leaks,
    spread_cuts,
    with_another_future,
)
from ktrdr.features.indicators import Indicator
from ktrdr.features.memberships import MEMBERSHIPS, Gaussian
from ktrdr.features.normalization import ScalingMethod

MakeBars = Callable[..., pd.DataFrame]
ROWS = 200


def next_close(bars: pd.DataFrame) -> pd.Series:
    return bars["close"].shift(-1)


def centred_mean(bars: pd.DataFrame) -> pd.Series:
    return bars["close"].rolling(11, center=True).mean()


def whole_z_score(bars: pd.DataFrame) -> pd.Series:
    return (bars["close"] - bars["close"].mean()) / bars["close"].std()


def last_close_of_the_day(bars: pd.DataFrame) -> pd.Series:
    return bars["close"].groupby(pd.DatetimeIndex(bars.index).date).transform("last")


def share_of_the_largest_volume(bars: pd.DataFrame) -> pd.Series:
    return bars["volume"] / bars["volume"].max()


def filled_backwards(bars: pd.DataFrame) -> pd.Series:
    return bars["close"].where(np.arange(len(bars)) % 7 == 0).bfill()


def only_if_there_is_a_next_bar(bars: pd.DataFrame) -> pd.Series:
    """Says of the last bar what it says of the one before, so that a shorter series shows nothing."""
    return bars["close"].shift(-1).fillna(bars["close"])


LEAKING = [
    next_close,
    centred_mean,
    whole_z_score,
    last_close_of_the_day,
    share_of_the_largest_volume,
    filled_backwards,
    only_if_there_is_a_next_bar,
]


@pytest.mark.parametrize("leaking", LEAKING, ids=lambda function: function.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_what_looks_ahead_is_caught(
    leaking: Callable[[pd.DataFrame], pd.Series], seed: int, random_bars: MakeBars
) -> None:
    bars = random_bars(ROWS, seed=seed)
    leaks = find_leaks(
        lambda table: {"good": table["close"].to_numpy(), "bad": leaking(table).to_numpy()},
        bars,
        spread_cuts(21, ROWS, seed=seed),
        seed=seed,
    )
    assert [leak.output for leak in leaks] == ["bad"]


def test_the_finding_says_where_how_far_and_what(random_bars: MakeBars) -> None:
    bars = random_bars(ROWS).assign(close=np.arange(1.0, ROWS + 1))
    (leak,) = find_leaks(lambda table: {"ahead": table["close"].shift(-3).to_numpy()}, bars, [50, 20, 100])
    assert (leak.output, leak.bar, leak.cut, leak.reach_bars) == ("ahead", 17, 20, 3)
    assert leak.future == "removed"
    assert leak.before == 21
    assert np.isnan(leak.after)
    assert str(leak) == (
        "The value of 'ahead' at bar 17 looks at least 3 bars ahead: it is 21, "
        "and nan with the bars from 20 on removed."
    )


def test_what_shows_only_with_other_bars_says_so(random_bars: MakeBars) -> None:
    def sign_of_tomorrow(table: pd.DataFrame) -> Mapping[str, np.ndarray]:
        later = table["close"].shift(-1).fillna(np.inf)
        return {"": (later > 50).to_numpy(dtype=np.float64)}

    bars = random_bars(ROWS).assign(close=60.0)
    leaks = find_leaks(sign_of_tomorrow, bars, range(1, 20))
    assert [(leak.output, leak.reach_bars, leak.future) for leak in leaks] == [("", 1, "replaced")]
    assert "with the bars from" in str(leaks[0])


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_rounding_is_a_leak_only_without_a_tolerance(tolerance: float, random_bars: MakeBars) -> None:
    def rounded_otherwise(table: pd.DataFrame) -> Mapping[str, np.ndarray]:
        return {"": table["close"].to_numpy() * (1 + 1e-13 * len(table))}

    leaks = find_leaks(rounded_otherwise, random_bars(ROWS), [50], tolerance=tolerance)
    assert bool(leaks) == (tolerance == 0)


@pytest.mark.parametrize("cut", [0, ROWS])
def test_a_cut_that_leaves_all_or_nothing_is_refused(cut: int, random_bars: MakeBars) -> None:
    with pytest.raises(ValueError, match=f"between 1 and {ROWS - 1}, not {cut}"):
        find_leaks(lambda table: {}, random_bars(ROWS), [cut])


@given(first=st.integers(1, 300), more=st.integers(1, 300), seed=st.integers(0, 99), count=st.integers(1, 12))
def test_cuts_begin_right_after_the_first_value_and_end_before_the_last_bar(
    first: int, more: int, seed: int, count: int
) -> None:
    cuts = spread_cuts(first, first + more, seed=seed, count=count)
    assert cuts[0] == first
    assert cuts[-1] == first + more - 1
    assert list(cuts) == sorted(set(cuts))
    assert len(cuts) <= max(count, 2)


def test_too_few_bars_to_cut_are_refused() -> None:
    with pytest.raises(ValueError, match="needs more than that, but there are 15"):
        spread_cuts(15, 15)


@settings(max_examples=20)
@given(cut=st.integers(1, 59), seed=st.integers(0, 2**32 - 1))
def test_another_future_is_one_that_could_have_been(random_bars: MakeBars, cut: int, seed: int) -> None:
    bars = random_bars(60)
    other = with_another_future(bars, cut, np.random.default_rng(seed))
    pd.testing.assert_frame_equal(other.iloc[:cut], bars.iloc[:cut])
    pd.testing.assert_index_equal(other.index, bars.index)
    assert list(other.columns) == list(bars.columns)
    assert (other["high"] >= other[["open", "close", "low"]].max(axis=1)).all()
    assert (other["low"] <= other[["open", "close", "high"]].min(axis=1)).all()
    assert (other.iloc[cut:] != bars.iloc[cut:]).to_numpy().all()


def test_a_leaking_indicator_is_caught_wherever_its_warm_up_ends(random_bars: MakeBars) -> None:
    class Peeking(Indicator):
        warmup: int

        @property
        def warmup_bars(self) -> int:
            return self.warmup

        def compute(self, bars: pd.DataFrame) -> Mapping[str, np.ndarray]:
            values = bars["close"].shift(-1).ffill().to_numpy(copy=True)
            values[: self.warmup] = np.nan
            return {"": values}

    for warmup in (0, 1, ROWS // 2, ROWS - 2):
        (leak,) = indicator_leaks(Peeking(warmup=warmup), random_bars(ROWS))
        assert leak.bar == warmup


def test_a_membership_that_knows_all_values_is_caught() -> None:
    class Relative(Gaussian):
        def degree(self, values: np.ndarray) -> np.ndarray:
            return super().degree(values - np.nanmean(values))

    values = np.concatenate(([np.nan] * 5, np.random.default_rng(1).normal(size=100)))
    (leak,) = membership_leaks(Relative(mu=0, sigma=1), values)
    assert leak.bar == 5
    assert membership_leaks(Gaussian(mu=0, sigma=1), values, tolerance=0) == ()


@pytest.mark.parametrize("name", MEMBERSHIPS.names())
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_no_registered_membership_looks_at_other_values(name: str, seed: int) -> None:
    kind = MEMBERSHIPS.get(name)
    random = np.random.default_rng(seed)
    parameters = np.sort(random.uniform(1, 9, len(kind.model_fields)))
    membership = kind.from_list(parameters.tolist())
    assert membership_leaks(membership, random.uniform(0, 10, 120), seed=seed, tolerance=0) == ()


@pytest.mark.parametrize("method", ["minmax", "zscore"])
@given(seed=st.integers(0, 2**32 - 1), training_rows=st.integers(1, 119))
@settings(max_examples=20)
def test_normalization_looks_at_the_training_part_only(
    method: ScalingMethod, seed: int, training_rows: int
) -> None:
    values = np.random.default_rng(seed).normal(size=120).astype(np.float32)
    assert normalization_leaks(method, values, training_rows, seed=seed) == ()
