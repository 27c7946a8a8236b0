"""What every network keeps, and what is said of a plug-in that does not."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ktrdr.errors import PluginError
from ktrdr.networks import Network
from ktrdr.networks.contract import require_sound
from tests.unit.test_networks_training import NETWORK_TYPES, network

INPUTS, OUTPUTS = 4, 3


@pytest.mark.parametrize("name", NETWORK_TYPES)
def test_every_network_keeps_its_contract_and_stays_as_it_was(name: str) -> None:
    of = network(name)
    torch.manual_seed(3)
    module = of.build(INPUTS, OUTPUTS)
    weights = nn.utils.parameters_to_vector(module.parameters()).clone()
    drawn = torch.get_rng_state()
    require_sound(module, of, INPUTS, OUTPUTS)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(nn.utils.parameters_to_vector(module.parameters()), weights)
    assert module.training


class Plugin(Network):
    """One Linear, and whatever a test makes of it."""

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Linear(inputs, outputs)

    def parameter_count(self, inputs: int, outputs: int) -> int:
        return (inputs + 1) * outputs


def wrapped(answer: Callable[[nn.Linear, Tensor], object]) -> Network:
    class Wrapped(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.linear = nn.Linear(inputs, outputs)

        def forward(self, inputs: Tensor) -> object:
            return answer(self.linear, inputs)

    class OfPlugin(Plugin):
        def build(self, inputs: int, outputs: int) -> nn.Module:
            return Wrapped(inputs, outputs)

    return OfPlugin()


class MiscountsParameters(Plugin):
    def parameter_count(self, inputs: int, outputs: int) -> int:
        return inputs * outputs


class HasNone(Plugin):
    def build(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Flatten()

    def parameter_count(self, inputs: int, outputs: int) -> int:
        return 0


class InHalfPrecision(Plugin):
    def build(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Linear(inputs, outputs, dtype=torch.float16)


class Frozen(Plugin):
    def build(self, inputs: int, outputs: int) -> nn.Module:
        linear = nn.Linear(inputs, outputs)
        linear.bias.requires_grad_(False)
        return linear


class KeepsSomethingElse(Plugin):
    """Scales by what is drawn when it is built, and not kept."""

    def build(self, inputs: int, outputs: int) -> nn.Module:
        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(inputs, outputs)
                self.register_buffer("scale", torch.rand(outputs), persistent=False)

            def forward(self, values: Tensor) -> Tensor:
                assert isinstance(self.scale, Tensor)
                scaled: Tensor = self.linear(values) * self.scale
                return scaled

        return Scaled()


numbers = itertools.count()


class KeepsANumber(Plugin):
    def build(self, inputs: int, outputs: int) -> nn.Module:
        class Shifted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(inputs, outputs)
                self.by = next(numbers)

            def forward(self, values: Tensor) -> Tensor:
                shifted: Tensor = self.linear(values) + self.by
                return shifted

        return Shifted()


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (MiscountsParameters(), "it has 15 parameters, but parameter_count says 12"),
        (HasNone(), "it has no parameters to train"),
        (InHalfPrecision(), "its parameter weight is torch.float16, not torch.float32"),
        (Frozen(), "its parameter bias has no gradient; a buffer is what is not trained"),
        (
            wrapped(lambda linear, given: linear(given[:, 1:])),
            r"given inputs \(3, 4\) of torch.float32, it fails with RuntimeError: mat1 and mat2",
        ),
        (
            wrapped(lambda linear, given: linear(given.float())),
            r"given inputs \(3, 4\) of torch.float64, it fails with RuntimeError: ",
        ),
        (wrapped(lambda linear, given: (linear(given), given)), "it returns a tuple, not a tensor"),
        (
            wrapped(lambda linear, given: linear(given)[:, 0]),
            r"for 3 inputs it returns \(3,\), not \(3, 3\)",
        ),
        (
            wrapped(lambda linear, given: linear(given).half()),
            "of inputs of torch.float32 it makes outputs of torch.float16",
        ),
        (wrapped(lambda linear, given: linear(given) / 0), "its outputs are not finite before it is trained"),
        (
            wrapped(lambda linear, given: linear(given - given.mean(0))),
            "what it answers to an input depends on the others of the batch",
        ),
        (KeepsSomethingElse(), "it cannot be loaded from its weights: "),
        (KeepsANumber(), "loaded from its weights, it answers otherwise: all that it computes with must be"),
    ],
)
def test_a_fault_is_told_in_words(broken: Network, fault: str) -> None:
    module = broken.build(INPUTS, OUTPUTS)
    with pytest.raises(PluginError, match=r"The network \S+ breaks its contract: " + fault):
        require_sound(module, broken, INPUTS, OUTPUTS)
