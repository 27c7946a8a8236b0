"""How `ktrdr strategies explain` says what a strategy would train."""

from typing import TYPE_CHECKING

from rich.text import Text

from ktrdr.cli.output import facts, out, print_warning, table

if TYPE_CHECKING:
    from ktrdr.language.explained import Explanation


def print_explanation(explanation: "Explanation", source: str) -> None:
    """Print it for people."""
    for warning in explanation.warnings:
        print_warning(warning.describe(source))
    title = Text(explanation.name, style="bold")
    if explanation.description:
        title.append(f"  {' '.join(explanation.description.split())}", style="default")
    out.print(title)
    _print_part("Bars", _bars(explanation))
    if explanation.context:
        _print_part("Context", _context(explanation))
    out.print(Text("\nFeatures, in the order of the network's inputs", style="bold"))
    listing = table("#", "feature", "what it is", "normalization", ">first bar")
    for number, feature in enumerate(explanation.features, 1):
        formula = feature.formula
        if feature.context is not None:
            formula += f", once {feature.context_rows} rows of it are known"
        listing.add_row(
            str(number), feature.feature_id, formula, feature.normalization, str(feature.first_bar)
        )
    out.print(listing)
    base = explanation.bars.base_timeframe
    out.print(f"The first bar with all of them is number {explanation.first_bar}, from 0, of {base}.")
    _print_part("Label", _label(explanation))
    _print_part("Network", _network(explanation))
    _print_part("Training", _training(explanation))


def _print_part(title: str, rows: list[tuple[str, object]]) -> None:
    out.print(Text(f"\n{title}", style="bold"))
    out.print(facts(rows))


def _bars(explanation: "Explanation") -> list[tuple[str, object]]:
    bars = explanation.bars
    others = [name for name in bars.timeframes if name != bars.base_timeframe]
    beside = f"; beside them {', '.join(others)}, seen once closed" if others else ""
    alone = ", if there were one symbol only" if len(bars.symbols) > 1 else ""
    return [
        ("symbols", ", ".join(bars.symbols)),
        ("timeframe", f"{bars.base_timeframe}{beside}"),
        ("from", bars.start or "the first there is"),
        ("to", bars.end or "the last there is"),
        ("needs", f"at least {bars.at_least:,} bars of {bars.base_timeframe}{alone}"),
    ]


def _context(explanation: "Explanation") -> list[tuple[str, object]]:
    return [(series.source_id, series.definition) for series in explanation.context]


def _label(explanation: "Explanation") -> list[tuple[str, object]]:
    label = explanation.label
    horizon = label.horizon_bars
    ahead = f"at most {horizon} bars of {explanation.bars.base_timeframe}" if horizon else "without a limit"
    return [
        (label.source, label.definition),
        ("with", _pairs(label.parameters)),
        ("looks ahead", ahead),
        ("gives", ", ".join(label.classes) or "a number"),
    ]


def _network(explanation: "Explanation") -> list[tuple[str, object]]:
    network = explanation.network
    window = "each bar by itself" if network.window == 1 else f"{network.window} consecutive bars"
    return [
        (network.type, network.definition),
        ("with", _pairs(network.parameters)),
        ("sees", f"{network.inputs} numbers of {window}"),
        ("gives", f"{network.outputs} outputs" if network.outputs > 1 else "one output"),
        ("learns", f"{network.parameter_count:,} parameters"),
    ]


def _training(explanation: "Explanation") -> list[tuple[str, object]]:
    training = explanation.training
    shares = ", ".join(f"{part} {share:.0%}" for part, share in training.split.items())
    clip = training.gradient_clip
    return [
        ("split", f"{shares}, in order of time; no label reaches from one part into the next"),
        ("epochs", f"at most {training.epochs}, in batches of {training.batch_size}"),
        ("optimizer", training.optimizer),
        ("loss", training.loss),
        ("gradient", None if clip is None else f"clipped to a norm of {clip:g}"),
        ("learning rate", training.lr_scheduler or "constant"),
        ("stops early", training.early_stopping or "never"),
        ("keeps", f"the epoch with the best {training.keeps}"),
    ]


def _pairs(values: object) -> str | None:
    from ktrdr.language.allowed import as_written

    assert isinstance(values, dict)
    return ", ".join(f"{name} {as_written(value)}" for name, value in values.items()) or None
