"""From YAML text to a strategy."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from ktrdr.errors import Problem, StrategyError
from ktrdr.strategy.context_section import resolve_context, warn_unused
from ktrdr.strategy.feature_sections import resolve_features
from ktrdr.strategy.findings import Findings
from ktrdr.strategy.market_section import resolve_market
from ktrdr.strategy.overrides import apply_overrides
from ktrdr.strategy.sections import StrategySection
from ktrdr.strategy.strategy import ParsedStrategy, Strategy
from ktrdr.strategy.training_sections import (
    merge_training,
    resolve_decisions,
    resolve_label,
    resolve_model,
    resolve_training,
)
from ktrdr.strategy.without_effect import meaningful
from ktrdr.strategy.yaml_source import parse_yaml

_FORMER_VERSION = (
    "is a list, as in versions 1 and 2 of the language; version 3 has a mapping of ids. Write "
    "`rsi_14: {type: rsi, period: 14}` for an item with `name: rsi`, `feature_id: rsi_14` and `period: 14`; "
    "say in each fuzzy set which `indicator` it is of; and list the fuzzy sets with their timeframes in "
    "`nn_inputs`. See 'From versions 1 and 2' in docs/strategy.md."
)


def load_strategy(
    path: Path, overrides: Mapping[str, JsonValue] | None = None, *, strict: bool = False
) -> ParsedStrategy:
    """Read a strategy file; see `parse_strategy`.

    Raises:
        StrategyError: it cannot be read, or what is in it is wrong.
    """
    return parse_strategy(read_strategy(path), source=str(path), overrides=overrides, strict=strict)


def read_strategy(path: Path) -> str:
    """Return the text of a strategy file.

    Raises:
        StrategyError: it cannot be read, or is not text.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise StrategyError(path, [Problem("", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise StrategyError(path, [Problem("", f"is not UTF-8 text: {error.reason}")]) from error


def parse_strategy(
    text: str, *, source: str, overrides: Mapping[str, JsonValue] | None = None, strict: bool = False
) -> ParsedStrategy:
    """Check a strategy completely and resolve it.

    Args:
        text: YAML.
        source: what to call it in messages, as a file name.
        overrides: dotted path → value, on top of the text.
        strict: whether keys without effect and old names are problems too.

    Raises:
        StrategyError: with every problem that was found.
    """
    document = parse_yaml(text, source)
    data, changed = apply_overrides(document.data, overrides or {})
    findings = Findings(document, changed)
    strategy = _resolve(data, findings)
    problems = findings.problems + (findings.warnings if strict else [])
    if problems or strategy is None:
        raise StrategyError(source, sorted(problems, key=lambda each: (each.line or 0, each.column or 0)))
    return ParsedStrategy(
        strategy=strategy,
        warnings=tuple(findings.warnings),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        effective=data,
    )


def _resolve(data: dict[str, JsonValue], findings: Findings) -> Strategy | None:
    if isinstance(data.get("indicators"), list):
        findings.problem(("indicators",), _FORMER_VERSION, is_key=True)
        return None
    top = findings.section(StrategySection, meaningful(StrategySection, data, (), findings), ())
    if top is None:
        return None
    market = resolve_market(top.training_data, findings)
    context = resolve_context(top.context_data, market, findings)
    plan = resolve_features(top.indicators, top.fuzzy_sets, top.nn_inputs, market, context, findings)
    if plan is not None:
        warn_unused(context, plan.context_sources, findings)
    model = resolve_model(top.model, findings)
    decisions = resolve_decisions(top.decisions, findings)
    is_known = decisions is not None and not findings.is_wrong(("decisions", "output_format"))
    output_format = decisions.output_format if decisions is not None and is_known else None
    merged, places = merge_training(top.training, model.training if model is not None else {}, findings)
    labels_at = (*places.get("labels", ("training",)), "labels")
    label = resolve_label(merged.get("labels", {}), labels_at, output_format, findings)
    training = resolve_training(merged, places, output_format, findings)
    if findings.problems or market is None or plan is None or model is None or model.network is None:
        return None
    if decisions is None or label is None or training is None:
        return None
    return Strategy(
        name=top.name,
        description=top.description,
        version=top.version,
        symbols=market.symbols,
        timeframes=plan.timeframes,
        base_timeframe=market.base_timeframe,
        start=market.start,
        end=market.end,
        context={source: context.entries[source] for source in plan.context_sources},
        feature_plan=plan,
        label_source=label[0],
        label=label[1],
        model_type=model.model_type,
        network=model.network,
        training=training,
        decisions=decisions,
    )
