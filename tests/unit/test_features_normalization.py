"""Scaling of raw features."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.features.indicators import INDICATORS
from ktrdr.features.normalization import Scaling, ScalingMethod, apply_scalings, fit_scaling, fit_scalings
from ktrdr.features.plan import FeatureColumn, FeaturePlan, Normalization
from ktrdr.models.metadata import NormalizationRecord

METHODS: tuple[ScalingMethod, ...] = ("minmax", "zscore")


def scaled(scaling: Scaling, values: list[float]) -> list[float]:
    array = np.array(values, dtype=np.float32)
    scaling.apply(array)
    return array.tolist()


def test_minmax_maps_the_training_values_to_0_and_1() -> None:
    scaling = fit_scaling("minmax", np.array([10, 30, 20], dtype=np.float32))
    assert scaling == Scaling("minmax", offset=10, scale=20)
    assert scaled(scaling, [10, 20, 30, 50]) == [0, 0.5, 1, 2]


def test_zscore_maps_the_training_values_to_mean_0_and_sample_deviation_1() -> None:
    scaling = fit_scaling("zscore", np.array([1, 2, 3], dtype=np.float32))
    assert scaling == Scaling("zscore", offset=2, scale=1)
    assert scaled(scaling, [1, 2, 5]) == [-1, 0, 3]


@pytest.mark.parametrize("method", METHODS)
@given(value=st.floats(-1e6, 1e6, width=32), later=st.floats(-1e9, 1e9, width=32))
def test_what_was_constant_in_training_is_0_for_good(
    method: ScalingMethod, value: float, later: float
) -> None:
    scaling = fit_scaling(method, np.full(7, value, dtype=np.float32))
    assert scaled(scaling, [value, later]) == [0, 0]


@pytest.mark.parametrize("method", METHODS)
@given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=50))
def test_scaled_training_values_are_finite_and_in_their_order(
    method: ScalingMethod, values: list[float]
) -> None:
    result = np.array(scaled(fit_scaling(method, np.array(values, dtype=np.float32)), values))
    assert np.isfinite(result).all()
    assert (np.diff(result[np.argsort(values, kind="stable")]) >= 0).all()
    if method == "minmax":
        assert ((result >= 0) & (result <= 1)).all()


def plan_of(*normalizations: Normalization) -> FeaturePlan:
    columns = tuple(
        FeatureColumn(f"1h_f{number}_raw", "1h", "rsi", "", normalization=normalization)
        for number, normalization in enumerate(normalizations)
    )
    return FeaturePlan("1h", {"rsi": INDICATORS.get("rsi")()}, columns)


def test_only_the_features_that_ask_for_it_are_scaled_by_their_training_rows() -> None:
    plan = plan_of("none", "minmax", "zscore")
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    whole = values.copy()
    scalings = fit_scalings(plan, values, slice(0, 5))
    assert list(scalings) == ["1h_f1_raw", "1h_f2_raw"]
    assert scalings["1h_f1_raw"] == Scaling("minmax", offset=1, scale=12)
    assert fit_scalings(plan, values, np.arange(5)) == scalings
    values[5:] = 1e6
    assert fit_scalings(plan, values, slice(0, 5)) == scalings
    apply_scalings(plan.feature_ids, whole, scalings)
    np.testing.assert_array_equal(whole[:, 0], np.arange(0, 30, 3))
    np.testing.assert_allclose(whole[:, 1], np.arange(0, 30, 3) / 12)
    assert whole[:5, 2].mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_scaling_survives_the_metadata(method: ScalingMethod) -> None:
    for values in ([0.1, 0.7], [0.3, 0.3]):
        scaling = fit_scaling(method, np.array(values, dtype=np.float32))
        record = NormalizationRecord(**asdict(scaling))
        again = NormalizationRecord.model_validate_json(record.model_dump_json())
        assert Scaling(again.method, again.offset, again.scale) == scaling
