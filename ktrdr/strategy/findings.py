"""Collects what is wrong with a strategy, so that all of it is reported in one go."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ktrdr.errors import PluginError, Problem, UnknownNameError
from ktrdr.parameters import Parameters
from ktrdr.registry import Registry, nearest_name
from ktrdr.strategy.sections import Section
from ktrdr.strategy.wording import choices, readable
from ktrdr.strategy.yaml_source import Path, YamlDocument, dotted

S = TypeVar("S", bound=Section)
P = TypeVar("P", bound=Parameters)


class Findings:
    """Problems and warnings, each at its place in the file; a second problem at one place is not noted."""

    def __init__(self, document: YamlDocument, overridden: Sequence[Path] = ()) -> None:
        self._document = document
        self._overridden = tuple(overridden)
        self._wrong: set[Path] = set(document.problems)
        self.problems: list[Problem] = list(document.problems.values())
        self.warnings: list[Problem] = []

    def problem(
        self, path: Path, message: str, suggestion: str | None = None, *, is_key: bool = False
    ) -> None:
        """Note something that is wrong at a path: its value, or that there is such a key."""
        if path in self._wrong:
            return
        self._wrong.add(path)
        self.problems.append(self._at(path, message, suggestion, is_key=is_key))

    def warning(self, path: Path, message: str, suggestion: str | None = None) -> None:
        """Note something that has no effect, or that is outdated."""
        self.warnings.append(self._at(path, message, suggestion, is_key=True))

    def is_wrong(self, path: Path) -> bool:
        """Return whether a problem was noted at this very path."""
        return path in self._wrong

    def is_wrong_within(self, path: Path) -> bool:
        """Return whether a problem was noted at this path or below it."""
        return any(wrong[: len(path)] == path for wrong in self._wrong)

    def unknown(
        self, path: Path, what: str, name: str, available: Sequence[str], *, is_key: bool = False
    ) -> None:
        """Note a name that does not exist, with those that do and the nearest of them."""
        listed = ", ".join(available) if available else "none"
        message = f"unknown {what} '{name}'; available: {listed}"
        self.problem(path, message, _nearest(name, available), is_key=is_key)

    def section(self, model: type[S], data: object, path: Path) -> S | None:
        """Check one mapping by a flat model, and return what of it is right, so that the rest is checked too.

        A key that is wrong, once it is noted, is as if it were not there; one that must be there has what
        `Section.stand_ins` says. None if it is no mapping, or has no such value.
        """
        if path in self._wrong:
            return None
        if not isinstance(data, Mapping):
            self.problem(path, f"must be a mapping with {', '.join(_names(model))}")
            return None
        data = self._read_by(model, data, path)
        try:
            return model.model_validate(data)
        except ValidationError as error:
            self._add(error, path, model)
            wrong = {str(detail["loc"][0]) for detail in error.errors(include_url=False) if detail["loc"]}
        usable = {key: value for key, value in data.items() if key not in wrong}
        usable |= {key: value for key, value in model.stand_ins.items() if key in wrong}
        try:
            return model.model_validate(usable)
        except ValidationError:
            return None

    def parameters(
        self, registry: Registry[P], name: object, values: Mapping[str, Any], path: Path, name_path: Path
    ) -> P | None:
        """Look up a registered type and check its parameters; None if something is wrong.

        Args:
            registry: where the name is looked up.
            name: as in the file.
            values: the other keys.
            path: of the mapping that has the values.
            name_path: of the name.
        """
        if not isinstance(name, str):
            self.problem(name_path, f"must name the {registry.kind}: {', '.join(registry.names())}")
            return None
        try:
            implementation = registry.get(name)
        except UnknownNameError as error:
            self.unknown(name_path, registry.kind, name, error.available)
            return None
        except PluginError as error:
            self.problem(name_path, str(error))
            return None
        known: dict[str, Any] = {}
        for key, value in values.items():
            if reason := implementation.ignored_names.get(key):
                self.warning((*path, key), f"has no effect: {reason}")
            elif field := implementation.former_names.get(key):
                self.warning((*path, key), f"is an old name; write '{field}'")
                if field in values:
                    self.problem(
                        (*path, key), f"means the same as '{field}', which is there too", is_key=True
                    )
                known[field] = value
            else:
                known[key] = value
        known = self._read_by(implementation, known, path)
        try:
            made = implementation.model_validate(known)
        except ValidationError as error:
            self._add(error, path, implementation)
            return None
        for key, reason in made.without_effect().items():
            self.warning((*path, key), f"has no effect: {reason}")
        return made

    def _read_by(self, model: type[BaseModel], data: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """Leave out keys that nothing reads, each with a warning, but for what looks mistyped.

        What is set for one run is meant to have an effect, and is left to be a problem too.
        """
        names = _names(model)
        unread = [
            key
            for key in data
            if key not in names and _nearest(key, names) is None and not self._override_of((*path, key))
        ]
        for key in unread:
            allowed = ", ".join(names) if names else "none"
            self.warning((*path, key), f"has no effect: nothing reads this key; allowed: {allowed}")
        return {key: value for key, value in data.items() if key not in unread}

    def _add(self, error: ValidationError, path: Path, model: type[BaseModel]) -> None:
        by_place: dict[Path, list[ErrorDetails]] = {}
        for detail in error.errors(include_url=False):
            by_place.setdefault((*path, *_place(detail["loc"])), []).append(detail)
        for where, details in by_place.items():
            # Of a value that may be this or that, what fits but for a part of it is what was meant.
            if any(other[: len(where)] == where and other != where for other in by_place):
                continue
            first = details[0]
            if first["type"] == "extra_forbidden":
                key = str(first["loc"][-1])
                names = _names(model)
                allowed = ", ".join(names) if names else "none"
                self.problem(where, f"unknown key; allowed: {allowed}", _nearest(key, names), is_key=True)
            elif first["type"] == "missing":
                self.problem(where, "is missing")
            else:
                given = first["input"]
                nearest = _nearest(given, choices(first)) if isinstance(given, str) else None
                self.problem(where, readable(details), nearest)

    def _override_of(self, path: Path) -> bool:
        """Return whether what is at a path was set for one run, or is there only because of that."""
        return any(
            path[: len(overridden)] == overridden
            or (path == overridden[: len(path)] and bool(path) and path not in self._document.keys)
            for overridden in self._overridden
        )

    def _at(self, path: Path, message: str, suggestion: str | None, *, is_key: bool) -> Problem:
        if self._override_of(path):
            return Problem(f"--set {dotted(path)}", message, suggestion=suggestion)
        places = self._document.keys if is_key else self._document.values
        if position := places.get(path):
            return Problem(dotted(path), message, *position, suggestion=suggestion)
        # What is missing has no place of its own; what it is missing from has.
        for length in range(len(path) - 1, 0, -1):
            if position := self._document.keys.get(path[:length]):
                return Problem(dotted(path), message, *position, suggestion=suggestion)
        return Problem(dotted(path), message, suggestion=suggestion)


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _place(location: tuple[int | str, ...]) -> Path:
    """Return the location without the parts that pydantic adds for unions and the like."""
    return tuple(part for index, part in enumerate(location) if index == 0 or isinstance(part, int))


def _nearest(name: str, names: Sequence[str]) -> str | None:
    return nearest_name(name, list(names))
