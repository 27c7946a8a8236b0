"""Every form in which a training option, a label or a network may be written."""

from typing import Any

import pytest

from ktrdr.errors import StrategyError
from ktrdr.losses.focal import Focal
from ktrdr.losses.huber import Huber
from ktrdr.losses.mse import MeanSquaredError
from ktrdr.strategy import DataSplit, EarlyStopping, LrScheduler, ParsedStrategy, parse_strategy
from tests.unit.training_cases import MOMENTUM

REGRESSION: dict[str, Any] = {
    "decisions.output_format": "regression",
    "decisions.cost_model": {"round_trip_cost": 0.001, "min_edge_multiplier": 1.5},
    "decisions.confidence_threshold": None,
    "training.labels": {"source": "forward_return"},
    "training.focal_gamma": None,
    "training.weight_decay": None,
}


def parse(**overrides: Any) -> ParsedStrategy:
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return parse_strategy(MOMENTUM, source="x.yaml", overrides=changes)


def problems(**overrides: Any) -> list[tuple[str, str, str | None]]:
    with pytest.raises(StrategyError) as caught:
        parse(**overrides)
    return [
        (problem.path.removeprefix("--set "), problem.message, problem.suggestion)
        for problem in caught.value.problems
    ]


@pytest.mark.parametrize(
    ("given", "scheduler"),
    [
        (None, None),
        (False, None),
        ({"enabled": False, "type": "step"}, None),
        (True, LrScheduler("reduce_on_plateau", 30, 1.0, 0.5, 5)),
        ("step", LrScheduler("step", 30, 0.1, 0.5, 5)),
        ("exponential", LrScheduler("exponential", 30, 0.95, 0.5, 5)),
        ("reduce_on_plateau", LrScheduler("reduce_on_plateau", 30, 1.0, 0.5, 5)),
        ({"enabled": True}, LrScheduler("step", 30, 0.1, 0.5, 5)),
        ({"type": "step", "step_size": 10, "gamma": 0.5}, LrScheduler("step", 10, 0.5, 0.5, 5)),
        ({"type": "exponential", "gamma": 0.9}, LrScheduler("exponential", 30, 0.9, 0.5, 5)),
        (
            {"type": "reduce_on_plateau", "factor": 0.1, "patience": 2},
            LrScheduler("reduce_on_plateau", 30, 1.0, 0.1, 2),
        ),
    ],
)
def test_a_scheduler(given: Any, scheduler: LrScheduler | None) -> None:
    parsed = parse(training__lr_scheduler=given)
    assert parsed.strategy.training.lr_scheduler == scheduler
    assert parsed.warnings == ()


def test_what_a_scheduler_does_not_read_is_a_warning() -> None:
    parsed = parse(training__lr_scheduler={"type": "step", "patience": 2, "factor": 0.5})
    assert [(warning.path, warning.message) for warning in parsed.warnings] == [
        ("--set training.lr_scheduler.factor", "has no effect: the type is step"),
        ("--set training.lr_scheduler.patience", "has no effect: the type is step"),
    ]


@pytest.mark.parametrize(
    ("given", "stopping"),
    [
        (None, None),
        (False, None),
        ({"enabled": False, "patience": 3}, None),
        (True, EarlyStopping(10, 0.001, "val_loss")),
        ({}, EarlyStopping(10, 0.001, "val_loss")),
        ({"patience": 15, "min_delta": 0}, EarlyStopping(15, 0.0, "val_loss")),
        ({"enabled": True, "monitor": "val_accuracy"}, EarlyStopping(10, 0.001, "val_accuracy")),
    ],
)
def test_early_stopping(given: Any, stopping: EarlyStopping | None) -> None:
    assert parse(training__early_stopping=given).strategy.training.early_stopping == stopping


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"training__optimizer": "adam"}, ("adam", 1e-4, 0.0)),
        ({"training__optimizer": "AdamW", "training__weight_decay": 0.01}, ("adamw", 0.01, 0.0)),
        ({"training__optimizer": "sgd"}, ("sgd", 1e-4, 0.9)),
        ({"training__optimizer": "sgd", "training__momentum": 0.5}, ("sgd", 1e-4, 0.5)),
        ({"training__optimizer": "rmsprop"}, ("rmsprop", 1e-4, 0.0)),
        (
            {"training__optimizer": {"type": "rmsprop", "momentum": 0.8, "weight_decay": 0.0}},
            ("rmsprop", 0.0, 0.8),
        ),
    ],
)
def test_an_optimizer(given: dict[str, Any], expected: tuple[str, float, float]) -> None:
    options = parse(**given).strategy.training
    assert (options.optimizer, options.weight_decay, options.momentum) == expected


def test_an_optimizer_may_have_the_learning_rate() -> None:
    options = parse(training__optimizer={"type": "sgd", "learning_rate": 0.05}).strategy.training
    assert options.learning_rate == 0.05


@pytest.mark.parametrize(("given", "limit"), [(True, 1.0), (False, None), (None, None), (0.5, 0.5)])
def test_a_limit_of_the_gradient(given: Any, limit: float | None) -> None:
    assert parse(training__gradient_clip=given).strategy.training.gradient_clip == limit


@pytest.mark.parametrize(
    ("given", "split"),
    [
        ({"training__data_split": {"train": 0.6, "validation": 0.2, "test": 0.2}}, (0.6, 0.2, 0.2)),
        ({"training__data_split": {"train": 0.8, "validation": 0.1}}, (0.8, 0.1, 0.1)),
        ({"training__data_split": None, "training__validation_split": 0.25}, (0.6, 0.25, 0.15)),
    ],
)
def test_a_split(given: dict[str, Any], split: tuple[float, float, float]) -> None:
    found: DataSplit = parse(**given).strategy.training.data_split
    assert (found.train, found.validation, found.test) == pytest.approx(split)


def test_losses_of_regression_and_their_options() -> None:
    for given, loss in (
        ({}, Huber()),
        ({"training.loss": "huber", "training.huber_delta": 1.0}, Huber(delta=1.0)),
        ({"training.loss": "MSE"}, MeanSquaredError()),
    ):
        options = parse(**REGRESSION | {"training.loss": None} | given).strategy.training
        assert options.loss == loss
        assert options.weight_decay == 0.0
    parsed = parse(**REGRESSION | {"training.loss": "mse", "training.huber_delta": 1.0})
    assert [w.message for w in parsed.warnings] == ["has no effect: the loss is mse"]


def test_losses_of_classification_and_their_options() -> None:
    assert parse(training__focal_gamma=3.0).strategy.training.loss == Focal(gamma=3.0)
    assert problems(training__loss="mse") == [
        ("training.loss", "mse is a loss for regression; use cross_entropy or focal", None)
    ]


# --- networks and labels --------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["lstm", "LSTM", "gru", "transformer"])
def test_a_network_of_windows(model_type: str) -> None:
    strategy = parse(model={"type": model_type, "architecture": {"sequence_length": 20}}).strategy
    assert strategy.model_type == model_type.lower()
    assert strategy.network.window == 20


def test_what_is_wrong_with_an_architecture_is_told_at_its_place() -> None:
    found = problems(model={"type": "lstm", "architecture": {"sequence_length": [20], "hiden_size": 64}})
    assert found == [
        ("model.architecture.sequence_length", "must be a whole number", None),
        (
            "model.architecture.hiden_size",
            "unknown key; allowed: sequence_length, hidden_size, num_layers, dropout",
            "hidden_size",
        ),
    ]
    assert problems(model={"type": "gru", "architecture": {"hidden_size": 8}}) == [
        ("model.architecture.sequence_length", "is missing", None)
    ]
    assert problems(model={"type": "lstms", "architecture": {}}) == [
        ("model.type", "unknown model type 'lstms'; available: gru, lstm, mlp, transformer", "lstm")
    ]
    assert problems(model__architecture__activation="leaky") == [
        (
            "model.architecture.activation",
            "must be 'relu', 'tanh', 'sigmoid' or 'leaky_relu', not 'leaky'",
            "leaky_relu",
        )
    ]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (
            {"source": "Triple_Barrier", "compute_weights": True, "cusum_threshold": 0},
            ("BUY", "HOLD", "SELL"),
        ),
        ({"source": "context", "horizon": 3}, ("BULLISH", "BEARISH", "NEUTRAL")),
        ({"source": "regime", "atr_period": 20}, ("UP", "DOWN", "RANGING", "VOLATILE")),
        ({}, ("BUY", "HOLD", "SELL")),
    ],
)
def test_labels(labels: dict[str, Any], classes: tuple[str, ...]) -> None:
    parsed = parse(training__labels=labels)
    assert parsed.strategy.label.classes == classes
    assert parsed.warnings == ()


def test_what_is_wrong_with_labels_is_told_at_its_place() -> None:
    assert problems(training__labels={"source": "triple_bariers"}) == [
        (
            "training.labels.source",
            "unknown label source 'triple_bariers'; "
            "available: context, forward_return, regime, triple_barrier, zigzag",
            "triple_barrier",
        )
    ]
    assert problems(training__labels={"source": "context", "bullish_threshold": -0.01}) == [
        (
            "training.labels",
            "bullish_threshold (-0.01) must be above bearish_threshold (-0.005)",
            None,
        )
    ]


@pytest.mark.parametrize(("threshold", "heard"), [(None, False), (0.01, False), (0, True), (-1, True)])
def test_a_multiplier_without_a_threshold_by_the_volatility_is_a_warning(
    threshold: float | None, heard: bool
) -> None:
    labels = {"source": "triple_barrier", "cusum_threshold": threshold, "cusum_multiplier": 0.7}
    warnings = [(warning.path, warning.message) for warning in parse(training__labels=labels).warnings]
    said = "has no effect: it takes a cusum_threshold of 0 or below"
    assert warnings == ([] if heard else [("--set training.labels.cusum_multiplier", said)])


def test_names_of_labels_that_had_no_effect_have_none_with_a_warning() -> None:
    parsed = parse(training__labels={"source": "regime", "horizon": 24, "trending_threshold": 0.5})
    assert [warning.path for warning in parsed.warnings] == [
        "--set training.labels.horizon",
        "--set training.labels.trending_threshold",
    ]
