"""The executor against a plain PyTorch loop, and against the system that it replaces."""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import JsonValue

from benchmarks.measure import Result, alternate
from benchmarks.plain_loop import plain_mlp, train_plainly
from benchmarks.sample import job
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.progress import SilentObserver, Stage

_EPOCHS = 10
_FORMER_PER_PLAIN = 1.4
"""Seconds per epoch of the former system per second of such a plain loop, measured side by side elsewhere."""


def measure() -> list[Result]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        base = job(Path(home), epochs=_EPOCHS)
        wide: dict[str, JsonValue] = {**base.overrides, "model.architecture.hidden_layers": [64, 32]}
        whole = replace(base, overrides=wide)
        seconds_of_training: list[float] = []

        def execute() -> None:
            manifest = TrainingExecutor().run(whole, SilentObserver(), ManualCancellation()).manifest
            timings = {timing.stage: timing.seconds for timing in manifest.timings}
            seconds_of_training.append(timings[Stage.TRAIN.title])

        rows = TrainingExecutor().run(whole, SilentObserver(), ManualCancellation()).manifest
        generator = torch.Generator().manual_seed(7)
        inputs = torch.rand(rows.train_rows, len(rows.features), generator=generator)
        targets = torch.randint(3, (rows.train_rows,), generator=generator)
        validation_inputs = torch.rand(rows.validation_rows, len(rows.features), generator=generator)
        validation_targets = torch.randint(3, (rows.validation_rows,), generator=generator)

        def plain() -> None:
            train_plainly(
                lambda: plain_mlp(len(rows.features), (64, 32)),
                inputs,
                targets,
                validation_inputs,
                validation_targets,
                epochs=_EPOCHS,
                batch_size=32,
                gamma=2.0,
            )

        executor_s, plain_s = alternate(execute, plain)
    ours, theirs = statistics.median(executor_s), statistics.median(plain_s)
    epoch = statistics.median(seconds_of_training[1:]) / _EPOCHS
    return [
        Result(
            f"executor, all 8 stages, {_EPOCHS} epochs",
            ours,
            "plain PyTorch loop (training alone)",
            theirs,
            "≤ 1.15",
            ours <= 1.15 * theirs,
        ),
        Result(
            f"one epoch ({rows.train_rows:,} rows, 12-64-32-3, batch 32, focal)",
            epoch,
            "one epoch of the plain loop",
            theirs / _EPOCHS,
            "≤ 1.15",
            epoch <= 1.15 * theirs / _EPOCHS,
        ),
        Result(
            "one epoch, the same",
            epoch,
            f"the former system ({_FORMER_PER_PLAIN} x the plain loop)",
            _FORMER_PER_PLAIN * theirs / _EPOCHS,
            "≤ 0.2",
            epoch <= _FORMER_PER_PLAIN * theirs / _EPOCHS / 5,
        ),
    ]
