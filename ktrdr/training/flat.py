"""All parameters of a network in one vector, and all gradients in another."""

import torch
from torch import Tensor, nn


class FlatParameters:
    """Makes a module's parameters and gradients views of two vectors.

    Clipping and the optimizer then cost a few operations per step rather than a few per parameter tensor, and
    the best epoch is kept by copying one vector.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = list(module.parameters())
        self.vector: Tensor = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self.gradient: Tensor = torch.zeros_like(self.vector)
        first = 0
        for parameter in parameters:
            end = first + parameter.numel()
            parameter.data = self.vector[first:end].view_as(parameter)
            parameter.grad = self.gradient[first:end].view_as(parameter)
            first = end

    def clip_gradient(self, limit: float) -> None:
        """Scale the gradient down to a norm of at most ``limit``."""
        norm = torch.linalg.vector_norm(self.gradient)
        # Without asking whether it is over the limit: the answer would have to come from the device.
        self.gradient.mul_((limit / (norm + 1e-6)).clamp_(max=1.0))
