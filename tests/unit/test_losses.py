import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from ktrdr.losses import LOSSES, Loss
from ktrdr.losses.cross_entropy import CrossEntropy
from ktrdr.losses.focal import Focal
from ktrdr.losses.huber import Huber
from ktrdr.losses.mse import MeanSquaredError

WEIGHTS = torch.tensor([0.4, 1.9, 0.7], dtype=torch.float64)

CASES: list[tuple[Loss, Tensor | None]] = [
    (CrossEntropy(), None),
    (CrossEntropy(), WEIGHTS),
    *((Focal(gamma=gamma), weights) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0) for weights in (None, WEIGHTS)),
    (Huber(), None),
    (Huber(delta=1.0), None),
    (MeanSquaredError(), None),
]


def batch(loss: Loss, rows: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if loss.output_format == "regression":
        outputs = torch.randn(rows, 1, dtype=torch.float64, generator=generator) * spread
        return outputs, torch.randn(rows, dtype=torch.float64, generator=generator) * 0.01
    outputs = torch.randn(rows, 3, dtype=torch.float64, generator=generator) * spread
    return outputs, torch.randint(0, 3, (rows,), generator=generator)


@pytest.mark.parametrize(("loss", "weights"), CASES, ids=repr)
@settings(deadline=None)  # autograd's first use takes its time
@given(rows=st.integers(1, 40), spread=st.sampled_from([0.001, 1.0, 30.0]), seed=st.integers(0, 2**31))
def test_the_written_gradient_is_that_of_autograd(
    loss: Loss, weights: Tensor | None, rows: int, spread: float, seed: int
) -> None:
    outputs, targets = batch(loss, rows, spread, seed)
    tracked = outputs.clone().requires_grad_()
    expected = loss.mean(tracked, targets, weights)
    (expected_gradient,) = torch.autograd.grad(expected, tracked)

    mean, gradient = loss.mean_and_gradient(outputs, targets, weights)

    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("loss", "weights"), CASES, ids=repr)
def test_the_gradient_is_that_of_finite_differences(loss: Loss, weights: Tensor | None) -> None:
    outputs, targets = batch(loss, 5, 1.0, seed=3)
    outputs.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss.mean(values, targets, weights), (outputs,))


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
@pytest.mark.parametrize("weights", [None, WEIGHTS.float()])
def test_extreme_logits_give_finite_losses_and_gradients(
    name: str, size: float, weights: Tensor | None
) -> None:
    for gamma in (0.0, 0.5, 1.0, 2.0):
        loss = Focal(gamma=gamma) if name == "focal" else CrossEntropy()
        outputs = torch.tensor([[size, -size, 0.0], [-size, size, 0.0], [size, size, -size]]).float()
        targets = torch.tensor([0, 0, 2])
        tracked = outputs.clone().requires_grad_()
        loss.mean(tracked, targets, weights).backward()  # type: ignore[no-untyped-call]  # torch's
        mean, gradient = loss.mean_and_gradient(outputs, targets, weights)
        assert mean.isfinite()
        assert gradient.isfinite().all()
        assert tracked.grad is not None
        torch.testing.assert_close(tracked.grad, gradient)


def test_cross_entropy_is_that_of_torch() -> None:
    outputs, targets = batch(CrossEntropy(), 50, 2.0, seed=1)
    for weights in (None, WEIGHTS):
        expected = functional.cross_entropy(outputs, targets, weight=weights)
        torch.testing.assert_close(CrossEntropy().mean(outputs, targets, weights), expected)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    outputs, targets = batch(Focal(), 50, 2.0, seed=1)
    torch.testing.assert_close(
        Focal(gamma=0.0).mean(outputs, targets, None), CrossEntropy().mean(outputs, targets, None)
    )


def test_focal_loss_of_a_hand_worked_row() -> None:
    outputs = torch.tensor([[0.25, 0.75]], dtype=torch.float64).log()
    mean = Focal(gamma=2.0).mean(outputs, torch.tensor([0]), torch.tensor([3.0, 1.0], dtype=torch.float64))
    assert mean.item() == pytest.approx(3 * 0.75**2 * 1.3862943611198906)


def test_huber_loss_is_that_of_torch() -> None:
    outputs, targets = batch(Huber(), 50, 0.02, seed=1)
    expected = functional.huber_loss(outputs.squeeze(1), targets, delta=0.01)
    torch.testing.assert_close(Huber().mean(outputs, targets, None), expected)


def test_mean_squared_error_is_that_of_torch() -> None:
    outputs, targets = batch(MeanSquaredError(), 50, 0.02, seed=1)
    expected = functional.mse_loss(outputs.squeeze(1), targets)
    torch.testing.assert_close(MeanSquaredError().mean(outputs, targets, None), expected)


def test_every_loss_is_tested() -> None:
    assert {LOSSES.name_of(type(loss)) for loss, _ in CASES} == set(LOSSES.names())


def test_a_batch_whose_classes_have_no_weight_has_no_loss() -> None:
    outputs, _ = batch(CrossEntropy(), 4, 1.0, seed=1)
    weights = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    for loss in (CrossEntropy(), Focal()):
        mean, gradient = loss.mean_and_gradient(outputs, torch.ones(4, dtype=torch.int64), weights)
        assert mean == 0
        assert (gradient == 0).all()


def test_losses_are_found_by_name() -> None:
    assert LOSSES.names() == ["cross_entropy", "focal", "huber", "mse"]
    assert LOSSES.get("Focal") is Focal


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("focal", {"gamma": -1.0}),
        ("focal", {"gamma": float("nan")}),
        ("focal", {"gama": 2.0}),
        ("huber", {"delta": 0.0}),
        ("huber", {"delta": float("inf")}),
        ("cross_entropy", {"gamma": 2.0}),
        ("mse", {"delta": 0.01}),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, parameters: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LOSSES.get(name)(**parameters)
