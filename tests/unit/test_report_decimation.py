"""Groups and lines with fewer points than rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.models.report.decimation import MAX_LINE_POINTS, group_rows, line_rows


def parts_of(train: int, validation: int, test: int) -> np.ndarray:
    return np.repeat(np.arange(3), [train, validation, test])


@given(
    sizes=st.tuples(st.integers(0, 400), st.integers(0, 90), st.integers(1, 90)),
    at_most=st.integers(1, 200),
)
def test_groups_cover_every_row_once_and_cross_no_border(sizes, at_most):
    parts = parts_of(*sizes)
    groups = group_rows(parts, at_most)
    assert groups.starts[0] == 0
    assert np.array_equal(groups.starts[1:], groups.starts[:-1] + groups.sizes[:-1])
    assert groups.ends[-1] == len(parts) - 1
    assert np.all(groups.sizes > 0)
    assert np.array_equal(parts[groups.starts], parts[groups.ends])
    # Each part may add a group that is not full.
    assert len(groups) <= at_most + 2
    assert groups.largest <= -(-len(parts) // at_most)


@given(
    sizes=st.tuples(st.integers(1, 300), st.integers(1, 60), st.integers(1, 60)), at_most=st.integers(1, 50)
)
def test_means_shares_and_quantiles_are_those_of_each_group(sizes, at_most):
    parts = parts_of(*sizes)
    random = np.random.default_rng(len(parts))
    values, numbers = random.normal(size=len(parts)), random.integers(3, size=len(parts))
    groups = group_rows(parts, at_most)
    quantiles, shares = groups.quantiles(values, (0.1, 0.5)), groups.shares(numbers, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    for number, (start, end) in enumerate(zip(groups.starts, groups.ends, strict=True)):
        inside = slice(start, end + 1)
        assert groups.means(values)[number] == pytest.approx(values[inside].mean())
        assert shares[number, 2] == pytest.approx((numbers[inside] == 2).mean())
        np.testing.assert_allclose(quantiles[:, number], np.quantile(values[inside], (0.1, 0.5)))


def test_a_line_of_few_rows_shows_them_all():
    assert np.array_equal(line_rows(np.arange(MAX_LINE_POINTS)), np.arange(MAX_LINE_POINTS))


@given(rows=st.integers(MAX_LINE_POINTS + 1, 30_000), seed=st.integers(0, 1000))
def test_a_line_of_many_rows_keeps_its_ends_and_every_spike(rows, seed):
    values = np.cumsum(np.random.default_rng(seed).normal(size=rows))
    spike = seed * 7919 % rows
    values[spike] += 1_000
    chosen = line_rows(values)
    assert len(chosen) <= MAX_LINE_POINTS + 2
    assert np.all(np.diff(chosen) > 0)
    assert {0, spike, rows - 1, int(values.argmin())} <= set(chosen.tolist())
