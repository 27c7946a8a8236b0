"""Whether a probability of 60 % comes true in 60 % of the cases."""

from collections.abc import Sequence

import numpy as np

from ktrdr.models.report.figure import Figure, Trace, axis, literal
from ktrdr.models.report.formatting import counted, percent
from ktrdr.models.report.palette import class_roles, colour
from ktrdr.models.report.rows import ClassifiedRows, Floats

MAX_BINS = 10
_ROWS_PER_BIN = 150
"""So that the share that came true is known to some 4 points."""


def calibration_figures(rows: ClassifiedRows, classes: Sequence[str]) -> tuple[Figure, ...]:
    """Return, of the test part, how reliable each class's probability is and how high the highest."""
    return _reliability(rows, classes), _confidence(rows, classes)


def _reliability(rows: ClassifiedRows, classes: Sequence[str]) -> Figure:
    probabilities, labels = rows.probabilities[rows.test], rows.label[rows.test]
    bins = max(1, min(MAX_BINS, len(labels) // _ROWS_PER_BIN))
    diagonal: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "name": "Perfect",
        "hoverinfo": "skip",
        "line": {"width": 1, "dash": "dot", "color": colour("muted")},
    }
    traces: list[Trace] = [diagonal]
    errors = []
    shares = []
    for number, (name, role) in enumerate(zip(classes, class_roles(classes), strict=True)):
        said, came, sizes = _bins(probabilities[:, number], labels == number, bins)
        errors.append(float(np.average(np.abs(said - came), weights=sizes)))
        shares += [said, came]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": said.round(5).tolist(),
                "y": came.round(5).tolist(),
                "customdata": sizes.tolist(),
                "name": literal(name),
                "line": {"width": 2, "color": colour(role)},
                "marker": {"size": 7, "color": colour(role)},
                "hovertemplate": "said %{x:.1%}, came true %{y:.1%}<br>%{customdata} rows",
            }
        )
    drawn = np.concatenate(shares)
    limits = [max(0.0, float(drawn.min()) - 0.04), min(1.0, float(drawn.max()) + 0.04)]
    return Figure(
        key="chart-reliability",
        title="Reliability",
        summary=(
            f"Test rows in {counted(bins, 'bin')} of equal size by predicted probability. "
            "Mean distance from the diagonal: "
            + ", ".join(f"{name} {percent(error)}" for name, error in zip(classes, errors, strict=True))
            + "."
        ),
        traces=tuple(traces),
        layout={
            "hovermode": "closest",
            "xaxis": axis("Predicted probability", tickformat=".0%", range=limits),
            "yaxis": axis("Share that came true", tickformat=".0%", range=limits),
        },
        height_px=360,
    )


def _bins(said: Floats, came: np.ndarray, bins: int) -> tuple[Floats, Floats, np.ndarray]:
    order = np.argsort(said, kind="stable")
    starts = np.arange(bins) * len(said) // bins
    sizes = np.diff(np.append(starts, len(said)))
    means = [np.add.reduceat(values[order].astype(np.float64), starts) / sizes for values in (said, came)]
    return means[0], means[1], sizes


def _confidence(rows: ClassifiedRows, classes: Sequence[str]) -> Figure:
    highest = rows.probabilities[rows.test].max(axis=1)
    right = rows.prediction[rows.test] == rows.label[rows.test]
    edges = np.linspace(1 / len(classes), max(float(highest.max()), 1 / len(classes) + 0.01), 25)
    traces: list[Trace] = []
    for name, role, chosen in (("Right", "accent", right), ("Wrong", "flat", ~right)):
        traces.append(
            {
                "type": "bar",
                "x": ((edges[1:] + edges[:-1]) / 2).round(5).tolist(),
                "y": np.histogram(highest[chosen], bins=edges)[0].tolist(),
                "name": name,
                "marker": {"color": colour(role), "line": {"width": 0}},
                "hovertemplate": "%{y} rows",
            }
        )
    surest = highest >= np.quantile(highest, 0.9)
    return Figure(
        key="chart-confidence",
        title="Confidence",
        summary=(
            f"The highest probability of a test row has the median {percent(float(np.median(highest)))}. "
            f"{percent(float(right.mean()))} of all rows are right, and of the surest tenth "
            f"({counted(int(surest.sum()), 'row')}) {percent(float(right[surest].mean()))}."
        ),
        traces=tuple(traces),
        layout={
            "barmode": "stack",
            "bargap": 0.05,
            "hovermode": "x unified",
            "xaxis": axis("Highest probability", tickformat=".0%", hoverformat=".0%"),
            "yaxis": axis("Test rows"),
        },
        height_px=360,
    )
