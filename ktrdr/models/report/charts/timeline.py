"""A classifier's labels and answers over time, below the price."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ktrdr.models.report.charts.time_axis import (
    Panel,
    bar_ms,
    group_edges,
    part_marks,
    part_views,
    price_note,
    price_trace,
    stacked_axes,
)
from ktrdr.models.report.decimation import MAX_RIBBON_CELLS, Groups, group_rows
from ktrdr.models.report.figure import Figure, Json, Trace, literal, packed
from ktrdr.models.report.formatting import count, counted, percent
from ktrdr.models.report.palette import class_roles, colour
from ktrdr.models.report.rows import PARTS, ClassifiedRows, Floats, Integers

Booleans = npt.NDArray[np.bool_]

SHARE_GROUPS = 90
PROBABILITY_GROUPS = 300

_PANELS = (
    Panel("price", "Close", weight=5.0),
    Panel("rows", "", weight=1.1),
    Panel("true", "True share", weight=2.2),
    Panel("predicted", "Predicted share", weight=2.2),
    Panel("probability", "Mean probability", weight=2.6),
)


def timeline_figure(rows: ClassifiedRows, classes: Sequence[str], symbol: str) -> Figure:
    """Return price, true and predicted class of each row, their shares in groups, and mean probabilities."""
    axes = stacked_axes(_PANELS)
    roles = class_roles(classes)
    groups = group_rows(rows.parts, SHARE_GROUPS)
    ribbon = group_rows(rows.parts, MAX_RIBBON_CELLS)
    fine = group_rows(rows.parts, PROBABILITY_GROUPS)
    true_shares = groups.shares(rows.label, len(classes))
    predicted_shares = groups.shares(rows.prediction, len(classes))
    traces: list[Trace] = [
        price_trace(rows, symbol, axes.of("price")),
        _ribbon(rows, ribbon, classes, roles, axes.of("rows")),
    ]
    for number, (name, role) in enumerate(zip(classes, roles, strict=True)):
        traces += [
            _share_bars(rows, groups, true_shares[:, number], name, role, axes.of("true"), legend=True),
            _share_bars(
                rows, groups, predicted_shares[:, number], name, role, axes.of("predicted"), legend=False
            ),
            _probability_line(
                rows, fine, fine.means(rows.probabilities[:, number]), name, role, axes.of("probability")
            ),
        ]
    shares: Mapping[str, Json] = {"tickformat": ".0%", "range": [0, 1], "fixedrange": True, "nticks": 3}
    layout = axes.with_settings(
        rows={
            "tickvals": [0, 1],
            "ticktext": ["predicted", "true"],
            "range": [-0.55, 1.55],
            "fixedrange": True,
            "showgrid": False,
        },
        true=shares,
        predicted=shares,
        probability={"tickformat": ".0%", "nticks": 4},
    )
    marks = part_marks(rows)
    layout |= {
        "barmode": "stack",
        "bargap": 0,
        "hovermode": "x",
        "hoversubplots": "axis",
        "shapes": marks.shapes,
        "annotations": marks.annotations,
    }
    return Figure(
        key=f"chart-timeline-{rows.symbols[0] + 1}",
        title=f"{symbol}: labels and predictions over time",
        summary=_summary(rows, classes, groups, fine, ribbon),
        traces=tuple(traces),
        layout=layout,
        height_px=980,
        views=part_views(rows),
    )


def _ribbon(
    rows: ClassifiedRows, cells: Groups, classes: Sequence[str], roles: Sequence[str], axes: Trace
) -> Trace:
    """Two lines of cells, coloured by class; rows that share a cell show what most of them have."""
    edges, hole = _cell_edges(rows.times_ms, cells)
    grid = np.full((2, len(edges) - 1), np.nan)
    for line, numbers in enumerate((rows.prediction, rows.label)):
        grid[line, ~hole] = cells.shares(numbers, len(classes)).argmax(axis=1)
    names = np.array([*(literal(name) for name in classes), ""])
    text = names[np.where(np.isnan(grid), -1, grid).astype(np.int64)]
    last = max(len(classes), 1)
    scale: list[Json] = []
    for number, role in enumerate(roles):
        scale += [[number / last, colour(role)], [(number + 1) / last, colour(role)]]
    return {
        "type": "heatmap",
        "x": packed(edges),
        "y": [0, 1],
        "z": packed(grid, "f4"),
        "text": text.tolist(),
        "zmin": -0.5,
        "zmax": len(classes) - 0.5,
        "colorscale": scale,
        "showscale": False,
        "hoverongaps": False,
        "ygap": 2,
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        **axes,
    }


def _cell_edges(times_ms: Integers, cells: Groups) -> tuple[Floats, Booleans]:
    """Return the edges of the cells and of the holes between them, where no bar is; and which are holes."""
    pairs = np.column_stack([times_ms[cells.starts], times_ms[cells.ends] + bar_ms(times_ms)])
    before_hole = np.append(pairs[1:, 0] > pairs[:-1, 1], [False])
    kept = np.column_stack([np.ones_like(before_hole), before_hole])
    hole = np.column_stack([np.zeros_like(before_hole), before_hole])[kept]
    return np.append(pairs[kept], pairs[-1, 1]).astype(np.float64), hole


def _share_bars(
    rows: ClassifiedRows, groups: Groups, shares: Floats, name: str, role: str, axes: Trace, *, legend: bool
) -> Trace:
    starts, ends = group_edges(rows, groups)
    return {
        "type": "bar",
        "x": packed((starts + ends) / 2),
        "width": packed(ends - starts),
        "y": packed(shares, "f4"),
        "name": literal(name),
        "legendgroup": literal(name),
        "showlegend": legend,
        "marker": {"color": colour(role), "line": {"width": 0}},
        "hovertemplate": "%{y:.0%}",
        **axes,
    }


def _probability_line(
    rows: ClassifiedRows, groups: Groups, means: Floats, name: str, role: str, axes: Trace
) -> Trace:
    starts, ends = group_edges(rows, groups)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": packed((starts + ends) / 2),
        "y": packed(means, "f4"),
        "name": literal(name),
        "legendgroup": literal(name),
        "showlegend": False,
        "line": {"width": 1.5, "color": colour(role)},
        "hovertemplate": "%{y:.1%}",
        **axes,
    }


def _summary(
    rows: ClassifiedRows, classes: Sequence[str], groups: Groups, fine: Groups, ribbon: Groups
) -> str:
    tested = rows.test
    true = np.bincount(rows.label[tested], minlength=len(classes)) / rows.tested
    predicted = np.bincount(rows.prediction[tested], minlength=len(classes)) / rows.tested
    said = ", ".join(
        f"{name} {percent(float(predicted[i]), 0)} (true {percent(float(true[i]), 0)})"
        for i, name in enumerate(classes)
    )
    cells = (
        "each row is a cell"
        if ribbon.largest == 1
        else f"{count(ribbon.largest)} rows share a cell, in the colour that most of them have"
    )
    return (
        f"{count(len(rows))} rows in {len(PARTS)} parts. On the test part the model answers {said}. "
        f"{price_note(rows)}. In the strip below it {cells}; the shares are over groups of up to "
        f"{counted(groups.largest, 'row')}, the probabilities are means of {counted(fine.largest, 'row')}."
    )
