"""The functions of each fuzzy set."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from ktrdr.errors import ModelCorruptError, UnknownNameError
from ktrdr.features.memberships import MEMBERSHIPS, Gaussian, Membership, Trapezoidal
from ktrdr.models.metadata import FeatureRecord, ModelMetadata
from ktrdr.models.report.figure import Figure, Trace, axis, literal, packed
from ktrdr.models.report.formatting import english_list, plain
from ktrdr.models.report.palette import OTHERS, colour
from ktrdr.models.report.rows import Floats

_POINTS = 200
_BELL_SIGMAS = 3.5
_NEAR = 2.0
"""An end of a shoulder is shown if it is this close, in widths of the range in which the functions differ."""


def membership_figures(metadata: ModelMetadata) -> tuple[Figure, ...]:
    """Return a chart for each fuzzy set; sets that are used on several timeframes come once."""
    fuzzy = [feature for feature in metadata.features if feature.fuzzy_set is not None]
    ordered = list(dict.fromkeys(feature.fuzzy_set for feature in fuzzy))
    by_set = groupby(
        sorted(fuzzy, key=lambda feature: ordered.index(feature.fuzzy_set)),
        key=lambda feature: feature.fuzzy_set,
    )
    return tuple(_figure(number, list(features)) for number, (_, features) in enumerate(by_set, start=1))


def _figure(number: int, features: Sequence[FeatureRecord]) -> Figure:
    memberships = {feature.membership or "": _membership(feature) for feature in features}
    values = _values(list(memberships.values()))
    first = features[0]
    source = f"{first.indicator}.{first.output}" if first.output else first.indicator
    timeframes = list(dict.fromkeys(feature.timeframe for feature in features))
    uncovered = _uncovered(values, list(memberships.values()))
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": packed(values),
            "y": packed(membership.degree(values), "f4"),
            "name": literal(name),
            "line": {"width": 2, "color": colour(OTHERS[position % len(OTHERS)])},
            "hovertemplate": "%{y:.2f}",
        }
        for position, (name, membership) in enumerate(memberships.items())
    ]
    return Figure(
        key=f"chart-set-{number}",
        title=str(first.fuzzy_set),
        summary=f"Of {source} on {english_list(timeframes)}: "
        + "; ".join(f"{name} {_describe(membership)}" for name, membership in memberships.items())
        + f".{uncovered}",
        traces=tuple(traces),
        layout={
            "hovermode": "x unified",
            "xaxis": axis(source, hoverformat=".5~g"),
            "yaxis": axis("Degree", range=[-0.03, 1.05], tickvals=[0, 0.5, 1]),
            "showlegend": True,
        },
        height_px=250,
    )


def _membership(feature: FeatureRecord) -> Membership:
    try:
        return MEMBERSHIPS.get(feature.membership_type or "").from_list(feature.membership_parameters)
    except (ValueError, UnknownNameError) as error:
        raise ModelCorruptError(
            f"The membership function of the feature {feature.feature_id} is not one: {error}"
        ) from error


def _values(memberships: Sequence[Membership]) -> Floats:
    """Return where to draw, corners included."""
    corners = np.unique(np.concatenate([_corners(membership) for membership in memberships]))
    start, end = _window(memberships, corners)
    margin = 0.04 * (end - start) or 0.5
    grid = np.linspace(start - margin, end + margin, _POINTS)
    # A step is two corners in one place: a value close to either side makes it steep in the chart.
    beside = np.concatenate([corners - 1e-6 * margin, corners, corners + 1e-6 * margin])
    inside = beside[(beside > grid[0]) & (beside < grid[-1])]
    values: Floats = np.unique(np.concatenate([grid, inside]))
    return values


def _window(memberships: Sequence[Membership], corners: Floats) -> tuple[float, float]:
    """Return the range in which the functions differ.

    The outermost sets are often trapezoids whose shoulder ends where no value ever is, as in -1 or 1 for
    something of the order of 0.001: such ends are left out, and only the beginning of the shoulder is shown.
    """
    first = min(memberships, key=lambda membership: _corners(membership)[0])
    last = max(memberships, key=lambda membership: _corners(membership)[-1])
    ends = [
        *(first.parameters[:2] if isinstance(first, Trapezoidal) else ()),
        *(last.parameters[2:] if isinstance(last, Trapezoidal) else ()),
    ]
    inner = corners[~np.isin(corners, ends)]
    if len(inner) < 2:
        return float(corners[0]), float(corners[-1])
    width = inner[-1] - inner[0]
    near = corners[(corners >= inner[0] - _NEAR * width) & (corners <= inner[-1] + _NEAR * width)]
    start = near[0] if near[0] == corners[0] else min(near[0], inner[0] - width / 2)
    end = near[-1] if near[-1] == corners[-1] else max(near[-1], inner[-1] + width / 2)
    return float(start), float(end)


def _corners(membership: Membership) -> Floats:
    if isinstance(membership, Gaussian):
        reach = _BELL_SIGMAS * membership.sigma
        return np.array([membership.mu - reach, membership.mu, membership.mu + reach])
    return np.array(membership.parameters)


def _describe(membership: Membership) -> str:
    parameters = ", ".join(plain(value) for value in membership.parameters)
    return f"{type(membership).__name__.lower()} ({parameters})"


def _uncovered(values: Floats, memberships: Sequence[Membership]) -> str:
    """Say where, between the outermost corners, no function is above zero: the network sees nothing there."""
    highest = np.max([membership.degree(values) for membership in memberships], axis=0)
    corners = np.concatenate([_corners(membership) for membership in memberships])
    inside = (values > corners.min()) & (values < corners.max())
    dead = inside & (highest <= 0)
    # A single point, where two triangles touch, is no gap.
    borders = np.flatnonzero(np.diff(np.concatenate([[False], dead, [False]]).astype(np.int8)))
    gaps = [
        f"{plain(values[begin])} to {plain(values[end - 1])}"
        for begin, end in zip(borders[::2], borders[1::2], strict=True)
        if values[end - 1] - values[begin] > 1e-3 * (corners.max() - corners.min())
    ]
    return f" No function covers {english_list(gaps)}." if gaps else ""
