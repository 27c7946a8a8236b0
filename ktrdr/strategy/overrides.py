"""Changes to a strategy for one run: dotted path → value."""

from collections.abc import Mapping
from copy import deepcopy
from math import isfinite

from pydantic import JsonValue

from ktrdr.errors import Problem, StrategyError
from ktrdr.registry import nearest_name
from ktrdr.strategy.yaml_source import Path, dotted

_BY_ID = ("indicators", "fuzzy_sets")
"""Sections whose keys a user makes up: a new one there is more likely to be mistyped."""


def apply_overrides(
    data: Mapping[str, JsonValue], overrides: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], tuple[Path, ...]]:
    """Return a changed copy and the paths that were changed.

    A key may be new, and so may the mappings on the way to it; whether it means something is checked with
    everything else. Only what is defined under an id of the user's must be there.

    Raises:
        StrategyError: a path leads nowhere.
    """
    changed: dict[str, JsonValue] = deepcopy(dict(data))
    paths: list[Path] = []
    problems: list[Problem] = []
    for text, value in overrides.items():
        if complaint := _not_plain(value):
            problems.append(Problem(text, complaint))
            continue
        path = _path_in(changed, text)
        problem = _set(changed, path, value)
        if problem is None:
            paths.append(path)
        else:
            problems.append(problem)
    if problems:
        raise StrategyError("--set", problems)
    return changed, tuple(paths)


def _not_plain(value: object, depth: int = 0) -> str | None:
    """Return why a value could not stand in a file, None if it could; YAML is held to the same."""
    if depth > 32:
        return "is nested too deeply"
    match value:
        case None | bool():
            return None
        case int():
            return None if -(2**63) <= value < 2**63 else "is too large a number"
        case float():
            return None if isfinite(value) else "is not a finite number"
        case str():
            return (
                None
                if value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)
                else "is not text"
            )
        case list():
            return next((bad for item in value if (bad := _not_plain(item, depth + 1))), None)
        case dict():
            if not all(isinstance(key, str) for key in value):
                return "has a key that is not text"
            parts = (part for item in value.items() for part in item)
            return next((bad for part in parts if (bad := _not_plain(part, depth + 1))), None)
    return f"is a {type(value).__name__}, which is not JSON"


def _path_in(data: JsonValue, text: str) -> Path:
    """Split a dotted path; a key of the file may itself have a dot in it."""
    path: list[str | int] = []
    rest = text.split(".")
    here = data
    while rest:
        length = 1
        if isinstance(here, dict):
            fitting = [n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in here]
            length = fitting[0] if fitting else 1
        part: str | int = ".".join(rest[:length])
        rest = rest[length:]
        if isinstance(here, list) and isinstance(part, str) and part.isdecimal():
            part = int(part)
        path.append(part)
        here = _child(here, part)
    return tuple(path)


def _child(here: JsonValue, part: str | int) -> JsonValue:
    if isinstance(here, dict) and isinstance(part, str):
        return here.get(part)
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return here[part]
    return None


def _set(data: dict[str, JsonValue], path: Path, value: JsonValue) -> Problem | None:
    here: JsonValue = data
    for index, part in enumerate(path):
        last = index == len(path) - 1
        where = dotted(path[: index + 1])
        if isinstance(here, dict) and isinstance(part, str) and part:
            if last:
                here[part] = deepcopy(value)
            elif index == 1 and path[0] in _BY_ID and part not in here:
                return Problem(where, "there is no such key", suggestion=nearest_name(part, list(here)))
            elif here.get(part) is None:
                here[part] = {}
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            if last:
                here[part] = deepcopy(value)
        elif isinstance(here, list):
            return Problem(where, f"must be a position from 0 to {len(here) - 1}")
        else:
            return Problem(where, f"{dotted(path[:index]) or 'the path'} has no keys")
        here = _child(here, part)
    return None
