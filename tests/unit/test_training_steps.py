"""The written-out step against autograd, with the same dropout masks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ktrdr.losses import Loss
from ktrdr.losses.cross_entropy import CrossEntropy
from ktrdr.losses.focal import Focal
from ktrdr.losses.huber import Huber
from ktrdr.networks.mlp import Mlp
from ktrdr.training.flat import FlatParameters
from ktrdr.training.mlp_step import MlpStep
from ktrdr.training.steps import AutogradStep
from ktrdr.training.weighted_loss import WeightedLoss

INPUTS = 6
ROWS = 40


class GivenMask(nn.Module):
    """Stands in for dropout, with masks drawn elsewhere."""

    def __init__(self, masks: Tensor) -> None:
        super().__init__()
        self.masks = masks
        self.rows = slice(0, 0)

    def forward(self, values: Tensor) -> Tensor:
        return values * self.masks[self.rows]


def build(network: Mlp, outputs: int) -> tuple[nn.Sequential, FlatParameters]:
    torch.manual_seed(11)
    module = network.build(INPUTS, outputs)
    assert isinstance(module, nn.Sequential)
    return module, FlatParameters(module)


def batch(loss: Loss) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(ROWS, INPUTS, generator=generator)
    if loss.output_format == "regression":
        return inputs, torch.randn(ROWS, generator=generator) * 0.01
    return inputs, torch.randint(0, 3, (ROWS,), generator=generator)


CASES: list[tuple[dict[str, Any], Loss]] = [
    ({"hidden_layers": (8, 5)}, Focal()),
    ({"hidden_layers": (8, 5), "dropout": 0.0}, Focal()),
    ({"hidden_layers": (8, 5), "dropout": 0.5}, CrossEntropy()),
    ({"hidden_layers": (8,), "activation": "tanh"}, Focal()),
    ({"hidden_layers": (8, 7, 6), "activation": "sigmoid"}, CrossEntropy()),
    ({"hidden_layers": (8, 5), "activation": "leaky_relu"}, Focal()),
    ({"hidden_layers": (8, 5)}, Huber()),
    ({"hidden_layers": ()}, CrossEntropy()),
]


@pytest.mark.parametrize(("architecture", "loss"), CASES, ids=repr)
def test_the_written_step_does_what_autograd_does(architecture: dict[str, Any], loss: Loss) -> None:
    network = Mlp(**architecture)
    outputs = 1 if loss.output_format == "regression" else 3
    weights = None if outputs == 1 else torch.tensor([0.5, 1.5, 1.0])
    weighted = WeightedLoss(loss, weights)

    module, flat = build(network, outputs)
    fast = MlpStep(network, module, weighted, torch.Generator().manual_seed(3))
    optimizer = torch.optim.Adam([flat.vector], lr=0.01, weight_decay=1e-4)

    reference, reference_flat = build(network, outputs)
    generator = torch.Generator().manual_seed(3)
    dropouts = []
    if network.dropout:
        widths = iter(network.hidden_layers)
        for number, layer in enumerate(reference):
            if isinstance(layer, nn.Dropout):
                masks = torch.empty(ROWS, next(widths)).bernoulli_(1 - network.dropout, generator=generator)
                dropouts.append(GivenMask(masks / (1 - network.dropout)))
                reference[number] = dropouts[-1]
    slow = AutogradStep(reference, reference_flat, weighted)
    reference_optimizer = torch.optim.Adam([reference_flat.vector], lr=0.01, weight_decay=1e-4)

    inputs, targets = batch(loss)
    fast.begin(ROWS)
    slow.begin(ROWS)
    for first in range(0, ROWS, 16):  # batches of 16, 16 and 8
        rows = slice(first, min(first + 16, ROWS))
        for dropout in dropouts:
            dropout.rows = rows
        found, expected = torch.empty(rows.stop - first, outputs), torch.empty(rows.stop - first, outputs)
        with slow.grad_mode():
            slow(inputs[rows], targets[rows], expected)
            reference_flat.clip_gradient(0.5)
            reference_optimizer.step()
        with fast.grad_mode():
            fast(inputs[rows], targets[rows], found)
            flat.clip_gradient(0.5)
            optimizer.step()
        assert reference_flat.gradient.abs().max() > 0
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(flat.gradient, reference_flat.gradient, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(flat.vector, reference_flat.vector, rtol=1e-4, atol=2e-5)


def test_dropout_masks_keep_the_mean_and_are_drawn_anew() -> None:
    network = Mlp(hidden_layers=(200,), dropout=0.25)
    module, flat = build(network, 3)
    step = MlpStep(network, module, WeightedLoss(Focal(), None), torch.Generator().manual_seed(1))
    with step.grad_mode():
        flat.vector[-(3 * 200 + 3) :] = 1  # every output adds all hidden units up
        flat.vector[: INPUTS * 200] = 0  # so that every hidden unit is its bias
        flat.vector[INPUTS * 200 : (INPUTS + 1) * 200] = 1
        seen = []
        for _ in range(2):
            outputs = torch.empty(50, 3)
            step.begin(50)
            step(torch.zeros(50, INPUTS), torch.zeros(50, dtype=torch.int64), outputs)
            seen.append(outputs[:, 0])
    assert not torch.equal(seen[0], seen[1])
    assert torch.cat(seen).mean().item() == pytest.approx(201, rel=0.01)


def test_parameters_and_gradients_are_views_of_two_vectors() -> None:
    module, flat = build(Mlp(hidden_layers=(4,)), 3)
    flat.vector.fill_(2.0)
    flat.gradient.fill_(3.0)
    for parameter in module.parameters():
        assert (parameter == 2).all()
        assert parameter.grad is not None
        assert (parameter.grad == 3).all()


def test_a_gradient_is_clipped_by_its_norm_and_a_small_one_is_left_alone() -> None:
    _, flat = build(Mlp(hidden_layers=(4,)), 3)
    flat.gradient.fill_(1.0)
    direction = flat.gradient / flat.gradient.norm()
    flat.clip_gradient(0.5)
    torch.testing.assert_close(flat.gradient, direction * 0.5)
    flat.clip_gradient(100.0)
    torch.testing.assert_close(flat.gradient, direction * 0.5)
