"""The optimizers and schedules against those of torch."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from ktrdr.losses.focal import Focal
from ktrdr.models.metadata import EpochRecord
from ktrdr.strategy import DataSplit, LrScheduler, Optimizer, TrainingOptions
from ktrdr.training.flat import FlatParameters
from ktrdr.training.optimizers import make_optimizer
from ktrdr.training.schedules import Schedule

OPTIONS = TrainingOptions(
    epochs=10,
    learning_rate=0.01,
    batch_size=32,
    loss=Focal(),
    optimizer="adam",
    weight_decay=0.0,
    momentum=0.0,
    gradient_clip=None,
    early_stopping=None,
    lr_scheduler=None,
    data_split=DataSplit(),
)
SCHEDULER = LrScheduler(type="step", step_size=3, gamma=0.5, factor=0.1, patience=2)

REFERENCES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_optimizer_does_what_that_of_torch_does(
    name: Optimizer, weight_decay: float, momentum: float
) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(5, 3).double()
    expected = torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])
    extra = {"momentum": momentum} if name in ("sgd", "rmsprop") else {}
    reference = REFERENCES[name]([expected], lr=0.01, weight_decay=weight_decay, **extra)

    flat = FlatParameters(layer)
    options = replace(OPTIONS, optimizer=name, weight_decay=weight_decay, momentum=momentum)
    optimizer = make_optimizer(options, flat)
    for step in range(20):
        gradient = torch.randn_like(expected)
        expected.grad = gradient.clone()
        flat.gradient.copy_(gradient)
        if step == 10:
            optimizer.learning_rate = 0.002
            reference.param_groups[0]["lr"] = 0.002
        reference.step()
        optimizer.step()
        torch.testing.assert_close(flat.vector, expected, rtol=1e-12, atol=1e-14)


# With two plateaus, on the second of which it falls by less than counts.
LOSSES = [1.0, 0.9, 0.95, 0.9, 0.90001, 0.91, 0.8999999, 0.8, 0.79999, 0.79998, 0.79997, 0.79996, 0.7, 0.71]


@pytest.mark.parametrize(
    ("scheduler", "make"),
    [
        (SCHEDULER, lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=3, gamma=0.5)),
        (
            replace(SCHEDULER, type="exponential", gamma=0.9),
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.9),
        ),
        (
            replace(SCHEDULER, type="reduce_on_plateau"),
            lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.1, patience=2),
        ),
    ],
    ids=["step", "exponential", "reduce_on_plateau"],
)
def test_a_schedule_does_what_that_of_torch_does(
    scheduler: LrScheduler, make: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
) -> None:
    reference_optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01)
    reference = make(reference_optimizer)
    optimizer = make_optimizer(OPTIONS, FlatParameters(nn.Linear(1, 1)))
    schedule = Schedule(scheduler, optimizer)
    rates = []
    for epoch, val_loss in enumerate(LOSSES, start=1):
        reference_optimizer.step()
        if isinstance(reference, torch.optim.lr_scheduler.ReduceLROnPlateau):
            reference.step(val_loss)
        else:
            reference.step()
        schedule.after(EpochRecord(epoch=epoch, train_loss=1.0, val_loss=val_loss, learning_rate=0.01))
        rates.append(optimizer.learning_rate)
        assert optimizer.learning_rate == pytest.approx(reference_optimizer.param_groups[0]["lr"])
    assert rates[-1] < 0.01 / 2


def test_without_a_schedule_the_rate_is_constant() -> None:
    optimizer = make_optimizer(OPTIONS, FlatParameters(nn.Linear(1, 1)))
    Schedule(None, optimizer).after(EpochRecord(epoch=1, train_loss=1, val_loss=1, learning_rate=0.01))
    assert optimizer.learning_rate == 0.01
