"""Multilayer perceptron."""

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ktrdr.networks.base import NETWORKS, Network

if TYPE_CHECKING:
    from torch import nn

Activation = Literal["relu", "tanh", "sigmoid", "leaky_relu"]


@NETWORKS.register("mlp")
class Mlp(Network):
    """Per hidden layer Linear, activation and Dropout; then Linear to the outputs (logits)."""

    hidden_layers: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(strict=False, max_length=32)
    ]
    """Units of each hidden layer, first to last; an empty list is a linear model."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of a hidden layer's outputs that is zeroed in training."""
    activation: Activation = "relu"

    def build(self, inputs: int, outputs: int) -> "nn.Module":
        """Return the network, freshly initialised from torch's current random state."""
        from torch import nn

        activations: dict[Activation, type[nn.Module]] = {
            "relu": nn.ReLU,
            "tanh": nn.Tanh,
            "sigmoid": nn.Sigmoid,
            "leaky_relu": nn.LeakyReLU,
        }
        modules: list[nn.Module] = []
        for below, above in pairwise((inputs, *self.hidden_layers)):
            modules += [nn.Linear(below, above), activations[self.activation](), nn.Dropout(self.dropout)]
        modules.append(nn.Linear((inputs, *self.hidden_layers)[-1], outputs))
        return nn.Sequential(*modules)

    def parameter_count(self, inputs: int, outputs: int) -> int:
        """Return the number of weights and biases."""
        return sum((below + 1) * above for below, above in pairwise((inputs, *self.hidden_layers, outputs)))
