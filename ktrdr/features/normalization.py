"""Scaling of raw features, fitted on the training part and applied to every row."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ktrdr.features.plan import FeaturePlan

Float32Array = npt.NDArray[np.float32]
ScalingMethod = Literal["minmax", "zscore"]

# What was constant in training carries no information and its weights learned nothing, so it must be 0 later
# too, whatever it becomes: the largest float as its scale makes the one formula do that.
_CONSTANT_SCALE = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Scaling:
    """An affine scaling: (x - offset) / scale."""

    method: ScalingMethod
    offset: float
    scale: float

    def apply(self, values: Float32Array) -> None:
        """Scale in place; computed in double precision."""
        values[...] = (values.astype(np.float64) - self.offset) / self.scale


def fit_scaling(method: ScalingMethod, values: Float32Array) -> Scaling:
    """Fit a scaling: ``minmax`` maps the values to 0…1, ``zscore`` to mean 0 and sample deviation 1.

    Args:
        method: which.
        values: of one feature in the training part; finite, at least one.
    """
    training = values.astype(np.float64)
    lowest, highest = float(training.min()), float(training.max())
    if lowest == highest:
        return Scaling(method, lowest, _CONSTANT_SCALE)
    if method == "minmax":
        return Scaling(method, lowest, highest - lowest)
    return Scaling(method, float(training.mean()), float(training.std(ddof=1)))


def fit_scalings(
    plan: FeaturePlan, values: Float32Array, rows: slice | npt.NDArray[np.intp]
) -> dict[str, Scaling]:
    """Fit the scalings that a plan asks for.

    Args:
        plan: says which features are normalized, and how.
        values: (row, feature), without NaN.
        rows: the training part; nothing else is looked at.

    Returns:
        Feature id → scaling, for the features that have one.
    """
    return {
        column.feature_id: fit_scaling(column.normalization, values[rows, position])
        for position, column in enumerate(plan.columns)
        if column.normalization != "none"
    }


def apply_scalings(feature_ids: Sequence[str], values: Float32Array, scalings: Mapping[str, Scaling]) -> None:
    """Scale the features that have a scaling, in place.

    Args:
        feature_ids: of the columns of ``values``.
        values: (row, feature).
        scalings: feature id → scaling.
    """
    for position, feature_id in enumerate(feature_ids):
        if feature_id in scalings:
            scalings[feature_id].apply(values[:, position])
