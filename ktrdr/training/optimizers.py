"""Optimizers of one flat vector, by the formulas of `torch.optim`.

Those of `torch.optim` import a compiler when the first is made (1 s and 115 MB in torch 2.13) and take longer
per step than the few operations that one vector needs.
"""

import math
from typing import Protocol

import torch

from ktrdr.strategy.strategy import TrainingOptions
from ktrdr.training.flat import FlatParameters

_EPSILON = 1e-8


class Optimizer(Protocol):
    """Changes the parameters after each batch."""

    learning_rate: float
    """May be changed between steps."""

    def step(self) -> None:
        """Move the parameters by their gradient, which is used up."""


def make_optimizer(options: TrainingOptions, flat: FlatParameters) -> Optimizer:
    """Return the optimizer that a strategy names."""
    rate, decay = options.learning_rate, options.weight_decay
    match options.optimizer:
        case "adam":
            return Adam(flat, rate, decay, decoupled=False)
        case "adamw":
            return Adam(flat, rate, decay, decoupled=True)
        case "sgd":
            return Sgd(flat, rate, decay, options.momentum)
        case "rmsprop":
            return RmsProp(flat, rate, decay, options.momentum)


class Adam:
    """Adam, with weight decay in the gradient or decoupled from it (AdamW).

    Source: Kingma & Ba, "Adam" (2015), algorithm 1; Loshchilov & Hutter, "Decoupled Weight Decay
    Regularization" (2019), algorithm 2.
    """

    def __init__(
        self, flat: FlatParameters, learning_rate: float, weight_decay: float, *, decoupled: bool
    ) -> None:
        self.learning_rate = learning_rate
        self._flat = flat
        self._weight_decay = weight_decay
        self._decoupled = decoupled
        self._mean = torch.zeros_like(flat.vector)
        self._square = torch.zeros_like(flat.vector)
        self._steps = 0

    def step(self) -> None:
        """Move the parameters."""
        vector, gradient = self._flat.vector, self._flat.gradient
        self._steps += 1
        if self._weight_decay:
            if self._decoupled:
                vector.mul_(1 - self.learning_rate * self._weight_decay)
            else:
                gradient.add_(vector, alpha=self._weight_decay)
        self._mean.lerp_(gradient, 1 - 0.9)
        self._square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        scale = self._square.sqrt().div_(math.sqrt(1 - 0.999**self._steps)).add_(_EPSILON)
        vector.addcdiv_(self._mean, scale, value=-self.learning_rate / (1 - 0.9**self._steps))


class Sgd:
    """Stochastic gradient descent with momentum."""

    def __init__(
        self, flat: FlatParameters, learning_rate: float, weight_decay: float, momentum: float
    ) -> None:
        self.learning_rate = learning_rate
        self._flat = flat
        self._weight_decay = weight_decay
        self._momentum = momentum
        self._velocity = torch.zeros_like(flat.vector)

    def step(self) -> None:
        """Move the parameters."""
        vector, gradient = self._flat.vector, self._flat.gradient
        if self._weight_decay:
            gradient.add_(vector, alpha=self._weight_decay)
        self._velocity.mul_(self._momentum).add_(gradient)
        vector.add_(self._velocity, alpha=-self.learning_rate)


class RmsProp:
    """RMSprop with momentum.

    Source: Hinton, "Neural Networks for Machine Learning" (2012), lecture 6e; decay rate 0.99.
    """

    def __init__(
        self, flat: FlatParameters, learning_rate: float, weight_decay: float, momentum: float
    ) -> None:
        self.learning_rate = learning_rate
        self._flat = flat
        self._weight_decay = weight_decay
        self._momentum = momentum
        self._square = torch.zeros_like(flat.vector)
        self._velocity = torch.zeros_like(flat.vector)

    def step(self) -> None:
        """Move the parameters."""
        vector, gradient = self._flat.vector, self._flat.gradient
        if self._weight_decay:
            gradient.add_(vector, alpha=self._weight_decay)
        self._square.mul_(0.99).addcmul_(gradient, gradient, value=1 - 0.99)
        self._velocity.mul_(self._momentum).addcdiv_(gradient, self._square.sqrt().add_(_EPSILON))
        vector.add_(self._velocity, alpha=-self.learning_rate)
