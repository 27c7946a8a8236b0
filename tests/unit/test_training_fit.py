"""The training loop on plain tensors."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ktrdr.clock import SystemClock
from ktrdr.errors import DivergedError, TrainingCancelledError
from ktrdr.losses import Loss
from ktrdr.losses.focal import Focal
from ktrdr.losses.huber import Huber
from ktrdr.networks import Network
from ktrdr.networks.mlp import Mlp
from ktrdr.strategy import DataSplit, EarlyStopping, LrScheduler, TrainingOptions
from ktrdr.training.best_epoch import BestEpoch
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.fit import Fit, Task, fit
from ktrdr.training.progress import Observer, Progress, SilentObserver, Stage
from ktrdr.training.reporting import Reporter
from ktrdr.training.reproducibility import reproducible
from ktrdr.training.samples import Samples
from ktrdr.training.weighted_loss import WeightedLoss

FEATURES = 4
OPTIONS = TrainingOptions(
    epochs=8,
    learning_rate=0.01,
    batch_size=32,
    loss=Focal(),
    optimizer="adam",
    weight_decay=0.0001,
    momentum=0.0,
    gradient_clip=1.0,
    early_stopping=None,
    lr_scheduler=None,
    data_split=DataSplit(),
)
NETWORK = Mlp(hidden_layers=(16, 8))


class Autograd(Network):
    """A network that the written-out step does not know: the same layers, trained by autograd."""

    of: Mlp

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return self.of.build(inputs, outputs)

    def parameter_count(self, inputs: int, outputs: int) -> int:
        return self.of.parameter_count(inputs, outputs)


def samples(rows: int, seed: int, *, regression: bool = False) -> Samples:
    """Rows whose class is told by which of three features is largest."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, FEATURES, generator=generator)
    if regression:
        return Samples(inputs, torch.arange(rows), inputs[:, 0] * 0.01)
    return Samples(inputs, torch.arange(rows), inputs[:, :3].argmax(1))


def task(rows: int = 500, *, loss: Loss | None = None) -> Task:
    regression = isinstance(loss, Huber)
    return Task(
        train=samples(rows, 1, regression=regression),
        validation=samples(200, 2, regression=regression),
        outputs=1 if regression else 3,
        loss=WeightedLoss(loss or Focal(), None),
    )


def run(
    network: Network = NETWORK,
    task: Task | None = None,
    options: TrainingOptions = OPTIONS,
    seed: int = 3,
    observer: Observer | None = None,
    cancellation: ManualCancellation | None = None,
) -> tuple[Fit, nn.Module]:
    task = task or globals()["task"]()
    reporter = Reporter(observer or SilentObserver(), cancellation or ManualCancellation(), SystemClock())
    with reproducible(seed, device=torch.device("cpu"), threads=1) as randomness, reporter.stage(Stage.TRAIN):
        module = network.build(FEATURES, task.outputs)
        return fit(network, module, task, options, randomness, reporter), module


def weights(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach()


@pytest.mark.parametrize("network", [NETWORK, Autograd(of=NETWORK)], ids=["written out", "autograd"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_what_can_be_learnt_is_learnt(network: Network, optimizer: Any) -> None:
    rate = 0.1 if optimizer == "sgd" else 0.01
    options = replace(OPTIONS, optimizer=optimizer, momentum=0.9, learning_rate=rate, epochs=12)
    if optimizer == "rmsprop":
        options = replace(options, momentum=0.0)
    fitted, _ = run(network, options=options)
    best = fitted.history[fitted.best_epoch - 1]
    assert best.val_loss < 0.5 * fitted.history[0].train_loss
    assert best.val_accuracy is not None
    assert best.val_accuracy > 0.85


def test_a_regression_is_learnt() -> None:
    fitted, _ = run(task=task(loss=Huber()), options=replace(OPTIONS, epochs=30, loss=Huber()))
    assert fitted.history[-1].val_accuracy is not None
    assert fitted.history[-1].val_accuracy > 0.8  # of signs


def test_both_steps_train_the_same_network_alike() -> None:
    network = Mlp(hidden_layers=(16, 8), dropout=0.0)
    options = replace(OPTIONS, epochs=2)
    fast, fast_module = run(network, options=options)
    slow, slow_module = run(Autograd(of=network), options=options)
    torch.testing.assert_close(weights(fast_module), weights(slow_module), rtol=1e-3, atol=1e-4)
    for one, other in zip(fast.history, slow.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-4)


@pytest.mark.parametrize("network", [NETWORK, Autograd(of=NETWORK)], ids=["written out", "autograd"])
def test_the_seed_decides_everything(network: Network) -> None:
    first, first_module = run(network)
    torch.rand(5)
    second, second_module = run(network)
    other, other_module = run(network, seed=4)
    assert first.history == second.history
    assert torch.equal(weights(first_module), weights(second_module))
    assert first.history != other.history
    assert not torch.equal(weights(first_module), weights(other_module))


class _WeightsOfEachEpoch:
    """Keeps a copy of the weights at the end of each epoch."""

    def __init__(self) -> None:
        self.module: nn.Module | None = None
        self.seen: list[Tensor] = []

    def on_progress(self, progress: Progress) -> None:
        if progress.epoch > len(self.seen) and self.module is not None:
            self.seen.append(weights(self.module).clone())


def test_the_weights_are_those_of_the_best_epoch_and_not_of_the_last() -> None:
    # Labels without a pattern: the longer it trains, the worse it does on the validation part.
    generator = torch.Generator().manual_seed(9)
    noise = Task(
        train=Samples(
            torch.randn(200, FEATURES, generator=generator),
            torch.arange(200),
            torch.randint(0, 3, (200,), generator=generator),
        ),
        validation=samples(200, 2),
        outputs=3,
        loss=WeightedLoss(Focal(), None),
    )
    observer = _WeightsOfEachEpoch()
    options = replace(OPTIONS, epochs=30, batch_size=16)

    class Watched(Network):
        def build(self, inputs: int, outputs: int) -> nn.Module:
            observer.module = NETWORK.build(inputs, outputs)
            return observer.module

        def parameter_count(self, inputs: int, outputs: int) -> int:
            return NETWORK.parameter_count(inputs, outputs)

    fitted, module = run(Watched(), noise, options, observer=observer)
    losses = [record.val_loss for record in fitted.history]
    assert fitted.best_epoch == losses.index(min(losses)) + 1
    assert fitted.best_epoch < 30
    assert len(observer.seen) == 30
    assert torch.equal(weights(module), observer.seen[fitted.best_epoch - 1])
    assert not torch.equal(weights(module), observer.seen[-1])


def test_training_stops_when_patience_is_over() -> None:
    # With a rate of nearly nothing no epoch is better by min_delta than the first.
    stopping = EarlyStopping(patience=3, min_delta=0.001, monitor="val_loss")
    options = replace(OPTIONS, epochs=50, learning_rate=1e-9, early_stopping=stopping)
    fitted, _ = run(options=options)
    assert fitted.stopped_early
    assert len(fitted.history) == 4


def test_training_that_goes_on_to_its_last_epoch_did_not_stop_early() -> None:
    stopping = EarlyStopping(patience=30, min_delta=0.0, monitor="val_accuracy")
    fitted, _ = run(options=replace(OPTIONS, early_stopping=stopping))
    assert not fitted.stopped_early
    assert len(fitted.history) == OPTIONS.epochs


def _records(losses: list[float], accuracies: list[float]) -> list[Any]:
    from ktrdr.models.metadata import EpochRecord

    return [
        EpochRecord(epoch=epoch, train_loss=1, val_loss=loss, val_accuracy=accuracy, learning_rate=0.1)
        for epoch, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), start=1)
    ]


@pytest.mark.parametrize(
    ("stopping", "best", "stops_after"),
    [
        (None, 5, None),
        (EarlyStopping(patience=2, min_delta=0.0, monitor="val_loss"), 2, 4),
        (EarlyStopping(patience=3, min_delta=0.0, monitor="val_loss"), 5, None),
        # 0.8 is better than 0.9, but not by min_delta: the best epoch, and yet no reason to go on.
        (EarlyStopping(patience=3, min_delta=0.2, monitor="val_loss"), 2, 4),
        (EarlyStopping(patience=2, min_delta=0.0, monitor="val_accuracy"), 3, 5),
    ],
)
def test_the_best_epoch_and_the_end_of_patience(
    stopping: EarlyStopping | None, best: int, stops_after: int | None
) -> None:
    found = BestEpoch(stopping)
    vector = torch.zeros(1)
    for record in _records([0.9, 0.8, 0.85, 0.81, 0.7], [0.3, 0.4, 0.5, 0.4, 0.45]):
        vector.fill_(record.epoch)
        found.offer(record, vector)
        if found.exhausted:
            break
    assert found.epoch == best
    assert (record.epoch if found.exhausted else None) == stops_after
    found.restore(vector)
    assert vector.item() == best


def test_the_learning_rate_of_each_epoch_is_in_the_history() -> None:
    schedule = LrScheduler(type="step", step_size=2, gamma=0.5, factor=0.5, patience=1)
    fitted, _ = run(options=replace(OPTIONS, lr_scheduler=schedule, epochs=5))
    assert [record.learning_rate for record in fitted.history] == pytest.approx(
        [0.01, 0.01, 0.005, 0.005, 0.0025]
    )


@pytest.mark.parametrize("network", [NETWORK, Autograd(of=NETWORK)], ids=["written out", "autograd"])
@pytest.mark.parametrize("gradient_clip", [None, 1.0])
def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_epoch(
    network: Network, gradient_clip: float | None
) -> None:
    options = replace(OPTIONS, learning_rate=1e30, optimizer="sgd", gradient_clip=gradient_clip)
    with pytest.raises(DivergedError, match=r"became (nan|inf) in epoch \d") as caught:
        run(network, options=options)
    assert "learning_rate" in (caught.value.fix or "")


def recording(seen: list[Tensor], draws: int = 0) -> Network:
    """Return a network that keeps the first feature of each training batch, and draws numbers when built."""

    class Recording(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.rand(draws)
            self.weight = nn.Parameter(torch.zeros(1, 3))

        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                seen.append(inputs[:, 0])
            return inputs[:, :1] * self.weight

    class RecordingNetwork(Network):
        def build(self, inputs: int, outputs: int) -> nn.Module:
            return Recording()

        def parameter_count(self, inputs: int, outputs: int) -> int:
            return 3

    return RecordingNetwork()


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 8192, 8193, 10000])
@pytest.mark.parametrize("batch_size", [32, 9000])
def test_every_row_is_used_once_per_epoch(rows: int, batch_size: int) -> None:
    seen: list[Tensor] = []
    numbered = torch.arange(rows, dtype=torch.float32).unsqueeze(1)
    given = Task(
        train=Samples(numbered, torch.arange(rows), torch.zeros(rows, dtype=torch.int64)),
        validation=Samples(numbered, torch.arange(1), torch.zeros(1, dtype=torch.int64)),
        outputs=3,
        loss=WeightedLoss(Focal(), None),
    )
    run(recording(seen), given, replace(OPTIONS, epochs=1, batch_size=batch_size))
    assert all(len(batch) <= batch_size for batch in seen)
    order = torch.cat(seen)
    assert torch.equal(order.sort().values, numbered[:, 0])
    if rows > 100:
        assert not torch.equal(order, numbered[:, 0])


def test_the_order_of_rows_does_not_depend_on_what_else_is_drawn() -> None:
    few: list[Tensor] = []
    many: list[Tensor] = []
    run(recording(few, draws=1), options=replace(OPTIONS, epochs=2))
    run(recording(many, draws=1000), options=replace(OPTIONS, epochs=2))
    assert torch.equal(torch.cat(few), torch.cat(many))


def test_a_cancellation_takes_effect_within_the_epoch() -> None:
    cancellation = ManualCancellation()

    class CancelInThirdEpoch:
        def on_progress(self, progress: Progress) -> None:
            if progress.epoch == 2:
                cancellation.cancel()

    with pytest.raises(TrainingCancelledError) as caught:
        run(options=replace(OPTIONS, epochs=1000), observer=CancelInThirdEpoch(), cancellation=cancellation)
    assert caught.value.epoch == 2
