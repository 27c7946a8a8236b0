"""What indicators have made of tables, kept for the next training on the same ones."""

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

from ktrdr.features.compute import Compute, Table, compute_anew
from ktrdr.features.indicators import INDICATORS, Indicator
from ktrdr.features.indicators.base import FloatArray

_Key = tuple[str, str, str]
"""SHA-256 of the table, type, parameters as JSON."""


class IndicatorCache:
    """Remembers outputs by the content of their table, the type and the parameters; the latest used, of all.

    Strategies that are tried on one dataset share most of their indicators: each is computed once then. Those
    of plug-ins are computed each time, as nobody can say that they depend on nothing else.

    Args:
        limit_bytes: of all arrays together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[_Key, Mapping[str, FloatArray]] = OrderedDict()
        self.size_bytes = 0
        """Of what it keeps; never more than the limit."""

    def on(self, hashes: Mapping[str, str]) -> Compute:
        """Return what computes indicators, or has them already, on tables with these hashes.

        Args:
            hashes: timeframe, or `of_context` a source → SHA-256 of its table.
        """

        def compute(indicator: Indicator, table: Table, of: str) -> Mapping[str, FloatArray]:
            name = INDICATORS.name_of(type(indicator))
            if INDICATORS.plugin_of(name) is not None:
                return compute_anew(indicator, table, of)
            key = (hashes[of], name, indicator.model_dump_json())
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
            outputs = compute_anew(indicator, table, of)
            for values in outputs.values():
                values.flags.writeable = False
            self._keep(key, MappingProxyType(dict(outputs)))
            return outputs

        return compute

    def _keep(self, key: _Key, outputs: Mapping[str, FloatArray]) -> None:
        size_bytes = _size(outputs)
        if size_bytes > self._limit_bytes:  # nor does it drive out what fits
            return
        self._kept[key] = outputs
        self.size_bytes += size_bytes
        while self.size_bytes > self._limit_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.size_bytes -= _size(oldest)


def _size(outputs: Mapping[str, FloatArray]) -> int:
    return sum(values.nbytes for values in outputs.values())
