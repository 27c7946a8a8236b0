from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import DataError
from ktrdr.training.split import MINIMUM_ROWS, PARTS, split_rows

HOUR = pd.Timedelta(hours=1)


def hours(count: int) -> pd.DatetimeIndex:
    return pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC")


def test_rows_are_cut_by_shares_in_order_of_time() -> None:
    times = hours(200)
    split = split_rows(times, times, 0.7, 0.15)
    assert (len(split.train), len(split.validation), len(split.test)) == (140, 30, 30)
    assert split.train[0] == 0
    assert split.validation[0] == 140
    assert split.test[0] == 170
    assert split.test[-1] == 199


def test_a_label_that_is_known_one_bar_before_the_border_stays() -> None:
    times = hours(100)
    known_at = times.to_series()
    known_at.iloc[69] = times[70] - HOUR  # its own bar is the one before the first of validation
    assert 69 in split_rows(times, pd.DatetimeIndex(known_at), 0.7, 0.15).train


def test_a_label_that_is_known_only_at_the_border_is_dropped() -> None:
    times = hours(100)
    known_at = times.to_series()
    known_at.iloc[40] = times[70]
    known_at.iloc[72] = times[85]
    split = split_rows(times, pd.DatetimeIndex(known_at), 0.7, 0.15)
    assert 40 not in split.train
    assert 72 not in split.validation
    assert 41 in split.train
    assert split.used == 98


@settings(deadline=None)
@given(
    rows=st.integers(60, 400),
    train=st.floats(0.4, 0.7),
    validation=st.floats(0.1, 0.2),
    reach=st.integers(0, 8),
    seed=st.integers(0, 1000),
)
def test_no_label_of_a_part_is_known_after_the_next_part_begins(
    rows: int, train: float, validation: float, reach: int, seed: int
) -> None:
    randomness = np.random.default_rng(seed)
    times = pd.DatetimeIndex(hours(3 * rows)[np.sort(randomness.choice(3 * rows, rows, replace=False))])
    known_at = times + HOUR * randomness.integers(0, reach + 1, rows)
    try:
        split = split_rows(times, known_at, train, validation)
    except DataError:
        return
    for part, following in pairwise(PARTS):
        begin = times[split.rows(following)[0]]
        assert (times[split.rows(part)] < begin).all()
        assert (known_at[split.rows(part)] < begin).all()
    together = np.concatenate([split.rows(part) for part in PARTS])
    assert (np.diff(together) > 0).all()
    dropped = np.setdiff1d(np.arange(rows), together)
    assert (known_at[dropped] > times[dropped]).all()  # nothing is dropped whose label does not look ahead


@pytest.mark.parametrize("rows", [1, 3, 20, 60])
def test_too_few_rows_are_refused_with_the_counts(rows: int) -> None:
    with pytest.raises(DataError, match=rf"{rows} labelled rows .* each part needs {MINIMUM_ROWS}") as caught:
        split_rows(hours(rows), hours(rows), 0.7, 0.15)
    assert "data_split" in (caught.value.fix or "")


def test_labels_that_reach_over_a_whole_part_leave_too_few_rows() -> None:
    times = hours(200)
    with pytest.raises(DataError, match="140 train, 0 validation, 30 test"):
        split_rows(times, times.where(times < times[140], times[199]), 0.7, 0.15)


def test_bars_of_one_time_are_never_torn_apart() -> None:
    of_two_symbols = hours(100).repeat(2)
    split = split_rows(of_two_symbols, of_two_symbols, 0.705, 0.15)  # 141 of 200: between two of one time
    assert (len(split.train), len(split.validation), len(split.test)) == (140, 30, 30)
