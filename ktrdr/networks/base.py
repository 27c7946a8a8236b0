"""What a network type is: checked architecture parameters and a builder."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ktrdr.parameters import Parameters
from ktrdr.registry import Registry

if TYPE_CHECKING:
    from torch import nn


class Network(Parameters, ABC):
    """The ``model.architecture`` of a strategy.

    Validating a strategy must not import torch (1.5 s), so builders import it when they are called.
    """

    @property
    def window(self) -> int:
        """Consecutive rows that make one input: 1, or a sequence length."""
        return 1

    @abstractmethod
    def build(self, inputs: int, outputs: int) -> "nn.Module":
        """Return the network, freshly initialised from torch's current random state."""

    @abstractmethod
    def parameter_count(self, inputs: int, outputs: int) -> int:
        """Return the number of trainable parameters."""


NETWORKS: Registry[Network] = Registry("model type", Network, "ktrdr.networks")
