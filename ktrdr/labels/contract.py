"""Does a label source keep what `LabelSource` and `Labels` promise? For plug-ins, and for our own."""

from collections.abc import Callable, Iterator

import numpy as np

from ktrdr.errors import PluginError
from ktrdr.labels.base import Labels, LabelSource, as_table
from ktrdr.market.bars import Bars


def sound_labels(source: LabelSource, bars: Bars, check: Callable[[], None]) -> Labels:
    """Return the labels of bars, of which all that can be seen of them alone has been checked.

    Args:
        source: any, also of a plug-in.
        bars: as for `LabelSource.compute`.
        check: likewise.

    Raises:
        DataError: the bars cannot be labelled.
        PluginError: says what is wrong with the labels first.
    """
    labels = source.compute(bars, check)
    check()
    if fault := next(_faults_of(labels, source, bars), None):
        kind = type(source)
        raise PluginError(
            f"The label source {kind.__module__}.{kind.__qualname__} breaks its contract: {fault}.",
            fix="Correct it; `ktrdr.labels.base.Labels` says what is expected.",
        )
    return labels


def label_faults(source: LabelSource, bars: Bars, check: Callable[[], None]) -> tuple[str, ...]:
    """Return what a source does otherwise than `LabelSource` says; see also `find_label_leak`.

    Args:
        source: any, also of a plug-in.
        bars: enough of them for labels.
        check: called as by `LabelSource.compute`.

    Raises:
        DataError: the bars cannot be labelled.
    """
    given = bars.copy()
    labels = source.compute(given, check)
    faults = list(_faults_of(labels, source, bars))
    if not given.equals(bars):
        faults.append("the bars were changed")
    if not faults and not as_table(labels).equals(as_table(source.compute(bars.copy(), check))):
        faults.append("the labels are others each time they are computed")
    return tuple(faults)


def _faults_of(labels: Labels, source: LabelSource, bars: Bars) -> Iterator[str]:
    count = len(labels.times)
    for name, column in (
        ("values", labels.values),
        ("known_at", labels.known_at),
        ("weights", labels.weights),
    ):
        if column is not None and len(column) != count:
            yield f"there are {count} times, but {len(column)} {name}"
            return
    places = bars.index.get_indexer(labels.times)
    known = bars.index.get_indexer(labels.known_at)
    if (places < 0).any():
        yield f"times has {labels.times[int((places < 0).argmax())]}, at which there is no bar"
    elif (np.diff(places) <= 0).any():
        yield "times are not strictly increasing"
    elif count and places[0] < source.warmup_bars:
        yield f"the bar of {labels.times[0]} has a label, but warmup_bars is {source.warmup_bars}"
    if (known < 0).any():
        yield f"known_at has {labels.known_at[int((known < 0).argmax())]}, at which there is no bar"
    elif (known < places).any():
        yield f"the label of {labels.times[int((known < places).argmax())]} is known before its bar"
    elif source.horizon_bars and (known - places > source.horizon_bars).any():
        at = int((known - places > source.horizon_bars).argmax())
        yield (
            f"the label of {labels.times[at]} is known {known[at] - places[at]} bars later, "
            f"but horizon_bars is {source.horizon_bars}"
        )
    yield from _faults_of_values(labels, source)
    if labels.weights is not None and not (np.isfinite(labels.weights) & (labels.weights > 0)).all():
        yield "a weight is not a number above 0"


def _faults_of_values(labels: Labels, source: LabelSource) -> Iterator[str]:
    values: object = labels.values
    if not isinstance(values, np.ndarray):
        yield f"the values are a {type(values).__name__}, not an array"
        return
    wanted = np.int64 if source.classes else np.float32
    if values.dtype != wanted:
        yield f"the values are {values.dtype}, not {np.dtype(wanted)}"
    elif source.classes:
        unknown = (values < 0) | (values >= len(source.classes))
        if unknown.any():
            yield f"the value {values[unknown][0]} is no class: there are {len(source.classes)}"
    elif not np.isfinite(values).all():
        yield f"the value {values[~np.isfinite(values)][0]} is not finite"
