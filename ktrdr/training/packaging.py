"""From a finished training to the files of a model, and the manifest that says what is in them."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import nn

from ktrdr.events.references import ModelManifest, StageTiming
from ktrdr.features.memberships import MEMBERSHIPS
from ktrdr.features.normalization import Scaling
from ktrdr.features.plan import FeatureColumn, FeaturePlan
from ktrdr.market.times import to_datetime, to_microseconds
from ktrdr.models.bundle import (
    EVALUATION_FILE,
    METADATA_FILE,
    STRATEGY_FILE,
    WEIGHTS_FILE,
    digests,
)
from ktrdr.models.metadata import (
    FeatureRecord,
    ModelMetadata,
    NormalizationRecord,
    PluginRecord,
    SplitPart,
    SplitRecord,
    Versions,
)
from ktrdr.strategy.plugins_used import plugins_used
from ktrdr.strategy.strategy import ParsedStrategy
from ktrdr.training.class_balance import ClassBalance
from ktrdr.training.evaluation import Evaluation
from ktrdr.training.evaluation_table import encode_evaluation
from ktrdr.training.fit import Fit
from ktrdr.training.job import TrainingJob
from ktrdr.training.labelled_rows import LabelledRows
from ktrdr.training.split import RowNumbers, Split


@dataclass(frozen=True, slots=True)
class FinishedTraining:
    """All that a training made."""

    job: TrainingJob
    parsed: ParsedStrategy
    rows: LabelledRows
    warmup_rows_dropped: int
    window_rows_dropped: int
    split: Split
    scalings: Mapping[str, Scaling]
    balance: ClassBalance | None
    """None for regression."""
    module: nn.Module
    fit: Fit
    predictions: npt.NDArray[np.float32]
    """(row, output) of all labelled rows."""
    evaluation: Evaluation

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the outputs; none for regression."""
        return self.parsed.strategy.label.classes

    @property
    def output_type(self) -> Literal["classification", "regression"]:
        """What the outputs are."""
        return "classification" if self.classes else "regression"

    @property
    def parameters(self) -> int:
        """Trainable parameters of the network."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def make_files(training: FinishedTraining) -> dict[str, bytes]:
    """Return the files of the model; equal trainings give equal bytes."""
    weights = save({name: tensor.cpu().clone() for name, tensor in training.module.state_dict().items()})
    metadata = _metadata(training, hashlib.sha256(weights).hexdigest())
    return {
        WEIGHTS_FILE: weights,
        METADATA_FILE: _as_json(metadata),
        STRATEGY_FILE: training.job.strategy_yaml.encode(),
        EVALUATION_FILE: encode_evaluation(
            training.rows, training.split, training.predictions, training.classes
        ),
    }


def make_manifest(
    training: FinishedTraining,
    files: Mapping[str, bytes],
    bundle: bytes,
    timings: Sequence[StageTiming],
    peak_memory_bytes: int,
) -> ModelManifest:
    """Return what events say of the model."""
    strategy, split = training.parsed.strategy, training.split
    file_digests = digests(files)
    return ModelManifest(
        strategy=training.job.strategy_name,
        symbol=strategy.symbol,
        timeframe=strategy.base_timeframe,
        output_format=training.output_type,
        features=strategy.feature_plan.feature_ids,
        classes=training.classes,
        metrics=training.evaluation.summary(),
        epochs_trained=len(training.fit.history),
        best_epoch=training.fit.best_epoch,
        train_rows=len(split.train),
        validation_rows=len(split.validation),
        test_rows=len(split.test),
        parameters=training.parameters,
        strategy_sha256=training.parsed.sha256,
        weights_sha256=file_digests[WEIGHTS_FILE].sha256,
        bundle_sha256=hashlib.sha256(bundle).hexdigest(),
        bundle_size=len(bundle),
        files=file_digests,
        seed=training.job.seed,
        device=training.job.device,
        timings=tuple(timings),
        peak_memory_bytes=peak_memory_bytes,
    )


def _metadata(training: FinishedTraining, weights_sha256: str) -> ModelMetadata:
    job, parsed, fit = training.job, training.parsed, training.fit
    strategy, evaluation = parsed.strategy, training.evaluation
    best = fit.history[fit.best_epoch - 1]
    return ModelMetadata(
        strategy_name=job.strategy_name,
        strategy_version=strategy.version,
        strategy_sha256=parsed.sha256,
        overrides=dict(job.overrides),
        effective_strategy=dict(parsed.effective),
        symbol=strategy.symbol,
        timeframe=strategy.base_timeframe,
        training_symbols=strategy.symbols,
        training_timeframes=strategy.timeframes,
        datasets=tuple(dataset.ref for dataset in job.datasets),
        output_type=training.output_type,
        model_type=strategy.model_type,
        sequence_length=strategy.network.window,
        resolved_features=strategy.feature_plan.feature_ids,
        features=tuple(_feature(strategy.feature_plan, column) for column in strategy.feature_plan.columns),
        normalization_params={
            feature_id: NormalizationRecord(method=scaling.method, offset=scaling.offset, scale=scaling.scale)
            for feature_id, scaling in training.scalings.items()
        },
        label_source=strategy.label_source,
        label_parameters=strategy.label.model_dump(mode="json"),
        classes=training.classes,
        class_counts=_class_counts(training),
        class_weights=_class_weights(training),
        warmup_rows_dropped=training.warmup_rows_dropped,
        window_rows_dropped=training.window_rows_dropped,
        split=_split(training),
        parameters=training.parameters,
        training_metrics=best.model_dump(exclude={"epoch"}, exclude_none=True),
        test_metrics=dict(evaluation.metrics),
        baselines={name: dict(metrics) for name, metrics in evaluation.baselines.items()},
        per_class=evaluation.per_class,
        confusion=evaluation.confusion,
        history=fit.history,
        best_epoch=fit.best_epoch,
        stopped_early=fit.stopped_early,
        weights_sha256=weights_sha256,
        seed=job.seed,
        device=job.device,
        threads=job.threads,
        versions=Versions(
            ktrdr=version("ktrdr"),
            python=platform.python_version(),
            torch=torch.__version__,
            numpy=np.__version__,
            pandas=version("pandas"),
            ta_lib=version("TA-Lib"),
        ),
        plugins=tuple(PluginRecord(**asdict(plugin)) for plugin in plugins_used(strategy)),
    )


def _feature(plan: FeaturePlan, column: FeatureColumn) -> FeatureRecord:
    membership = column.membership
    return FeatureRecord(
        feature_id=column.feature_id,
        timeframe=column.timeframe,
        indicator=column.indicator_id,
        output=column.output,
        data_source=plan.sources.get(column.indicator_id),
        fuzzy_set=column.fuzzy_set,
        membership=column.membership_name,
        membership_type=MEMBERSHIPS.name_of(type(membership)) if membership else None,
        membership_parameters=membership.parameters if membership else (),
    )


def _class_counts(training: FinishedTraining) -> dict[str, dict[str, int]]:
    if training.balance is None:
        return {}
    return {
        part: dict(zip(training.classes, counts.tolist(), strict=True))
        for part, counts in training.balance.counts.items()
    }


def _class_weights(training: FinishedTraining) -> dict[str, float]:
    if training.balance is None:
        return {}
    return dict(zip(training.classes, training.balance.weights.tolist(), strict=True))


def _split(training: FinishedTraining) -> SplitRecord:
    opens = to_microseconds(training.rows.times)

    def part(numbers: RowNumbers) -> SplitPart:
        first, last = opens[numbers[0]], opens[numbers[-1]]
        return SplitPart(rows=len(numbers), start=to_datetime(first), end=to_datetime(last))

    split = training.split
    return SplitRecord(
        train=part(split.train),
        validation=part(split.validation),
        test=part(split.test),
        purged_rows=len(training.rows) - split.used,
    )


def _as_json(metadata: ModelMetadata) -> bytes:
    return (
        json.dumps(metadata.model_dump(mode="json"), indent=2, sort_keys=True, allow_nan=False).encode()
        + b"\n"
    )
