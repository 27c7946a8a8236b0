"""``training_data``: which bars."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from ktrdr.errors import DataError
from ktrdr.market.time_range import TimeRange
from ktrdr.market.timeframe import Timeframe
from ktrdr.strategy.findings import Findings
from ktrdr.strategy.sections import DateRangeSection, SymbolsSection, TimeframesSection, TrainingDataSection
from ktrdr.strategy.without_effect import meaningful
from ktrdr.strategy.yaml_source import Path

_AT: Path = ("training_data",)


@dataclass(frozen=True, slots=True)
class MarketChoice:
    """Which bars a strategy is trained on."""

    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    """In the order of the file, which is what ``timeframes: all`` means."""
    base_timeframe: str
    start: str | None
    end: str | None


def resolve_market(data: Mapping[str, JsonValue], findings: Findings) -> MarketChoice | None:
    """Check the section; None if something is wrong."""
    section = findings.section(TrainingDataSection, meaningful(TrainingDataSection, data, _AT, findings), _AT)
    if section is None:
        return None
    symbols = _symbols(section, findings)
    timeframes = _timeframes(section, findings)
    start, end = _dates(section, findings)
    if symbols is None or timeframes is None:
        return None
    return MarketChoice(symbols, *timeframes, start, end)


def _dates(section: TrainingDataSection, findings: Findings) -> tuple[str | None, str | None]:
    chosen: dict[str, str | None] = {"start": section.start_date, "end": section.end_date}
    places: dict[str, Path] = {name: (*_AT, f"{name}_date") for name in chosen}
    at: Path = (*_AT, "date_range")
    if dates := findings.section(DateRangeSection, section.date_range or {}, at):
        for name, given in (("start", dates.start), ("end", dates.end)):
            other = chosen[name]
            if given is not None and other is not None and given != other:
                findings.problem((*at, name), f"contradicts {name}_date ({other})")
            elif given is not None:
                chosen[name], places[name] = given, (*at, name)
    start, end = chosen["start"], chosen["end"]
    alone = _are_dates(start, None, places["start"], findings) & _are_dates(
        None, end, places["end"], findings
    )
    if alone:
        _are_dates(start, end, places["end"], findings)
    return start, end


def _are_dates(start: str | None, end: str | None, path: Path, findings: Findings) -> bool:
    try:
        TimeRange.parse(start, end)
    except DataError as error:
        findings.problem(path, str(error))
        return False
    return True


def _symbols(section: TrainingDataSection, findings: Findings) -> tuple[str, ...] | None:
    path = (*_AT, "symbols")
    symbols = findings.section(SymbolsSection, section.symbols, path)
    if symbols is None:
        return None
    if symbols.selection_criteria is not None:
        findings.warning(
            (*path, "selection_criteria"),
            "has no effect: name the symbols; nothing is selected by criteria",
        )
    if any(findings.is_wrong_within((*path, key)) for key in ("mode", "symbol", "list", "symbols")):
        return None
    listed = symbols.listed or symbols.symbols or []
    where = (*path, "list" if symbols.listed else "symbols")
    if symbols.listed and symbols.symbols and symbols.listed != symbols.symbols:
        findings.problem((*path, "symbols"), "contradicts list, which is the same by another name")
        return None
    if not listed:
        if symbols.symbol is None:
            name = "symbol" if symbols.mode == "single" else "list"
            findings.problem((*path, name), f"is missing: mode {symbols.mode} needs it")
            return None
        if symbols.mode == "multi_symbol":
            findings.warning((*path, "mode"), "there is one symbol; mode: single says so")
        return (symbols.symbol,)
    if twice := sorted({name for name in listed if listed.count(name) > 1}):
        findings.problem(where, f"names {', '.join(twice)} twice")
        return None
    if symbols.mode == "single" and len(listed) > 1:
        findings.problem(where, "has several symbols, which needs mode: multi_symbol")
        return None
    if symbols.symbol is not None and symbols.symbol not in listed:
        findings.problem((*path, "symbol"), f"contradicts {where[-1]}, which has {', '.join(listed)}")
        return None
    return tuple(listed)


def _timeframes(section: TrainingDataSection, findings: Findings) -> tuple[tuple[str, ...], str] | None:
    path = (*_AT, "timeframes")
    timeframes = findings.section(TimeframesSection, section.timeframes, path)
    if timeframes is None:
        return None
    listed = list(timeframes.listed or timeframes.timeframes or [])
    where = (*path, "list" if timeframes.listed else "timeframes")
    if not listed:
        if timeframes.timeframe is None:
            keys = ("mode", "timeframe", "list", "timeframes")
            if not any(findings.is_wrong_within((*path, key)) for key in keys):
                name = "timeframe" if timeframes.mode == "single" else "list"
                findings.problem((*path, name), f"is missing: mode {timeframes.mode} needs it")
            return None
        listed, where = [timeframes.timeframe], (*path, "timeframe")
    fine = not any(findings.is_wrong_within((*path, key)) for key in ("timeframe", "list", "timeframes"))
    for position, name in enumerate(listed):
        fine &= _is_timeframe(name, where if where[-1] == "timeframe" else (*where, position), findings)
    base = timeframes.base_timeframe
    if fine and base is not None and base not in listed:
        findings.unknown((*path, "base_timeframe"), "timeframe", base, listed)
        fine = False
    if len(set(listed)) < len(listed):
        findings.problem(where, "names a timeframe twice")
        fine = False
    if findings.is_wrong((*path, "mode")):
        fine = False
    elif timeframes.mode == "single" and len(listed) > 1:
        findings.problem(where, "has several timeframes, which needs mode: multi_timeframe")
        fine = False
    elif timeframes.mode == "multi_timeframe" and len(listed) < 2:
        findings.problem(where, "mode multi_timeframe needs at least two timeframes")
        fine = False
    if not fine:
        return None
    return tuple(listed), base or min(listed, key=Timeframe.parse)


def _is_timeframe(name: str, path: Path, findings: Findings) -> bool:
    try:
        Timeframe.parse(name)
    except DataError as error:
        findings.problem(path, error.message)
        return False
    return True
