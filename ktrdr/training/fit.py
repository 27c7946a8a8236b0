"""The training loop."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ktrdr.errors import DivergedError
from ktrdr.models.inference import rows_at_a_time
from ktrdr.models.metadata import EpochRecord
from ktrdr.networks import Network
from ktrdr.networks.mlp import Mlp
from ktrdr.strategy.strategy import TrainingOptions
from ktrdr.training.best_epoch import BestEpoch
from ktrdr.training.flat import FlatParameters
from ktrdr.training.mlp_step import MlpStep
from ktrdr.training.optimizers import Optimizer, make_optimizer
from ktrdr.training.reporting import Reporter
from ktrdr.training.reproducibility import Randomness
from ktrdr.training.samples import RowOrder, Samples
from ktrdr.training.schedules import Schedule
from ktrdr.training.steps import AutogradStep, Step
from ktrdr.training.weighted_loss import WeightedLoss

_BLOCK_ROWS = 8192
"""Samples that are gathered, and whose dropout masks are drawn, at once: few, so as to need little memory."""
_BLOCK_VALUES = 4 * 1024 * 1024
"""Likewise where each is a window of many rows."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be learnt."""

    train: Samples
    validation: Samples
    """Decides which epoch is the best."""
    outputs: int
    """Classes, or 1 for regression."""
    loss: WeightedLoss


@dataclass(frozen=True, slots=True)
class Fit:
    """How the training went; the weights are in the module."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    """1-based; the epoch whose weights the module has."""
    stopped_early: bool


def fit(
    network: Network,
    module: nn.Module,
    task: Task,
    options: TrainingOptions,
    randomness: Randomness,
    reporter: Reporter,
) -> Fit:
    """Train a module in place, and leave it with the weights of its best epoch.

    Args:
        network: what the module was built by.
        module: on the device of the samples.
        task: the samples and the loss.
        options: of the strategy.
        randomness: the order of rows, and dropout.
        reporter: is told of batches and epochs, and stops the loop when the training is cancelled.

    Raises:
        DivergedError: a loss is not finite.
        TrainingCancelledError: the reporter was asked to stop.
    """
    flat = FlatParameters(module)
    step = _step_for(network, module, flat, task.loss, randomness)
    optimizer = make_optimizer(options, flat)
    schedule = Schedule(options.lr_scheduler, optimizer)
    best = BestEpoch(options.early_stopping)
    history: list[EpochRecord] = []
    rows = len(task.train)
    reporter.begin_epochs(options.epochs, math.ceil(rows / options.batch_size))
    row_order = RowOrder(task.train, randomness.order)

    with step.grad_mode():
        for epoch in range(1, options.epochs + 1):
            order = row_order.draw()
            outputs = _train(step, flat, optimizer, task, order, options, reporter)
            train_loss, train_accuracy = _judge(task, outputs, task.train.targets[order])
            outputs = _forward(module, task, reporter)
            val_loss, val_accuracy = _judge(task, outputs, task.validation.targets)
            _require_finite(epoch, train_loss, val_loss)
            record = EpochRecord(
                epoch=epoch,
                train_loss=train_loss,
                val_loss=val_loss,
                train_accuracy=train_accuracy,
                val_accuracy=val_accuracy,
                learning_rate=optimizer.learning_rate,
            )
            history.append(record)
            reporter.epoch_done(record)
            best.offer(record, flat.vector)
            if best.exhausted:
                break
            schedule.after(record)
        best.restore(flat.vector)
    return Fit(tuple(history), best.epoch, stopped_early=len(history) < options.epochs)


def _train(
    step: Step,
    flat: FlatParameters,
    optimizer: Optimizer,
    task: Task,
    order: Tensor,
    options: TrainingOptions,
    reporter: Reporter,
) -> Tensor:
    """Make one pass over the training rows, and return the outputs (row, output) in the order of the rows.

    The outputs are kept rather than the losses: one loss of them all, at the end, costs less than adding up
    one per batch.
    """
    size = options.batch_size
    block_rows = max(1, min(_BLOCK_ROWS, _BLOCK_VALUES // task.train.values_per_sample) // size) * size
    outputs = task.train.table.new_empty(len(order), task.outputs)
    batch = 0
    for block, block_outputs in zip(
        torch.split(order, block_rows), torch.split(outputs, block_rows), strict=True
    ):
        step.begin(len(block))
        for batch_inputs, batch_targets, batch_outputs in zip(
            torch.split(task.train.inputs(block), size),
            torch.split(task.train.targets[block], size),
            torch.split(block_outputs, size),
            strict=True,
        ):
            step(batch_inputs, batch_targets, batch_outputs)
            if options.gradient_clip is not None:
                flat.clip_gradient(options.gradient_clip)
            optimizer.step()
            batch += 1
            reporter.batch_done(batch)
    return outputs


def _forward(module: nn.Module, task: Task, reporter: Reporter) -> Tensor:
    """Return the outputs of the validation rows, without dropout."""
    module.eval()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    numbers = torch.arange(len(task.validation), device=task.validation.table.device)
    outputs = []
    for some in torch.split(numbers, rows_at_a_time(parameters, task.validation.window)):
        reporter.check()
        outputs.append(module(task.validation.inputs(some)))
    return torch.cat(outputs)


def _judge(task: Task, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the mean loss, and the share of right classes or of right signs."""
    loss = float(task.loss.mean(outputs, targets))
    if targets.is_floating_point():
        right = outputs.squeeze(1).sign() == targets.sign()
    else:
        right = outputs.argmax(1) == targets
    return loss, float(right.float().mean())


def _step_for(
    network: Network, module: nn.Module, flat: FlatParameters, loss: WeightedLoss, randomness: Randomness
) -> Step:
    if isinstance(network, Mlp):
        return MlpStep(network, module, loss, randomness.dropout)
    return AutogradStep(module, flat, loss)


def _require_finite(epoch: int, train_loss: float, val_loss: float) -> None:
    for name, loss in (("training", train_loss), ("validation", val_loss)):
        if not math.isfinite(loss):
            raise DivergedError(
                f"The {name} loss became {loss} in epoch {epoch}.",
                fix="Lower training.learning_rate, set training.gradient_clip, or normalize raw features.",
            )
