"""What the template shows, computed."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ktrdr.events.references import FileDigest
from ktrdr.models.bundle import digests
from ktrdr.models.metadata import ModelMetadata, SplitPart
from ktrdr.models.report.baselines import baseline_names
from ktrdr.models.report.charts.calibration import calibration_figures
from ktrdr.models.report.charts.history import history_figures
from ktrdr.models.report.charts.memberships import membership_figures
from ktrdr.models.report.charts.regression import regression_figures, regression_timeline
from ktrdr.models.report.charts.timeline import timeline_figure
from ktrdr.models.report.context import ReportContext
from ktrdr.models.report.figure import Figure, to_script_json
from ktrdr.models.report.formatting import in_usual_order, measure, metric
from ktrdr.models.report.palette import class_roles
from ktrdr.models.report.rows import PARTS, ClassifiedRows, Rows
from ktrdr.models.report.verdict import Verdict, judge

_MOST_TIMELINES = 6
"""Each is some 100 KB of the page."""

SECTIONS = {
    "result": "Result",
    "time": "Over time",
    "answers": "Classes",
    "training": "Training",
    "features": "Features",
    "data": "Data",
    "configuration": "Configuration",
    "provenance": "Provenance",
}


@dataclass(frozen=True, slots=True)
class MetricCell:
    """A metric of the model or of a baseline."""

    text: str
    best: bool


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of the model and of every baseline."""

    title: str
    cells: tuple[MetricCell, ...]


@dataclass(frozen=True, slots=True)
class ClassShares:
    """How often each class is the label and the answer, in one part of the split."""

    part: str
    shares: tuple[tuple[float, float], ...]
    """True and predicted share, by class."""


@dataclass(frozen=True, slots=True)
class SymbolLine:
    """How good the model is on the test rows of one symbol."""

    name: str
    rows: int
    right: float | None
    """Share of right classes, or of right signs; None without test rows."""


@dataclass(frozen=True, slots=True)
class SplitLine:
    """One part of the split."""

    name: str
    part: SplitPart
    share: float


@dataclass(frozen=True, slots=True)
class IndicatorLine:
    """An indicator that a feature is made from."""

    indicator_id: str
    type: str
    parameters: str


@dataclass(frozen=True, slots=True)
class Page:
    """Everything in the page that is not simply a field of the metadata or the context."""

    sections: tuple[tuple[str, str], ...]
    verdict: Verdict
    baselines: tuple[str, ...]
    metric_rows: tuple[MetricRow, ...]
    timelines: tuple[Figure, ...]
    """One per symbol."""
    symbols: tuple[SymbolLine, ...]
    """Empty where there is one."""
    answers: tuple[Figure, ...]
    history: tuple[Figure, ...]
    training_metrics: tuple[tuple[str, str], ...]
    memberships: tuple[Figure, ...]
    roles: Mapping[str, str]
    """Class → role of its colour."""
    class_shares: tuple[ClassShares, ...]
    indicators: tuple[IndicatorLine, ...]
    split: tuple[SplitLine, ...]
    overrides: tuple[tuple[str, str], ...]
    source: tuple[tuple[tuple[str, str], ...], ...]
    """Lines of the strategy file as pieces: CSS class (or none) and text."""
    versions: tuple[tuple[str, str], ...]
    digests: tuple[tuple[str, FileDigest], ...]
    longest_s: float
    total_s: float

    @property
    def figures_json(self) -> Markup:
        """The charts, for the page's script; not to be escaped, as a script element knows no entities."""
        figures = (*self.timelines, *self.answers, *self.history, *self.memberships)
        return Markup(to_script_json({figure.key: figure.spec for figure in figures}))  # noqa: S704 - has no "<"


def make_page(
    files: Mapping[str, bytes], metadata: ModelMetadata, strategy: str, rows: Rows, context: ReportContext
) -> Page:
    """Compute the page."""
    classified = isinstance(rows, ClassifiedRows)
    answers = (
        calibration_figures(rows, metadata.classes)
        if isinstance(rows, ClassifiedRows)
        else regression_figures(rows)
    )
    seconds = [timing.seconds for timing in context.timings]
    used = sum(part.rows for part in _parts(metadata).values())
    return Page(
        sections=tuple({**SECTIONS, "answers": "Classes" if classified else "Errors"}.items()),
        verdict=judge(rows, metadata),
        baselines=tuple(baseline_names(metadata)),
        metric_rows=_metric_rows(metadata),
        timelines=_timelines(rows, metadata),
        symbols=_symbol_lines(rows, metadata),
        answers=answers,
        training_metrics=_training_metrics(metadata),
        history=history_figures(metadata),
        memberships=membership_figures(metadata),
        roles=dict(zip(metadata.classes, class_roles(metadata.classes), strict=True)),
        class_shares=_class_shares(rows, len(metadata.classes)),
        indicators=_indicators(metadata),
        split=tuple(SplitLine(name, part, part.rows / used) for name, part in _parts(metadata).items()),
        overrides=tuple(
            (key, json.dumps(value, ensure_ascii=False)) for key, value in metadata.overrides.items()
        ),
        source=tuple(_pieces(line) for line in _lines(strategy)),
        versions=_versions(metadata),
        digests=tuple(digests(files).items()),
        longest_s=max([*seconds, 1e-9]),
        total_s=sum(seconds),
    )


def _timelines(rows: Rows, metadata: ModelMetadata) -> tuple[Figure, ...]:
    figures: list[Figure] = []
    for number, symbol in enumerate(metadata.training_symbols):
        mine = rows.of_symbol(number) if len(metadata.training_symbols) > 1 else rows
        if not mine.tested:
            continue
        if len(figures) == _MOST_TIMELINES:
            break
        if isinstance(mine, ClassifiedRows):
            figures.append(timeline_figure(mine, metadata.classes, symbol))
        else:
            figures.append(regression_timeline(mine, symbol))
    return tuple(figures)


def _symbol_lines(rows: Rows, metadata: ModelMetadata) -> tuple[SymbolLine, ...]:
    if len(metadata.training_symbols) == 1:
        return ()
    lines = []
    for number, symbol in enumerate(metadata.training_symbols):
        mine = rows.of_symbol(number)
        label, prediction = mine.label[mine.test], mine.prediction[mine.test]
        if not isinstance(mine, ClassifiedRows):
            label, prediction = np.sign(label), np.sign(prediction)
        right = float((label == prediction).mean()) if mine.tested else None
        lines.append(SymbolLine(symbol, mine.tested, right))
    return tuple(lines)


def _parts(metadata: ModelMetadata) -> Mapping[str, SplitPart]:
    split = metadata.split
    return dict(zip(PARTS, (split.train, split.validation, split.test), strict=True))


def _metric_rows(metadata: ModelMetadata) -> tuple[MetricRow, ...]:
    contenders = [metadata.test_metrics, *(metadata.baselines[name] for name in baseline_names(metadata))]
    lines = []
    for name in in_usual_order(dict.fromkeys(key for metrics in contenders for key in metrics)):
        values = [metrics.get(name) for metrics in contenders]
        known = [value for value in values if value is not None]
        best = max(known) if measure(name).higher_is_better else min(known)
        cells = (MetricCell(metric(value, name), len(known) > 1 and value == best) for value in values)
        lines.append(MetricRow(measure(name).title, tuple(cells)))
    return tuple(lines)


def _training_metrics(metadata: ModelMetadata) -> tuple[tuple[str, str], ...]:
    values = metadata.training_metrics
    accuracy = "sign accuracy" if metadata.output_type == "regression" else "accuracy"
    return tuple(
        (measure(name).title.replace("accuracy", accuracy), metric(values[name], name))
        for name in in_usual_order(values)
    )


def _class_shares(rows: Rows, classes: int) -> tuple[ClassShares, ...]:
    if not isinstance(rows, ClassifiedRows):
        return ()
    lines = []
    for number, name in enumerate(PARTS):
        inside = rows.parts == number
        total = max(int(inside.sum()), 1)
        true, predicted = (
            np.bincount(values[inside], minlength=classes) / total for values in (rows.label, rows.prediction)
        )
        lines.append(ClassShares(name, tuple(zip(true.tolist(), predicted.tolist(), strict=True))))
    return tuple(lines)


def _indicators(metadata: ModelMetadata) -> tuple[IndicatorLine, ...]:
    defined = metadata.effective_strategy.get("indicators")
    lines = []
    for indicator_id in dict.fromkeys(feature.indicator for feature in metadata.features):
        definition = defined.get(indicator_id) if isinstance(defined, dict) else None
        if isinstance(definition, dict):
            parameters = ", ".join(f"{key} {value}" for key, value in definition.items() if key != "type")
            lines.append(IndicatorLine(indicator_id, str(definition.get("type", "")), parameters))
    return tuple(lines)


def _versions(metadata: ModelMetadata) -> tuple[tuple[str, str], ...]:
    titles = {"ktrdr": "ktrdr", "python": "Python", "torch": "PyTorch", "numpy": "NumPy", "ta_lib": "TA-Lib"}
    own = [(titles.get(name, name), str(version)) for name, version in metadata.versions]
    return (*own, *sorted({(plugin.distribution, plugin.version) for plugin in metadata.plugins}))


_YAML_LINE = re.compile(
    r"^(?P<lead>\s*(?:-\s+)*)(?P<key>[\w.\-]+(?=:(?:\s|$)))?(?P<rest>.*?)(?P<comment>(?:^|(?<=\s))#.*)?$"
)


def _pieces(line: str) -> tuple[tuple[str, str], ...]:
    match = _YAML_LINE.match(line)
    if match is None:
        return (("", line),)
    pieces = (("", match["lead"]), ("key", match["key"]), ("", match["rest"]), ("comment", match["comment"]))
    return tuple((kind, text) for kind, text in pieces if text)


def _lines(text: str) -> list[str]:
    # Not splitlines(), which knows more line ends than editors and YAML's problem reports do.
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")
