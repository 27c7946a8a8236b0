"""Fuzzy membership functions, one registry."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from ktrdr.parameters import Parameters
from ktrdr.registry import Registry

FloatArray = npt.NDArray[np.float64]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Membership(Parameters, ABC):
    """Degree, 0 to 1, to which a value belongs to a fuzzy set.

    The fields, in their order, are the positional parameters of a strategy file.
    """

    @classmethod
    def from_list(cls, parameters: Sequence[float]) -> Self:
        """Build it from the positional parameters of a strategy file; raises ValueError on a wrong count."""
        names = list(cls.model_fields)
        if len(parameters) != len(names):
            raise ValueError(
                f"a {cls.__name__.lower()} membership has {len(names)} parameters ({', '.join(names)}), "
                f"not {len(parameters)}"
            )
        return cls.model_validate(dict(zip(names, parameters, strict=True)))

    @property
    def parameters(self) -> tuple[float, ...]:
        """The positional parameters that `from_list` takes."""
        return tuple(float(getattr(self, name)) for name in type(self).model_fields)

    @abstractmethod
    def degree(self, values: FloatArray) -> FloatArray:
        """Return the degree of each value; NaN stays NaN."""


MEMBERSHIPS: Registry[Membership] = Registry("membership type", Membership, "ktrdr.memberships")


@MEMBERSHIPS.register("triangular", "triangularmf")
class Triangular(Membership):
    """Rises from 0 at ``a`` to 1 at ``b`` and falls to 0 at ``c``.

    Where ``a = b`` or ``b = c`` that flank is a step: 1 at ``b`` itself, 0 beyond it.
    """

    a: Finite
    b: Finite
    c: Finite

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _require_order("a ≤ b ≤ c", self.parameters)
        return self

    def degree(self, values: FloatArray) -> FloatArray:
        """Return the lower of the two flanks, at least 0."""
        degrees = _rise(values, self.a, self.b, at_step=1.0)
        np.minimum(degrees, _rise(-values, -self.c, -self.b, at_step=1.0), out=degrees)
        return np.maximum(degrees, 0.0, out=degrees)


@MEMBERSHIPS.register("trapezoidal", "trapezoidalmf")
class Trapezoidal(Membership):
    """Rises from 0 at ``a`` to 1 at ``b``, stays there up to ``c``, and falls to 0 at ``d``.

    At ``a`` and ``d`` it is 0 even where ``a = b`` or ``c = d``: that flank is a step just inside.
    """

    a: Finite
    b: Finite
    c: Finite
    d: Finite

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _require_order("a ≤ b ≤ c ≤ d", self.parameters)
        return self

    def degree(self, values: FloatArray) -> FloatArray:
        """Return the lower of the two flanks, between 0 and 1."""
        degrees = _rise(values, self.a, self.b, at_step=0.0)
        np.minimum(degrees, _rise(-values, -self.d, -self.c, at_step=0.0), out=degrees)
        return np.clip(degrees, 0.0, 1.0, out=degrees)


@MEMBERSHIPS.register("gaussian", "gaussianmf")
class Gaussian(Membership):
    """A bell: exp(-((x - mu) / sigma)² / 2)."""

    mu: Finite
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    def degree(self, values: FloatArray) -> FloatArray:
        """Return the height of the bell."""
        with np.errstate(over="ignore", under="ignore"):  # far out, and 0 there
            degrees = values - self.mu
            degrees /= self.sigma
            np.square(degrees, out=degrees)
            degrees *= -0.5
            return np.exp(degrees, out=degrees)


def _require_order(rule: str, parameters: tuple[float, ...]) -> None:
    if list(parameters) != sorted(parameters):
        raise ValueError(f"{rule} must hold, but they are {', '.join(f'{p:g}' for p in parameters)}")


def _rise(values: FloatArray, foot: float, top: float, *, at_step: float) -> FloatArray:
    """Return the line through 0 at ``foot`` and 1 at ``top``; a step if they are one, ``at_step`` on it.

    A new array, not limited to 0…1.
    """
    if foot == top:
        return np.heaviside(values - top, at_step)
    with np.errstate(over="ignore"):  # the line is steep; what is beyond any number is cut by the caller
        line = values - foot
        line /= top - foot
    return line
