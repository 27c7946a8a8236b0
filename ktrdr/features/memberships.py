"""Fuzzy membership functions, one registry."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ktrdr.parameters import Parameters
from ktrdr.registry import Registry

FloatArray = npt.NDArray[np.float64]


class Membership(Parameters, ABC):
    """Degree, 0 to 1, to which a value belongs to a fuzzy set."""

    @classmethod
    @abstractmethod
    def from_list(cls, parameters: Sequence[float]) -> "Membership":
        """Build it from the positional parameters of a strategy file; raises ValueError on a wrong count."""

    @abstractmethod
    def degree(self, values: FloatArray) -> FloatArray:
        """Return the degree of each value; NaN stays NaN."""


MEMBERSHIPS: Registry[Membership] = Registry("membership type")
