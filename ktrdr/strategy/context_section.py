"""``context_data``: series beside the bars that indicators may be computed on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue, StringConstraints

from ktrdr.errors import DataError
from ktrdr.market.context import PROVIDERS, ContextEntry, CotContext, FredContext, SymbolContext
from ktrdr.market.timeframe import Timeframe
from ktrdr.strategy.findings import Findings
from ktrdr.strategy.market_section import MarketChoice
from ktrdr.strategy.sections import Section, SymbolName
from ktrdr.strategy.without_effect import meaningful
from ktrdr.strategy.yaml_source import Path

_AT: Path = ("context_data",)

# The name of a file, and a part of a source id, which is at most 128 long.
_SeriesName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,49}$")]

_UNREAD = {
    "frequency": "the rows are as they are in the file",
    "instrument_type": "nothing depends on it",
    "currencies": "no provider reads it",
    "min_impact": "no provider reads it",
    "broker": "no provider reads it",
}


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _unread(provider: str, *others: str) -> dict[str, str]:
    return _UNREAD | dict.fromkeys(others, f"provider {provider} does not read it")


class _EntrySection(Section):
    provider: str
    alignment: Literal["forward_fill"] = "forward_fill"


class _SymbolSection(_EntrySection):
    without_effect: ClassVar[Mapping[str, str]] = _unread("ib", "series", "report", "publication_lag")

    symbol: SymbolName
    timeframe: str | None = None


class _FredSection(_EntrySection):
    without_effect: ClassVar[Mapping[str, str]] = _unread("fred", "symbol", "timeframe", "report")

    series: Annotated[list[_SeriesName], BeforeValidator(_as_list), Field(min_length=1)]
    publication_lag: str | None = None


class _CotSection(_EntrySection):
    without_effect: ClassVar[Mapping[str, str]] = _unread(
        "cftc_cot", "symbol", "timeframe", "series", "publication_lag"
    )

    report: _SeriesName


CONTEXT_SECTIONS: Mapping[str, type[_EntrySection]] = dict(
    zip(PROVIDERS, (_CotSection, _FredSection, _SymbolSection), strict=True)
)
"""Provider → what an entry of it may say."""


@dataclass(frozen=True, slots=True)
class ContextChoice:
    """The series that there are."""

    entries: Mapping[str, ContextEntry]
    """Source id → the entry that gives it."""
    is_complete: bool
    """False if an entry is wrong, and may have been meant to give more."""


def resolve_context(
    data: Sequence[JsonValue] | None, market: MarketChoice | None, findings: Findings
) -> ContextChoice:
    """Check the section."""
    entries: dict[str, ContextEntry] = {}
    is_complete = not findings.is_wrong(_AT)
    for position, item in enumerate(data or ()):
        path: Path = (*_AT, position)
        entry = _entry(item, path, market, findings)
        is_complete &= entry is not None
        for source_id in entry.source_ids if entry is not None else ():
            if source_id in entries:
                findings.problem(path, f"gives {source_id}, which an entry before it gives too")
            elif entry is not None:
                entries[source_id] = entry
    return ContextChoice(entries, is_complete)


def warn_unused(choice: ContextChoice, used: Sequence[str], findings: Findings) -> None:
    """Warn of entries none of whose series an indicator is computed on.

    Args:
        choice: the series that there are.
        used: source ids that features need.
        findings: where the warnings go.
    """
    entries = list(dict.fromkeys(choice.entries.values()))
    for position, entry in enumerate(entries):
        if not set(entry.source_ids) & set(used):
            ids = " or ".join(entry.source_ids)
            findings.warning(
                (*_AT, position), f"has no effect: no feature is of an indicator with data_source {ids}"
            )


def _entry(
    item: JsonValue, path: Path, market: MarketChoice | None, findings: Findings
) -> ContextEntry | None:
    if not isinstance(item, dict) or "provider" not in item:
        findings.problem(path, f"must be a mapping with a provider, one of: {', '.join(PROVIDERS)}")
        return None
    model = CONTEXT_SECTIONS.get(str(item["provider"]))
    if model is None:
        findings.unknown((*path, "provider"), "provider", str(item["provider"]), PROVIDERS)
        return None
    section: Any = findings.section(model, meaningful(model, item, path, findings), path)
    if isinstance(section, _SymbolSection):
        return _symbol(section, path, market, findings)
    if isinstance(section, _FredSection):
        return _fred(section, path, findings)
    return CotContext(section.report) if isinstance(section, _CotSection) else None


def _symbol(
    section: _SymbolSection, path: Path, market: MarketChoice | None, findings: Findings
) -> SymbolContext | None:
    timeframe = section.timeframe
    if timeframe is None:
        return None if market is None else SymbolContext(section.symbol, market.base_timeframe)
    if not _is_span(timeframe, (*path, "timeframe"), findings):
        return None
    return SymbolContext(section.symbol, timeframe)


def _fred(section: _FredSection, path: Path, findings: Findings) -> FredContext | None:
    series = tuple(section.series)
    if len(set(series)) < len(series):
        findings.problem((*path, "series"), "names a series twice")
        return None
    lag = section.publication_lag
    if lag is not None and not _is_span(lag, (*path, "publication_lag"), findings):
        return None
    return FredContext(series, lag)


def _is_span(text: str, path: Path, findings: Findings) -> bool:
    try:
        Timeframe.parse(text)
    except DataError as error:
        findings.problem(path, str(error))
        return False
    return True
