"""What is said of an indicator or a membership that does not keep its promises."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from ktrdr.errors import PluginError
from ktrdr.features.contract import indicator_faults, membership_faults, require_sound
from ktrdr.features.indicators import INDICATORS, Indicator
from ktrdr.features.memberships import MEMBERSHIPS, Gaussian, Membership

MakeBars = Callable[..., pd.DataFrame]


class Faulty(Indicator):
    """The mean of two closes, but for what a test breaks."""

    make: ClassVar[Callable[[pd.DataFrame], Mapping[str, object]]]

    @property
    def warmup_bars(self) -> int:
        return 1

    def compute(self, bars: pd.DataFrame) -> Mapping[str, np.ndarray]:
        return type(self).make(bars)


def mean(bars: pd.DataFrame) -> np.ndarray:
    return bars["close"].rolling(2).mean().to_numpy(copy=True)


def infinite(bars: pd.DataFrame) -> dict[str, np.ndarray]:
    values = mean(bars)
    values[7] = np.inf
    return {"": values}


def rounding_the_bars(bars: pd.DataFrame) -> dict[str, np.ndarray]:
    bars["close"] = bars["close"].round()
    return {"": mean(bars)}


def by_chance(bars: pd.DataFrame) -> dict[str, np.ndarray]:
    return {"": mean(bars) + np.random.default_rng().normal()}


@pytest.mark.parametrize(
    ("make", "messages"),
    [
        (lambda bars: {"": mean(bars)}, []),
        (
            lambda bars: {"line": mean(bars)},
            ["The result has the outputs line; declared: one without a name."],
        ),
        (lambda bars: {}, ["The result has the outputs none; declared: one without a name."]),
        (
            lambda bars: {"": mean(bars)[1:]},
            ["The result is not an array with one value for each of the 30 bars."],
        ),
        (
            lambda bars: {"": bars["close"].rolling(2).mean()},
            ["The result is not an array with one value for each of the 30 bars."],
        ),
        (lambda bars: {"": mean(bars).astype(np.float32)}, ["The result is float32, not float64."]),
        (lambda bars: {"": mean(bars) * np.nan}, ["The result has no value at all."]),
        (
            lambda bars: {"": bars["close"].to_numpy()},
            ["The result has its first value at bar 0, where warmup_bars declares 1."],
        ),
        (infinite, ["The result is infinite at bar 7."]),
        (rounding_the_bars, ["The result was computed by changing the bars."]),
        (by_chance, ["The result is another one each time it is computed."]),
    ],
)
def test_each_broken_promise_of_an_indicator_is_named(
    make: Callable[[pd.DataFrame], Mapping[str, object]], messages: list[str], random_bars: MakeBars
) -> None:
    class Broken(Faulty):
        pass

    Broken.make = staticmethod(make)
    assert [str(fault) for fault in indicator_faults(Broken(), random_bars(30))] == messages


def test_the_output_of_several_that_is_at_fault_is_named(random_bars: MakeBars) -> None:
    class Two(Faulty):
        outputs: ClassVar[tuple[str, ...]] = ("line", "width")

    Two.make = staticmethod(lambda bars: {"line": mean(bars), "width": bars["close"].to_numpy()})
    (fault,) = indicator_faults(Two(), random_bars(30))
    assert fault.output == "width"
    assert str(fault).startswith("The output 'width' has its first value at bar 0")


def test_no_more_bars_than_the_warm_up_cannot_show_anything(random_bars: MakeBars) -> None:
    with pytest.raises(ValueError, match="14 bars of warm-up need more than 14 bars"):
        indicator_faults(INDICATORS.get("rsi")(), random_bars(14))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"line": np.ones(30)}, "The result has the outputs line; declared: one without a name."),
        ({"": np.ones(29)}, "The result is not an array with one value for each of the 30 bars."),
        ({"": np.ones(30, dtype=np.float32)}, "The result is float32, not float64."),
    ],
)
def test_nothing_is_made_of_outputs_that_are_not_what_they_should_be(
    outputs: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(PluginError, match=rf"\.Rsi breaks its contract\. {message} Correct it; `ktrdr"):
        require_sound(outputs, INDICATORS.get("rsi")(), 30)


class Scaled(Gaussian):
    """A bell of another height, which changes what it is given."""

    def degree(self, values: np.ndarray) -> np.ndarray:
        values[0] = 0.0
        return np.nan_to_num(2 * super().degree(values), nan=0.5)


class Short(Gaussian):
    def degree(self, values: np.ndarray) -> np.ndarray:
        return super().degree(values)[1:]


class Single(Gaussian):
    def degree(self, values: np.ndarray) -> np.ndarray:
        return super().degree(values).astype(np.float32)


@pytest.mark.parametrize(
    ("membership", "messages"),
    [
        (
            Scaled(mu=2, sigma=1),
            [
                "The result is NaN elsewhere than the values are.",
                "The result is 2 for 2, not between 0 and 1.",
                "The result was computed by changing the values.",
            ],
        ),
        (Short(mu=2, sigma=1), ["The result is not an array with one degree for each value."]),
        (Single(mu=2, sigma=1), ["The result is float32, not float64."]),
    ],
)
def test_each_broken_promise_of_a_membership_is_named(membership: Membership, messages: list[str]) -> None:
    assert [str(fault) for fault in membership_faults(membership, np.array([1.0, 2.0, np.nan]))] == messages


@pytest.mark.parametrize("name", MEMBERSHIPS.names())
def test_every_registered_membership_keeps_its_promises(name: str) -> None:
    kind = MEMBERSHIPS.get(name)
    membership = kind.from_list([float(number) for number in range(1, 1 + len(kind.model_fields))])
    values = np.concatenate((np.linspace(-10, 10, 101), [np.nan, 1e8, -1e8, 1e-8]))
    assert membership_faults(membership, values) == ()
