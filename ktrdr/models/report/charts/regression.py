"""A regression's predictions against what happened."""

import numpy as np

from ktrdr.models.report.charts.time_axis import (
    Panel,
    group_edges,
    part_marks,
    part_views,
    price_note,
    price_trace,
    stacked_axes,
)
from ktrdr.models.report.decimation import MAX_SCATTER_POINTS, Groups, group_rows
from ktrdr.models.report.figure import Figure, Trace, axis, packed
from ktrdr.models.report.formatting import count, counted, number, percent
from ktrdr.models.report.palette import colour
from ktrdr.models.report.rows import Floats, RegressedRows

TIME_GROUPS = 150
_SHARES = (0.1, 0.5, 0.9)

_PANELS = (
    Panel("price", "Close", weight=4.0),
    Panel("values", "Return", weight=3.0),
    Panel("residuals", "Residual", weight=2.4),
    Panel("sign", "Sign accuracy", weight=2.0),
)


def regression_figures(rows: RegressedRows) -> tuple[Figure, ...]:
    """Return the scatter and the residuals of the test part."""
    return _scatter(rows), _residuals(rows)


def regression_timeline(rows: RegressedRows, symbol: str) -> Figure:
    """Return the values of one symbol over time, below the price."""
    axes = stacked_axes(_PANELS)
    groups = group_rows(rows.parts, TIME_GROUPS)
    starts, ends = group_edges(rows, groups)
    middle = (starts + ends) / 2
    right = (np.sign(rows.label) == np.sign(rows.prediction)).astype(np.float64)
    sign_line: Trace = {
        "type": "bar",
        "x": packed(middle),
        "width": packed(ends - starts),
        "y": packed(groups.means(right), "f4"),
        "name": "Sign accuracy",
        "showlegend": False,
        "marker": {"color": colour("accent", 0.55), "line": {"width": 0}},
        "hovertemplate": "%{y:.0%}",
        **axes.of("sign"),
    }
    layout = axes.with_settings(
        values={"tickformat": ".2~%", "zeroline": True},
        residuals={"tickformat": ".2~%", "zeroline": True},
        sign={"tickformat": ".0%", "range": [0, 1], "fixedrange": True, "nticks": 3},
    )
    marks = part_marks(rows)
    layout |= {
        "bargap": 0,
        "hovermode": "x",
        "hoversubplots": "axis",
        "shapes": marks.shapes,
        "annotations": marks.annotations,
    }
    return Figure(
        key=f"chart-timeline-{rows.symbols[0] + 1}",
        title=f"{symbol}: returns and predictions over time",
        summary=(
            f"{count(len(rows))} rows. {price_note(rows)}. Below it are groups of up to "
            f"{counted(groups.largest, 'row')}, each with its median and, as a band, the middle 80\u00a0%. "
            f"On the test part the sign is right in {percent(float(right[rows.test].mean()))} of the rows."
        ),
        traces=(
            price_trace(rows, symbol, axes.of("price")),
            *_band(middle, groups, rows.label, "Actual", "flat", axes.of("values")),
            *_band(middle, groups, rows.prediction, "Predicted", "accent", axes.of("values")),
            *_band(middle, groups, rows.prediction - rows.label, "Residual", "down", axes.of("residuals")),
            sign_line,
        ),
        layout=layout,
        height_px=880,
        views=part_views(rows),
    )


def _band(
    middle: Floats, groups: Groups, values: Floats, name: str, role: str, axes: Trace
) -> tuple[Trace, ...]:
    low, median, high = groups.quantiles(values, _SHARES)
    x = packed(middle)
    edge: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "line": {"width": 0},
        "showlegend": False,
        "legendgroup": name,
        "hoverinfo": "skip",
        **axes,
    }
    return (
        {**edge, "y": packed(low, "f4")},
        {**edge, "y": packed(high, "f4"), "fill": "tonexty", "fillcolor": colour(role, 0.18)},
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": packed(median, "f4"),
            "name": name,
            "legendgroup": name,
            "line": {"width": 1.6, "color": colour(role)},
            "hovertemplate": "%{y:.3%}",
            **axes,
        },
    )


def _scatter(rows: RegressedRows) -> Figure:
    actual, predicted = rows.label[rows.test], rows.prediction[rows.test]
    step = -(-len(actual) // MAX_SCATTER_POINTS)
    shown = "all" if step == 1 else f"1 in {count(step)} of the"
    limit = 1.05 * float(max(np.abs(actual).max(), np.abs(predicted).max())) or 1.0
    varied = actual.std() > 0 and predicted.std() > 0
    correlation = float(np.corrcoef(actual, predicted)[0, 1]) if varied else 0.0
    spread = float(predicted.std() / actual.std()) if varied else 0.0
    return Figure(
        key="chart-scatter",
        title="Predicted against actual",
        summary=(
            f"Shows {shown} {count(len(actual))} test rows; the correlation is {number(correlation, 2)}, "
            f"and predictions spread {number(spread, 2)} times as wide as what happened."
        ),
        traces=(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [-limit, limit],
                "y": [-limit, limit],
                "name": "Perfect",
                "hoverinfo": "skip",
                "line": {"width": 1, "dash": "dot", "color": colour("muted")},
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": packed(actual[::step], "f4"),
                "y": packed(predicted[::step], "f4"),
                "name": "Test row",
                "marker": {"size": 5, "color": colour("accent", 0.45)},
                "hovertemplate": "actual %{x:.3%}<br>predicted %{y:.3%}<extra></extra>",
            },
        ),
        layout={
            "hovermode": "closest",
            "showlegend": False,
            "xaxis": axis("Actual return", tickformat=".2~%", zeroline=True),
            "yaxis": axis("Predicted return", tickformat=".2~%", zeroline=True),
        },
        height_px=380,
    )


def _residuals(rows: RegressedRows) -> Figure:
    residuals = (rows.prediction - rows.label)[rows.test]
    counts, edges = np.histogram(residuals, bins=min(60, max(10, round(len(residuals) ** 0.5))))
    low, high = np.quantile(residuals, [0.05, 0.95])
    return Figure(
        key="chart-residuals",
        title="Residuals",
        summary=(
            f"Predicted less actual on the test part: mean {percent(float(residuals.mean()), 3)}, "
            f"90\u00a0% of them between {percent(float(low), 2)} and {percent(float(high), 2)}."
        ),
        traces=(
            {
                "type": "bar",
                "x": ((edges[1:] + edges[:-1]) / 2).tolist(),
                "y": counts.tolist(),
                "width": (0.96 * np.diff(edges)).tolist(),
                "name": "Test rows",
                "marker": {"color": colour("down", 0.75), "line": {"width": 0}},
                "hovertemplate": "%{x:.3%}: %{y} rows<extra></extra>",
            },
        ),
        layout={
            "showlegend": False,
            "xaxis": axis("Residual (predicted − actual)", tickformat=".2~%", zeroline=True),
            "yaxis": axis("Test rows"),
        },
        height_px=380,
    )
