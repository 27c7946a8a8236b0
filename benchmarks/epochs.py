"""One epoch of each type of network against a plain PyTorch loop that trains the same module."""

import statistics
from dataclasses import dataclass

import torch

from benchmarks.measure import Result, alternate
from benchmarks.plain_loop import train_plainly
from ktrdr.clock import SystemClock
from ktrdr.losses.focal import Focal
from ktrdr.networks import Network
from ktrdr.networks.mlp import Mlp
from ktrdr.networks.recurrent import Gru, Lstm
from ktrdr.networks.transformer import Transformer
from ktrdr.strategy import DataSplit, TrainingOptions
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.fit import Task, fit
from ktrdr.training.progress import SilentObserver, Stage
from ktrdr.training.reporting import Reporter
from ktrdr.training.reproducibility import reproducible
from ktrdr.training.samples import Samples
from ktrdr.training.weighted_loss import WeightedLoss

_ROWS, _VALIDATION_ROWS, _FEATURES, _CLASSES = 4_285, 918, 12, 3
_BATCH = 32


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    network: Network
    epochs: int
    """So many in each turn: an epoch of an MLP is too short to time."""
    at_most: float | None
    """Of the baseline's time; None where no target was set."""


_CASES = (
    _Case("MLP 12-64-32-3", Mlp(hidden_layers=(64, 32)), 10, 0.25),
    _Case("MLP 12-32-16-3", Mlp(hidden_layers=(32, 16)), 10, 0.25),
    _Case("LSTM, 20 bars, 32 units", Lstm(sequence_length=20, hidden_size=32, num_layers=1), 2, None),
    _Case("LSTM, 20 bars, 2 x 64 units", Lstm(sequence_length=20), 1, None),
    _Case("GRU, 20 bars, 32 units", Gru(sequence_length=20, hidden_size=32, num_layers=1), 2, None),
    _Case("Transformer, 20 bars", Transformer(sequence_length=20), 1, None),
)


def measure() -> list[Result]:
    torch.set_num_threads(1)
    return [_measure(case) for case in _CASES]


def _measure(case: _Case) -> Result:
    window = case.network.window
    generator = torch.Generator().manual_seed(7)
    table = torch.rand(_ROWS + _VALIDATION_ROWS + window - 1, _FEATURES, generator=generator)
    targets = torch.randint(_CLASSES, (_ROWS + _VALIDATION_ROWS,), generator=generator)
    ends = torch.arange(window - 1, len(table))
    train = Samples(table, ends[:_ROWS], targets[:_ROWS], window)
    validation = Samples(table, ends[_ROWS:], targets[_ROWS:], window)
    weights = _ROWS / (_CLASSES * torch.bincount(train.targets, minlength=_CLASSES).float())
    options = TrainingOptions(
        epochs=case.epochs,
        learning_rate=1e-3,
        batch_size=_BATCH,
        loss=Focal(),
        optimizer="adam",
        weight_decay=1e-4,
        momentum=0.0,
        gradient_clip=1.0,
        early_stopping=None,
        lr_scheduler=None,
        data_split=DataSplit(),
    )

    def ours() -> None:
        with reproducible(7, device=torch.device("cpu"), threads=1) as randomness:
            module = case.network.build(_FEATURES, _CLASSES)
            task = Task(train, validation, _CLASSES, WeightedLoss(Focal(), weights))
            reporter = Reporter(SilentObserver(), ManualCancellation(), SystemClock())
            with reporter.stage(Stage.TRAIN):
                fit(case.network, module, task, options, randomness, reporter)

    # The windows that it is given are made before its time begins.
    inputs, validation_inputs = (
        part.inputs(torch.arange(len(part))).contiguous() for part in (train, validation)
    )

    def plain() -> None:
        train_plainly(
            lambda: case.network.build(_FEATURES, _CLASSES),
            inputs,
            train.targets,
            validation_inputs,
            validation.targets,
            epochs=case.epochs,
            batch_size=_BATCH,
            gamma=2.0,
        )

    ours_s, plain_s = (statistics.median(each) / case.epochs for each in alternate(ours, plain))
    met = case.at_most is None or ours_s <= case.at_most * plain_s
    target = "" if case.at_most is None else f"≤ {case.at_most}"
    return Result(f"one epoch, {case.name}", ours_s, "plain PyTorch loop", plain_s, target, met)
