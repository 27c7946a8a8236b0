"""``training``, ``model`` and ``decisions``: what is learnt, by which network, and how."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import JsonValue

from ktrdr.errors import PluginError, UnknownNameError
from ktrdr.labels import LABELS, LabelSource
from ktrdr.losses import LOSSES, Loss, OutputFormat
from ktrdr.networks import NETWORKS, Network
from ktrdr.strategy.findings import Findings
from ktrdr.strategy.sections import (
    CostModelSection,
    DecisionsSection,
    EarlyStoppingSection,
    FiltersSection,
    ModelSection,
    OptimizerSection,
    SchedulerSection,
    SplitSection,
    TrainingSection,
)
from ktrdr.strategy.strategy import (
    CostModel,
    DataSplit,
    Decisions,
    EarlyStopping,
    LrScheduler,
    Optimizer,
    TrainingOptions,
)
from ktrdr.strategy.without_effect import meaningful
from ktrdr.strategy.yaml_source import Path

_AT: Path = ("training",)
_GAMMA_DEFAULTS = {"step": 0.1, "exponential": 0.95}
_SCHEDULER_KEYS = {
    "step": {"step_size", "gamma"},
    "exponential": {"gamma"},
    "reduce_on_plateau": {"factor", "patience"},
}


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The network, and training options that stand with it."""

    model_type: str
    network: Network | None
    """None if it is wrong."""
    training: Mapping[str, Any]


def resolve_model(data: Mapping[str, JsonValue], findings: Findings) -> ModelChoice | None:
    """Check ``model``; None if something is wrong."""
    data = _with_architecture(meaningful(ModelSection, data, ("model",), findings), findings)
    section = findings.section(ModelSection, data, ("model",))
    if section is None:
        return None
    path: Path = ("model", "architecture")
    architecture = meaningful(ModelSection, section.architecture, path, findings)
    network = None
    if findings.is_wrong(path) and section.type not in NETWORKS:
        findings.unknown(("model", "type"), NETWORKS.kind, section.type, NETWORKS.names())
    elif not findings.is_wrong(path) and not findings.is_wrong(("model", "type")):
        network = findings.parameters(NETWORKS, section.type, architecture, path, ("model", "type"))
    name = NETWORKS.canonical(section.type) if network is not None else section.type
    return ModelChoice(name, network, section.training)


def _with_architecture(data: Mapping[str, JsonValue], findings: Findings) -> Mapping[str, JsonValue]:
    """Return the section with its architecture, which short files have beside the type."""
    if "architecture" in data:
        return data
    try:
        names = NETWORKS.get(str(data.get("type", "mlp"))).model_fields
    except (UnknownNameError, PluginError):
        return data
    beside = {key: value for key, value in data.items() if key in names}
    for key in beside:
        findings.warning(("model", key), f"belongs into architecture; write model.architecture.{key}")
    if not beside:
        return data
    return {**{key: value for key, value in data.items() if key not in beside}, "architecture": beside}


def resolve_decisions(data: Mapping[str, JsonValue], findings: Findings) -> Decisions | None:
    """Check ``decisions``; None if something is wrong."""
    path: Path = ("decisions",)
    section = findings.section(DecisionsSection, meaningful(DecisionsSection, data, path, findings), path)
    if section is None:
        return None
    filters_at = (*path, "filters")
    filters = findings.section(
        FiltersSection, meaningful(FiltersSection, section.filters, filters_at, findings), filters_at
    )
    costs = None
    if section.cost_model is not None:
        costs = findings.section(CostModelSection, section.cost_model, (*path, "cost_model"))
    elif section.output_format == "regression":
        findings.problem(
            (*path, "cost_model"), "is missing: regression needs round_trip_cost and min_edge_multiplier"
        )
    if section.output_format == "regression" and section.confidence_threshold is not None:
        findings.warning((*path, "confidence_threshold"), "has no effect: regression decides by cost_model")
    filters = filters or FiltersSection()
    return Decisions(
        output_format=section.output_format,
        confidence_threshold=0.5 if section.confidence_threshold is None else section.confidence_threshold,
        cost_model=CostModel(costs.round_trip_cost, costs.min_edge_multiplier) if costs is not None else None,
        position_awareness=section.position_awareness,
        allow_short_from_flat=section.allow_short_from_flat,
        min_signal_separation_hours=filters.min_signal_separation,
    )


def resolve_label(
    data: object, path: Path, output_format: OutputFormat | None, findings: Findings
) -> tuple[str, LabelSource] | None:
    """Check the labels, at their place; None if something is wrong.

    What goes with one output format only is not checked if that is not known, which is None.
    """
    if not isinstance(data, Mapping):
        findings.problem(path, "must be a mapping with a source and its parameters")
        return None
    source = data.get("source", "zigzag")
    parameters = {key: value for key, value in data.items() if key != "source"}
    label = findings.parameters(LABELS, source, parameters, path, (*path, "source"))
    if label is None:
        return None
    if output_format is not None and bool(label.classes) != (output_format == "classification"):
        kind = "classes" if label.classes else "returns"
        wanted = "classification" if label.classes else "regression"
        findings.problem(
            (*path, "source"),
            f"{source} gives {kind}, which needs decisions.output_format: {wanted}, not {output_format}",
        )
    return LABELS.canonical(source), label


def merge_training(
    top: Mapping[str, JsonValue], of_model: Mapping[str, Any], findings: Findings
) -> tuple[dict[str, Any], Mapping[str, Path]]:
    """Return the options of ``training``, completed by ``model.training``, and where each stands."""
    at_model: Path = ("model", "training")
    lower = meaningful(TrainingSection, of_model, at_model, findings)
    upper = meaningful(TrainingSection, top, _AT, findings)
    for key in lower:
        if key in upper and lower[key] != upper[key]:
            findings.warning((*at_model, key), f"has no effect: training.{key} says otherwise, and wins")
    places = dict.fromkeys(lower, at_model) | dict.fromkeys(upper, _AT)
    return {**lower, **upper}, places


def resolve_training(
    merged: Mapping[str, Any],
    places: Mapping[str, Path],
    output_format: OutputFormat | None,
    findings: Findings,
) -> TrainingOptions | None:
    """Check the training options; None if something is wrong.

    What goes with one output format only is not checked if that is not known, which is None.
    """
    # Each half by its own place, so that a problem is shown where it stands.
    for place in {_AT, *places.values()}:
        half = {key: value for key, value in merged.items() if places[key] == place}
        findings.section(TrainingSection, half, place)
    right = {
        key: value
        for key, value in merged.items()
        if key in TrainingSection.model_fields and not findings.is_wrong_within((*places[key], key))
    }
    section = TrainingSection.model_validate(right)

    def at(key: str) -> Path:
        return (*places.get(key, _AT), key)

    loss = _loss(section, output_format, at, findings)
    split = _split(section, at, findings)
    optimizer = _optimizer(section, output_format, at, findings)
    stopping = _early_stopping(section, at, findings)
    scheduler = _scheduler(section, at, findings)
    if findings.problems or loss is None or split is None or optimizer is None:
        return None
    name, rate, decay, momentum = optimizer
    clip = section.gradient_clip
    return TrainingOptions(
        epochs=section.epochs,
        learning_rate=rate,
        batch_size=section.batch_size,
        loss=loss,
        optimizer=name,
        weight_decay=decay,
        momentum=momentum,
        gradient_clip=(1.0 if clip else None) if isinstance(clip, bool) else clip,
        early_stopping=stopping,
        lr_scheduler=scheduler,
        data_split=split,
    )


def _loss(
    section: TrainingSection, output_format: OutputFormat | None, at: Any, findings: Findings
) -> Loss | None:
    chosen = section.loss or ("cross_entropy" if output_format == "classification" else "huber")
    of_mapping = dict(chosen) if isinstance(chosen, dict) else {}
    place = name_place = at("loss")
    name = chosen
    if isinstance(chosen, dict):
        name, name_place = of_mapping.pop("type", None), (*place, "type")
    loss = findings.parameters(LOSSES, name, of_mapping, place, name_place)
    if loss is None:
        return None
    if output_format is not None and loss.output_format != output_format:
        fitting = [known for known, each in LOSSES if each.output_format == output_format]
        findings.problem(name_place, f"{name} is a loss for {loss.output_format}; use {' or '.join(fitting)}")
        return None
    beside = {"focal_gamma": section.focal_gamma, "huber_delta": section.huber_delta}
    parameters: dict[str, Any] = {}
    for key, value in beside.items():
        field = loss.former_names.get(key)
        if value is None:
            continue
        if field is None or field in of_mapping:
            findings.warning(at(key), f"has no effect: the loss is {name}")
        else:
            parameters[field], place = value, at(key)
    if not parameters:
        return loss
    return findings.parameters(LOSSES, name, {**of_mapping, **parameters}, place, name_place)


def _split(section: TrainingSection, at: Any, findings: Findings) -> DataSplit | None:
    if section.data_split is not None:
        if section.validation_split is not None:
            findings.warning(at("validation_split"), "has no effect: data_split says it all")
        shares = findings.section(SplitSection, section.data_split, at("data_split"))
        if shares is None:
            return None
        train, validation = shares.train, shares.validation
        given = shares.test
    else:
        validation = section.validation_split if section.validation_split is not None else 0.15
        train, given = 0.85 - validation, None
    if findings.is_wrong_within(at("data_split")):
        return None
    test = 1 - train - validation if given is None else given
    if train <= 0 or test <= 0 or not math.isclose(train + validation + test, 1, abs_tol=1e-6):
        key = "data_split" if section.data_split is not None else "validation_split"
        findings.problem(
            at(key), f"leaves train {train:g}, validation {validation:g}, test {test:g}: all above 0, sum 1"
        )
        return None
    return DataSplit(train, validation, test)


def _optimizer(
    section: TrainingSection, output_format: OutputFormat | None, at: Any, findings: Findings
) -> tuple[Optimizer, float, float, float] | None:
    given = section.optimizer if isinstance(section.optimizer, dict) else {"type": section.optimizer}
    chosen = findings.section(OptimizerSection, given, at("optimizer"))
    if chosen is None:
        return None
    names: dict[str, Optimizer] = {name: name for name in get_args(Optimizer)}
    name = names.get(chosen.type.lower())
    if name is None:
        place = (*at("optimizer"), "type") if isinstance(section.optimizer, dict) else at("optimizer")
        findings.unknown(place, "optimizer", chosen.type, list(names))
        return None
    momentum = chosen.momentum if chosen.momentum is not None else section.momentum
    if momentum is not None and name in ("adam", "adamw"):
        findings.warning(
            at("momentum") if chosen.momentum is None else (*at("optimizer"), "momentum"),
            f"has no effect: {name} has its own",
        )
    decay = chosen.weight_decay if chosen.weight_decay is not None else section.weight_decay
    return (
        name,
        chosen.learning_rate if chosen.learning_rate is not None else section.learning_rate,
        # As the former system had it: none where the target is a number.
        decay if decay is not None else (1e-4 if output_format == "classification" else 0.0),
        momentum if momentum is not None else (0.9 if name == "sgd" else 0.0),
    )


def _early_stopping(section: TrainingSection, at: Any, findings: Findings) -> EarlyStopping | None:
    given = section.early_stopping
    if given is None or given is False:
        return None
    chosen = findings.section(EarlyStoppingSection, {} if given is True else given, at("early_stopping"))
    if chosen is None or not chosen.enabled:
        return None
    return EarlyStopping(chosen.patience, chosen.min_delta, chosen.monitor)


def _scheduler(section: TrainingSection, at: Any, findings: Findings) -> LrScheduler | None:
    given = section.lr_scheduler
    if given is None or given is False:
        return None
    if given is True:
        given = {"type": "reduce_on_plateau"}
    chosen = findings.section(
        SchedulerSection, {"type": given} if isinstance(given, str) else given, at("lr_scheduler")
    )
    if chosen is None or not chosen.enabled:
        return None
    for key in sorted(chosen.model_fields_set - {"enabled", "type"} - _SCHEDULER_KEYS[chosen.type]):
        findings.warning((*at("lr_scheduler"), key), f"has no effect: the type is {chosen.type}")
    gamma = chosen.gamma if chosen.gamma is not None else _GAMMA_DEFAULTS.get(chosen.type, 1.0)
    return LrScheduler(chosen.type, chosen.step_size, gamma, chosen.factor, chosen.patience)
