"""The example strategies: each trains on the bundled bars, and together they use the whole language."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from safetensors.torch import load as load_tensors

from ktrdr.features.indicators import INDICATORS
from ktrdr.features.memberships import MEMBERSHIPS
from ktrdr.labels import LABELS
from ktrdr.losses import LOSSES
from ktrdr.models.bundle import unpack
from ktrdr.networks import NETWORKS
from ktrdr.strategy import Optimizer, Strategy, load_strategy
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.job import Dataset, TrainingJob
from ktrdr.training.progress import SilentObserver
from tests.unit.example_features import EXAMPLES, GOLDEN, describe, feature_matrices, prepared

QUICK: dict[str, Any] = {"training.epochs": 2, "training.early_stopping": False}

example = pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])


@example
def test_an_example_has_neither_problem_nor_warning(path: Path) -> None:
    assert load_strategy(path, strict=True).name == path.stem


@example
def test_an_example_trains_on_the_bundled_bars(path: Path, tmp_path: Path) -> None:
    overrides = dict(QUICK)
    if load_strategy(path).strategy.network.window > 1:  # costs so many times as much
        overrides |= {"training.epochs": 1, "training_data.start_date": "2017-07-01"}
    training, blobs = prepared(path, tmp_path, overrides)
    job = TrainingJob(
        operation_id="op-example",
        attempt=1,
        strategy_name=training.strategy.name,
        strategy_yaml=training.strategy.yaml,
        overrides=training.strategy.overrides,
        datasets=tuple(
            Dataset(ref, blobs.fetch(ref.blob, tmp_path / f"{ref.blob.sha256}.parquet"))
            for ref in training.datasets
        ),
        seed=7,
    )
    model = TrainingExecutor().run(job, SilentObserver(), ManualCancellation())
    manifest = model.manifest
    assert manifest.epochs_trained == overrides["training.epochs"]
    assert min(manifest.train_rows, manifest.validation_rows, manifest.test_rows) >= 30
    weights = load_tensors(unpack(model.bundle)["model.safetensors"])
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


@example
def test_the_features_of_an_example_are_what_they_were(path: Path) -> None:
    assert describe(feature_matrices(path)) == json.loads(GOLDEN.read_text())[path.stem]


def strategies() -> list[Strategy]:
    return [load_strategy(path).strategy for path in EXAMPLES]


def test_together_the_examples_use_every_indicator() -> None:
    used = {type(made) for one in strategies() for made in one.feature_plan.indicators.values()}
    assert [name for name, implementation in INDICATORS if implementation not in used] == []


def test_together_the_examples_use_every_membership_and_normalization() -> None:
    columns = [column for one in strategies() for column in one.feature_plan.columns]
    used = {type(column.membership) for column in columns}
    assert [name for name, implementation in MEMBERSHIPS if implementation not in used] == []
    assert {column.normalization for column in columns} == {"none", "minmax", "zscore"}


def test_together_the_examples_use_every_label_network_and_loss() -> None:
    every = strategies()
    assert {one.label_source for one in every} == set(LABELS.names())
    assert {one.model_type for one in every} == set(NETWORKS.names())
    used = {type(one.training.loss) for one in every}
    assert [name for name, implementation in LOSSES if implementation not in used] == []


def test_together_the_examples_use_every_way_to_train() -> None:
    options = [one.training for one in strategies()]
    assert {each.optimizer for each in options} == set(get_args(Optimizer))
    schedulers = {each.lr_scheduler.type for each in options if each.lr_scheduler}
    assert schedulers == {"step", "exponential", "reduce_on_plateau"}
    assert {each.early_stopping.monitor for each in options if each.early_stopping} == {
        "val_loss",
        "val_accuracy",
    }


def test_together_the_examples_use_one_and_several_symbols_and_timeframes_and_both_outputs() -> None:
    every = strategies()
    assert {len(one.symbols) > 1 for one in every} == {True, False}
    assert {len(one.timeframes) > 1 for one in every} == {True, False}
    assert {one.decisions.output_format for one in every} == {"classification", "regression"}
