"""The executor: from a job to a trained model, whoever asks and wherever it runs."""

import numpy as np
import torch

from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import DataError
from ktrdr.features.compute import compute_features, compute_indicators, drop_warmup
from ktrdr.features.normalization import apply_scalings, fit_scalings
from ktrdr.market.bars import Bars
from ktrdr.market.snapshot import read_snapshot
from ktrdr.models.bundle import pack
from ktrdr.models.inference import predict
from ktrdr.strategy import parse_strategy
from ktrdr.strategy.strategy import Strategy
from ktrdr.training.cancellation import CancellationToken
from ktrdr.training.class_balance import balance_classes
from ktrdr.training.device import open_device
from ktrdr.training.evaluation import evaluate
from ktrdr.training.fit import Samples, Task, fit
from ktrdr.training.job import TrainedModel, TrainingJob
from ktrdr.training.labelled_rows import LabelledRows, match
from ktrdr.training.memory import out_of_memory_as_error, peak_memory_bytes, reset_peak_memory
from ktrdr.training.packaging import FinishedTraining, make_files, make_manifest
from ktrdr.training.progress import Observer, Stage
from ktrdr.training.reporting import Reporter
from ktrdr.training.reproducibility import Randomness, reproducible
from ktrdr.training.split import RowNumbers, split_rows
from ktrdr.training.weighted_loss import WeightedLoss


class TrainingExecutor:
    """Trains; knows nothing of buses, HTTP or databases.

    One training at a time in a process: it sets torch's global state, and restores it at the end.

    Args:
        clock: for durations only; nothing that is computed depends on it.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    def run(self, job: TrainingJob, observer: Observer, cancellation: CancellationToken) -> TrainedModel:
        """Train one strategy.

        The same job gives the same bytes, with the same build of torch and on the same kind of device.

        Args:
            job: what to train on what.
            observer: is told of progress, in this thread.
            cancellation: is asked at least every 50 ms of work whether to go on.

        Raises:
            StrategyError: the strategy is wrong.
            DataError: the bars are wrong, or too few for this strategy.
            DivergedError: the loss is not finite any more.
            OutOfMemoryError: of this machine, or of its device.
            TrainingCancelledError: it was asked to stop.
            TrainingError: the device is not available.
        """
        reset_peak_memory()
        device = open_device(job.device)
        reporter = Reporter(observer, cancellation, self._clock)
        with (
            out_of_memory_as_error(),
            reproducible(job.seed, device=device, threads=job.threads) as randomness,
        ):
            return _train(job, device, randomness, reporter)


def _train(
    job: TrainingJob, device: torch.device, randomness: Randomness, reporter: Reporter
) -> TrainedModel:
    with reporter.stage(Stage.LOAD) as note:
        source = f"{job.strategy_name}.yaml"
        parsed = parse_strategy(job.strategy_yaml, source=source, overrides=job.overrides)
        strategy = parsed.strategy
        plan, classes, loss = strategy.feature_plan, strategy.label.classes, strategy.training.loss
        bars = _read_bars(job, strategy, reporter)
        base = bars[strategy.base_timeframe]
        note(rows=len(base), timeframes=list(bars), symbol=strategy.symbol)

    with reporter.stage(Stage.INDICATORS) as note:
        values = compute_indicators(plan, bars, reporter.check)
        note(indicators=len(plan.indicators), outputs=len(values))

    with reporter.stage(Stage.MEMBERSHIPS) as note:
        matrix = compute_features(plan, values, bars, reporter.check)
        matrix, warmup_rows = drop_warmup(matrix)
        note(rows=len(matrix.times), columns=len(plan.columns), warmup_rows_dropped=warmup_rows)

    with reporter.stage(Stage.LABELS) as note:
        labels = strategy.label.compute(base, reporter.check)
        rows = match(matrix, labels, base)
        note(source=strategy.label_source, labels=len(labels.times), rows=len(rows))

    with reporter.stage(Stage.SPLIT) as note:
        shares = strategy.training.data_split
        split = split_rows(rows.times, rows.known_at, shares.train, shares.validation)
        scalings = fit_scalings(plan, rows.inputs[split.train], slice(None))
        apply_scalings(plan.feature_ids, rows.inputs, scalings)
        balance = balance_classes(rows.targets.astype(np.int64), split, classes) if classes else None
        note(
            train=len(split.train),
            validation=len(split.validation),
            test=len(split.test),
            purged=len(rows) - split.used,
        )

    with reporter.stage(Stage.TRAIN) as note:
        outputs = len(classes) or 1
        weights = torch.from_numpy(balance.weights).to(device) if balance else None
        task = Task(
            train=_samples(rows, split.train, device),
            validation=_samples(rows, split.validation, device),
            outputs=outputs,
            loss=WeightedLoss(loss, weights),
        )
        module = strategy.network.build(len(plan.columns), outputs).to(device)
        fitted = fit(strategy.network, module, task, strategy.training, randomness, reporter)
        note(epochs=len(fitted.history), best_epoch=fitted.best_epoch, stopped_early=fitted.stopped_early)

    with reporter.stage(Stage.EVALUATE) as note:
        output_type = strategy.decisions.output_format
        predictions = predict(module, rows.inputs, output_type, reporter.check)
        evaluation = evaluate(rows, split, predictions, classes, loss)
        note(**evaluation.metrics)

    with reporter.stage(Stage.PACKAGE) as note:
        finished = FinishedTraining(
            job=job,
            parsed=parsed,
            rows=rows,
            warmup_rows_dropped=warmup_rows,
            split=split,
            scalings=scalings,
            balance=balance,
            module=module,
            fit=fitted,
            predictions=predictions,
            evaluation=evaluation,
        )
        files = make_files(finished)
        bundle = pack(files)
        note(files=len(files), size_bytes=len(bundle))

    reporter.finished()
    manifest = make_manifest(finished, files, bundle, reporter.timings, peak_memory_bytes())
    return TrainedModel(manifest, bundle)


def _read_bars(job: TrainingJob, strategy: Strategy, reporter: Reporter) -> dict[str, Bars]:
    """Return the bars of each of the strategy's timeframes."""
    bars = {}
    for timeframe in strategy.timeframes:
        reporter.check()
        found = [
            dataset
            for dataset in job.datasets
            if (dataset.ref.symbol, dataset.ref.timeframe) == (strategy.symbol, timeframe)
        ]
        if len(found) != 1:
            given = ", ".join(f"{dataset.ref.symbol} {dataset.ref.timeframe}" for dataset in job.datasets)
            raise DataError(
                f"The strategy needs one dataset of {strategy.symbol} {timeframe}; given: {given or 'none'}.",
                fix="Submit the training again, so that its data is prepared anew.",
            )
        bars[timeframe] = read_snapshot(found[0].path)
    return bars


def _samples(rows: LabelledRows, numbers: RowNumbers, device: torch.device) -> Samples:
    return Samples(
        inputs=torch.from_numpy(rows.inputs[numbers]).to(device),
        targets=torch.from_numpy(rows.targets[numbers]).to(device),
    )
