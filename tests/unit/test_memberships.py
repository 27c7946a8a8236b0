"""Membership functions: hand-worked degrees, laws, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ktrdr.features.memberships import MEMBERSHIPS, Gaussian, Membership, Trapezoidal, Triangular

finite = st.floats(-1e9, 1e9)
memberships = st.one_of(
    st.lists(finite, min_size=3, max_size=3).map(sorted).map(Triangular.from_list),
    st.lists(finite, min_size=4, max_size=4).map(sorted).map(Trapezoidal.from_list),
    st.tuples(finite, st.floats(1e-9, 1e9)).map(Gaussian.from_list),
)


def degree_of(membership: Membership, value: float) -> float:
    return float(membership.degree(np.array([value]))[0])


@pytest.mark.parametrize(
    ("membership", "degrees"),
    [
        (
            Triangular(a=20, b=30, c=50),
            {10: 0, 20: 0, 25: 0.5, 29: 0.9, 30: 1, 40: 0.5, 45: 0.25, 50: 0, 60: 0},
        ),
        # A flank of no width is a step with 1 at the peak: not a shoulder.
        (Triangular(a=20, b=20, c=40), {19.999: 0, 20: 1, 30: 0.5, 40: 0}),
        (Triangular(a=20, b=40, c=40), {20: 0, 30: 0.5, 40: 1, 40.001: 0}),
        (Triangular(a=20, b=20, c=20), {19.999: 0, 20: 1, 20.001: 0}),
        (
            Trapezoidal(a=20, b=30, c=50, d=60),
            {10: 0, 20: 0, 25: 0.5, 30: 1, 40: 1, 50: 1, 57.5: 0.25, 60: 0, 70: 0},
        ),
        # The outer edge comes first: 0 there, though 1 right inside.
        (Trapezoidal(a=20, b=20, c=50, d=60), {19.999: 0, 20: 0, 20.001: 1, 55: 0.5}),
        (Trapezoidal(a=20, b=30, c=50, d=50), {25: 0.5, 49.999: 1, 50: 0, 50.001: 0}),
        (Trapezoidal(a=20, b=20, c=50, d=50), {20: 0, 20.001: 1, 49.999: 1, 50: 0}),
        (Trapezoidal(a=20, b=30, c=30, d=40), {25: 0.5, 30: 1, 35: 0.5}),
        (Trapezoidal(a=20, b=20, c=20, d=20), {20: 0}),
        (
            Gaussian(mu=50, sigma=10),
            {50: 1, 40: math.exp(-0.5), 60: math.exp(-0.5), 80: math.exp(-4.5), 1e200: 0},
        ),
    ],
)
def test_hand_worked_degrees(membership: Membership, degrees: dict[float, float]) -> None:
    for value, degree in degrees.items():
        assert degree_of(membership, value) == pytest.approx(degree, rel=1e-15, abs=0)


@given(membership=memberships, values=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20))
def test_a_degree_is_between_0_and_1_and_nan_stays_nan(membership: Membership, values: list[float]) -> None:
    given_values = np.array(values, dtype=np.float64)
    degrees = membership.degree(given_values)
    assert degrees.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(degrees), np.isnan(given_values))
    present = degrees[~np.isnan(degrees)]
    assert ((present >= 0) & (present <= 1)).all()


@given(membership=memberships, low=finite, high=finite)
def test_the_degree_rises_to_the_peak_and_falls_after_it(
    membership: Membership, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    peak = membership.parameters[0 if isinstance(membership, Gaussian) else 1]
    plateau_end = membership.parameters[2] if isinstance(membership, Trapezoidal) else peak
    if high <= peak and not _is_step(membership, high):
        assert degree_of(membership, low) <= degree_of(membership, high)
    if low >= plateau_end and not _is_step(membership, low):
        assert degree_of(membership, low) >= degree_of(membership, high)


def _is_step(membership: Membership, value: float) -> bool:
    return isinstance(membership, Trapezoidal) and value in (membership.a, membership.d)


@given(membership=memberships)
def test_the_peak_has_degree_1(membership: Membership) -> None:
    peak = membership.parameters[0 if isinstance(membership, Gaussian) else 1]
    if not _is_step(membership, peak):
        assert degree_of(membership, peak) == 1


@given(membership=memberships, values=st.lists(finite, min_size=2, max_size=40), cut=st.integers(0, 40))
def test_the_degree_of_a_value_does_not_depend_on_its_neighbours(
    membership: Membership, values: list[float], cut: int
) -> None:
    whole = membership.degree(np.array(values))
    np.testing.assert_array_equal(whole[:cut], membership.degree(np.array(values[:cut])))


@given(membership=memberships)
def test_the_parameters_make_the_same_membership_again(membership: Membership) -> None:
    assert type(membership).from_list(membership.parameters) == membership


def test_the_values_are_left_as_they_were() -> None:
    values = np.array([10.0, np.nan, 30.0])
    for membership in (Triangular(a=0, b=10, c=20), Trapezoidal(a=0, b=1, c=2, d=3), Gaussian(mu=0, sigma=1)):
        membership.degree(values)
    np.testing.assert_array_equal(values, [10.0, np.nan, 30.0])


@pytest.mark.parametrize(
    ("spelling", "kind"),
    [
        ("triangular", Triangular),
        ("TriangularMF", Triangular),
        ("trapezoidalmf", Trapezoidal),
        ("Gaussian", Gaussian),
        ("gaussianmf", Gaussian),
    ],
)
def test_memberships_are_known_by_the_names_that_strategies_use(
    spelling: str, kind: type[Membership]
) -> None:
    assert MEMBERSHIPS.get(spelling) is kind


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (Triangular, [20, 30], r"a triangular membership has 3 parameters \(a, b, c\), not 2"),
        (Gaussian, [20, 30, 40], r"a gaussian membership has 2 parameters \(mu, sigma\), not 3"),
        (Triangular, [30, 20, 40], "a ≤ b ≤ c must hold, but they are 30, 20, 40"),
        (Trapezoidal, [10, 20, 40, 30], "a ≤ b ≤ c ≤ d must hold, but they are 10, 20, 40, 30"),
        (Gaussian, [50, 0], "sigma\n.*greater than 0"),
        (Gaussian, [50, -1], "sigma\n.*greater than 0"),
        (Triangular, [0, 1, math.inf], "c\n.*finite"),
        (Triangular, [math.nan, 1, 2], "a\n.*finite"),
        (Triangular, [0, "1", 2], "b\n.*valid number"),
        (Triangular, [0, True, 2], "b\n.*valid number"),
    ],
)
def test_wrong_parameters_are_refused(kind: type[Membership], parameters: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind.from_list(parameters)


def test_a_parameter_that_a_membership_has_not_is_refused() -> None:
    with pytest.raises(ValidationError):
        Gaussian(mu=0, sigma=1, width=2)
