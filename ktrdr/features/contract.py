"""Does an indicator or a membership keep what its base class promises? For plug-ins, and for our own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.errors import PluginError
from ktrdr.features.indicators import Indicator
from ktrdr.features.memberships import Membership
from ktrdr.market.bars import Bars

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fault:
    """One promise that is not kept."""

    output: str
    """Which array; the empty string for one output, or for all."""
    message: str
    """What is wrong, as the rest of a sentence about the output."""

    def __str__(self) -> str:
        return f"The output '{self.output}' {self.message}." if self.output else f"The result {self.message}."


def require_sound(outputs: Mapping[str, FloatArray], indicator: Indicator, bars: int) -> None:
    """Check what can be seen of an indicator's outputs alone, before features are made of them.

    Args:
        outputs: what it made of the bars.
        indicator: any, also of a plug-in.
        bars: how many there were.

    Raises:
        PluginError: says what is wrong first.
    """
    fault = _wrong_names(outputs, indicator) or next(
        (
            Fault(name, message)
            for name, values in outputs.items()
            if (message := _wrong_array(values, bars)) is not None
        ),
        None,
    )
    if fault is not None:
        kind = type(indicator)
        raise PluginError(
            f"The indicator {kind.__module__}.{kind.__qualname__} breaks its contract. {fault}",
            fix="Correct it; `ktrdr.features.indicators.Indicator` says what is expected.",
        )


def indicator_faults(indicator: Indicator, bars: Bars) -> tuple[Fault, ...]:
    """Return what an indicator does otherwise than `Indicator` says.

    Args:
        indicator: which.
        bars: more than its warm-up, in which every value is defined (none relative to 0, for example).
    """
    if len(bars) <= indicator.warmup_bars:
        raise ValueError(f"{indicator.warmup_bars} bars of warm-up need more than {len(bars)} bars")
    given = bars.copy()
    outputs = indicator.compute(given)
    if wrong := _wrong_names(outputs, indicator):
        return (wrong,)
    faults = [
        Fault(name, message)
        for name, values in outputs.items()
        for message in _faults_of_output(values, len(bars), indicator.warmup_bars)
    ]
    if not given.equals(bars):
        faults.append(Fault("", "was computed by changing the bars"))
    again = indicator.compute(bars.copy())
    faults += [
        Fault(name, "is another one each time it is computed")
        for name, values in outputs.items()
        if not np.array_equal(values, again[name], equal_nan=True)
    ]
    return tuple(faults)


def membership_faults(membership: Membership, values: FloatArray) -> tuple[Fault, ...]:
    """Return what a membership does otherwise than `Membership` says; ``values`` may have NaN."""
    given = values.copy()
    degrees: object = membership.degree(given)
    if not isinstance(degrees, np.ndarray) or degrees.shape != values.shape:
        return (Fault("", "is not an array with one degree for each value"),)
    messages = []
    if degrees.dtype != np.float64:
        messages.append(f"is {degrees.dtype}, not float64")
    if not np.array_equal(np.isnan(degrees), np.isnan(values)):
        messages.append("is NaN elsewhere than the values are")
    outside = (degrees < 0) | (degrees > 1)
    if outside.any():
        first = int(outside.argmax())
        messages.append(f"is {degrees[first]:g} for {values[first]:g}, not between 0 and 1")
    if not np.array_equal(given, values, equal_nan=True):
        messages.append("was computed by changing the values")
    return tuple(Fault("", message) for message in messages)


def _wrong_names(outputs: Mapping[str, FloatArray], indicator: Indicator) -> Fault | None:
    if tuple(outputs) == (indicator.outputs or ("",)):
        return None
    declared = ", ".join(indicator.outputs) or "one without a name"
    given = ", ".join(name or "one without a name" for name in outputs) or "none"
    return Fault("", f"has the outputs {given}; declared: {declared}")


def _wrong_array(values: object, bars: int) -> str | None:
    if not isinstance(values, np.ndarray) or values.shape != (bars,):
        return f"is not an array with one value for each of the {bars} bars"
    return None if values.dtype == np.float64 else f"is {values.dtype}, not float64"


def _faults_of_output(values: FloatArray, bars: int, warmup_bars: int) -> Iterator[str]:
    if (message := _wrong_array(values, bars)) is not None:
        yield message
        return
    defined = ~np.isnan(values)
    first = int(defined.argmax()) if defined.any() else None
    if first is None:
        yield "has no value at all"
    elif first != warmup_bars:
        yield f"has its first value at bar {first}, where warmup_bars declares {warmup_bars}"
    infinite = np.isinf(values)
    if infinite.any():
        yield f"is infinite at bar {int(infinite.argmax())}"
