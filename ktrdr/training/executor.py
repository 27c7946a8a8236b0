"""The executor: from a job to a trained model, whoever asks and wherever it runs."""

import numpy as np
import torch

from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import StrategyError
from ktrdr.features.indicator_cache import IndicatorCache
from ktrdr.features.normalization import apply_scalings, fit_scalings
from ktrdr.models.bundle import pack
from ktrdr.models.inference import predict
from ktrdr.networks.contract import require_sound
from ktrdr.strategy import parse_strategy
from ktrdr.training.cancellation import CancellationToken
from ktrdr.training.class_balance import balance_classes
from ktrdr.training.device import open_device
from ktrdr.training.evaluation import evaluate
from ktrdr.training.fit import Task, fit
from ktrdr.training.job import TrainedModel, TrainingJob
from ktrdr.training.labelled_rows import LabelledRows
from ktrdr.training.memory import out_of_memory_as_error, peak_memory_bytes, reset_peak_memory
from ktrdr.training.packaging import FinishedTraining, make_files, make_manifest
from ktrdr.training.panel import features_of, indicators_of, labels_of, rows_of
from ktrdr.training.progress import Observer, Stage
from ktrdr.training.reporting import Reporter
from ktrdr.training.reproducibility import Randomness, reproducible
from ktrdr.training.samples import Samples
from ktrdr.training.split import RowNumbers, split_rows
from ktrdr.training.tables import read_tables
from ktrdr.training.weighted_loss import WeightedLoss

_KEPT_INDICATORS_BYTES = 64 * 1024 * 1024


class TrainingExecutor:
    """Trains; knows nothing of buses, HTTP or databases.

    One training at a time in a process: it sets torch's global state, and restores it at the end. Indicators
    of the latest trainings are kept, so that those on the same bars share them.

    Args:
        clock: for durations only; nothing that is computed depends on it.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._indicators = IndicatorCache(_KEPT_INDICATORS_BYTES)

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
            return _train(job, device, randomness, reporter, self._indicators)


def _train(
    job: TrainingJob,
    device: torch.device,
    randomness: Randomness,
    reporter: Reporter,
    indicators: IndicatorCache,
) -> TrainedModel:
    with reporter.stage(Stage.LOAD) as note:
        source = f"{job.strategy_name}.yaml"
        try:
            parsed = parse_strategy(job.strategy_yaml, source=source, overrides=job.overrides)
        except StrategyError as error:
            error.fix = (
                "If it is right where it was asked for, this machine lacks a plug-in that is installed "
                "there, or has another version of ktrdr."
            )
            raise
        strategy = parsed.strategy
        plan, classes, loss = strategy.feature_plan, strategy.label.classes, strategy.training.loss
        tables = read_tables(job, strategy, reporter.check)
        note(
            rows=tables.rows,
            timeframes=list(strategy.timeframes),
            symbols=list(strategy.symbols),
            context=list(tables.context),
        )

    with reporter.stage(Stage.INDICATORS) as note:
        values = indicators_of(strategy, tables, indicators, reporter.check)
        note(indicators=len(plan.indicators), outputs=sum(map(len, values.values())))

    with reporter.stage(Stage.MEMBERSHIPS) as note:
        matrices, warmup_rows = features_of(strategy, tables, values, reporter.check)
        note(
            rows=sum(len(matrix.times) for matrix in matrices.values()),
            columns=len(plan.columns),
            warmup_rows_dropped=warmup_rows,
        )

    with reporter.stage(Stage.LABELS) as note:
        labels = labels_of(strategy, tables, reporter.check)
        rows, window_rows = rows_of(strategy, tables, matrices, labels)
        note(
            source=strategy.label_source,
            labels=sum(len(found.times) for found in labels.values()),
            rows=len(rows),
            window_rows_dropped=window_rows,
        )

    with reporter.stage(Stage.SPLIT) as note:
        shares = strategy.training.data_split
        split = split_rows(rows.times, rows.known_at, shares.train, shares.validation)
        table = rows.inputs.table
        scalings = fit_scalings(plan, table, rows.inputs.ends[split.train])
        apply_scalings(plan.feature_ids, table, scalings)
        targets = rows.targets.astype(np.int64)
        balance = balance_classes(targets, split, classes, rows.weights) if classes else None
        note(
            train=len(split.train),
            validation=len(split.validation),
            test=len(split.test),
            purged=len(rows) - split.used,
        )

    with reporter.stage(Stage.TRAIN) as note:
        outputs = len(classes) or 1
        weights = torch.from_numpy(balance.weights).to(device) if balance else None
        on_device = torch.from_numpy(table).to(device)
        task = Task(
            train=_samples(rows, split.train, on_device),
            validation=_samples(rows, split.validation, on_device),
            outputs=outputs,
            loss=WeightedLoss(loss, weights),
        )
        network = strategy.network
        module = network.build(len(plan.columns), outputs)
        require_sound(module, network, len(plan.columns), outputs)
        module = module.to(device)
        fitted = fit(network, module, task, strategy.training, randomness, reporter)
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
            window_rows_dropped=window_rows,
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


def _samples(rows: LabelledRows, numbers: RowNumbers, table: torch.Tensor) -> Samples:
    return Samples(
        table=table,
        ends=torch.from_numpy(rows.inputs.ends[numbers]).to(table.device),
        targets=torch.from_numpy(rows.targets[numbers]).to(table.device),
        window=rows.inputs.length,
        weights=None if rows.weights is None else torch.from_numpy(rows.weights[numbers]),
    )
