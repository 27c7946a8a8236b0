"""Context: series beside the bars (other symbols, rates, positioning reports), by when they were known."""

from ktrdr.market.context.providers import (
    PROVIDERS,
    ContextEntry,
    CotContext,
    FredContext,
    SymbolContext,
    read_context,
)
from ktrdr.market.context.report import ContextReport
from ktrdr.market.context.series import ContextSeries, ContextTable, check_context, known_rows, needed_rows

__all__ = [
    "PROVIDERS",
    "ContextEntry",
    "ContextReport",
    "ContextSeries",
    "ContextTable",
    "CotContext",
    "FredContext",
    "SymbolContext",
    "check_context",
    "known_rows",
    "needed_rows",
    "read_context",
]
