"""A chart as plotly.js takes it, with only what is its own: fonts and grid come from the page's theme."""

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"
Trace: TypeAlias = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart."""

    key: str
    """Its id in the page."""
    title: str
    summary: str
    """What it shows, for those who do not see it."""
    traces: tuple[Trace, ...]
    layout: Mapping[str, Json]
    height_px: int = 320
    views: tuple["View", ...] = field(default=())
    """Buttons over the chart."""

    @property
    def spec(self) -> Json:
        """What the page's script draws."""
        return {"data": self.traces, "layout": self.layout}


@dataclass(frozen=True, slots=True)
class View:
    """A button that shows a part of a chart."""

    title: str
    ranges: Mapping[str, Json]
    """A layout update, as in ``{"xaxis.range": [0, 1]}``."""

    @property
    def update(self) -> str:
        """The update as JSON, for an attribute."""
        return json.dumps(self.ranges)


def packed(values: npt.ArrayLike, dtype: str = "f8") -> Json:
    """Return numbers as a typed array of plotly.js, a third of their size as text and read at once.

    Args:
        values: NaN becomes a hole.
        dtype: a NumPy type that plotly.js knows: ``f8``, ``f4``, ``i4``, ``u1``, ….
    """
    array = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    spec: dict[str, Json] = {"dtype": dtype, "bdata": base64.b64encode(array.tobytes()).decode()}
    if array.ndim > 1:
        spec["shape"] = ", ".join(str(length) for length in array.shape)
    return spec


def literal(text: str) -> str:
    """Return text that a chart shows as it is: plotly.js reads tags and entities in every string."""
    return html.escape(text, quote=False)


def axis(title: str = "", **settings: Json) -> Mapping[str, Json]:
    """Return an axis; plotly.js wants the title wrapped."""
    return {**({"title": {"text": literal(title)}} if title else {}), **settings}


def to_script_json(value: Json) -> str:
    """Return JSON that may stand in a ``script`` element: no ``<``, and nothing that is not JSON."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
