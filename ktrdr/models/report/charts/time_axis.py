"""Panels over a shared time axis: price, groups of rows, borders of the split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ktrdr.models.report.decimation import MAX_LINE_POINTS, Groups, line_rows, rows_per_group
from ktrdr.models.report.figure import Json, Trace, View, axis, literal, packed
from ktrdr.models.report.formatting import count
from ktrdr.models.report.palette import colour
from ktrdr.models.report.rows import PARTS, Floats, Integers, Rows

_GAP = 0.035


@dataclass(frozen=True, slots=True)
class Panel:
    """One of several charts above each other."""

    key: str
    title: str
    weight: float
    """Its height relative to the others."""


@dataclass(frozen=True, slots=True)
class StackedAxes:
    """The axes of panels above each other."""

    numbers: Mapping[str, int]
    """Panel → its number, from the top."""
    layout: Mapping[str, Mapping[str, Json]]

    def of(self, panel: str) -> Trace:
        """Return what puts a trace into the panel."""
        return {"xaxis": "x", "yaxis": _suffixed("y", self.numbers[panel])}

    def with_settings(self, **panels: Mapping[str, Json]) -> dict[str, Json]:
        """Return the layout with more settings for the y axes of some panels."""
        layout: dict[str, Json] = dict(self.layout)
        for panel, settings in panels.items():
            key = _suffixed("yaxis", self.numbers[panel])
            layout[key] = {**self.layout[key], **settings}
        return layout


def stacked_axes(panels: Sequence[Panel]) -> StackedAxes:
    """Lay panels out from top to bottom over one time axis."""
    total = sum(panel.weight for panel in panels)
    room = 1 - _GAP * (len(panels) - 1)
    layout: dict[str, Mapping[str, Json]] = {}
    top = 1.0
    for number, panel in enumerate(panels, start=1):
        bottom = max(0.0, top - room * panel.weight / total)
        layout[_suffixed("yaxis", number)] = axis(panel.title, domain=[round(bottom, 4), round(top, 4)])
        top = bottom - _GAP
    layout["xaxis"] = axis(
        "Time (UTC)", type="date", anchor=_suffixed("y", len(panels)), hoverformat="%Y-%m-%d %H:%M"
    )
    return StackedAxes({panel.key: number for number, panel in enumerate(panels, start=1)}, layout)


def _suffixed(name: str, number: int) -> str:
    return name if number == 1 else f"{name}{number}"


def bar_ms(times_ms: Integers) -> int:
    """Return how long a bar is: the most usual distance of two."""
    return int(np.median(np.diff(times_ms))) if len(times_ms) > 1 else 1


def group_edges(rows: Rows, groups: Groups) -> tuple[Floats, Floats]:
    """Return when the groups begin and end, in milliseconds: where the next begins, or the part ends."""
    starts = rows.times_ms[groups.starts].astype(np.float64)
    closes = rows.times_ms[groups.ends] + float(bar_ms(rows.times_ms))
    part_ends = np.append(np.diff(rows.parts[groups.starts]) > 0, [True])
    return starts, np.where(part_ends, closes, np.append(starts[1:], np.inf))


def price_note(rows: Rows) -> str:
    """Say what the line of the closes leaves out."""
    if len(rows) <= MAX_LINE_POINTS:
        return "The price line shows every row"
    return (
        f"The price line shows the lowest and highest close of every {count(rows_per_group(len(rows)))} rows"
    )


def price_trace(rows: Rows, symbol: str, axes: Trace) -> Trace:
    """Return the line of the closes."""
    chosen = line_rows(rows.close)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": packed(rows.times_ms[chosen]),
        "y": packed(rows.close[chosen], "f4"),
        "name": literal(symbol),
        "showlegend": False,
        "line": {"width": 1.2, "color": colour("ink")},
        "hovertemplate": "%{y:.6~g}",
        **axes,
    }


@dataclass(frozen=True, slots=True)
class PartMarks:
    """Borders of the split, and the names of its parts."""

    shapes: list[Json]
    annotations: list[Json]


def part_marks(rows: Rows) -> PartMarks:
    """Mark where each part of the split is; the test part is shaded."""
    shapes: list[Json] = []
    annotations: list[Json] = []
    for name, start, end in _spans(rows):
        shapes.append(
            {
                "type": "rect",
                "yref": "paper",
                "x0": start,
                "x1": end,
                "y0": 0,
                "y1": 1,
                "layer": "below",
                "line": {"width": 1, "color": colour("border")},
                "fillcolor": colour("accent", 0.07 if name == "test" else 0.0),
            }
        )
        annotations.append(
            {
                "text": name,
                "x": (start + end) / 2,
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 11, "color": colour("muted")},
            }
        )
    return PartMarks(shapes, annotations)


def part_views(rows: Rows) -> tuple[View, ...]:
    """Return buttons that show the whole time or one part, with the price to scale."""
    spans = _spans(rows)
    views = [
        ("All", spans[0][1], spans[-1][2]),
        *((name.capitalize(), start, end) for name, start, end in spans),
    ]
    return tuple(View(title, _ranges(rows, start, end)) for title, start, end in views)


def _ranges(rows: Rows, start: float, end: float) -> Mapping[str, Json]:
    inside = rows.close[
        np.searchsorted(rows.times_ms, start) : np.searchsorted(rows.times_ms, end, side="right")
    ]
    low, high = float(inside.min()), float(inside.max())
    margin = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    return {"xaxis.range": [start, end], "yaxis.range": [low - margin, high + margin]}


def _spans(rows: Rows) -> list[tuple[str, float, float]]:
    spans = []
    for number, name in enumerate(PARTS):
        inside = rows.times_ms[rows.parts == number]
        if len(inside):
            spans.append((name, float(inside[0]), float(inside[-1]) + bar_ms(rows.times_ms)))
    return spans
