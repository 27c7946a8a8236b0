"""YAML text to plain data, and where in the text each key and value stands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeAlias

import yaml
from pydantic import JsonValue

from ktrdr.errors import Problem, StrategyError

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list positions from the top."""

Position: TypeAlias = tuple[int, int]
"""Line and column, 1-based."""

MAX_TEXT_BYTES = 1024 * 1024
_MAX_NODES = 20_000
_MAX_DEPTH = 32

# YAML 1.1 wants a dot and a sign in a float; people write 1e-3.
_FLOAT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """Parsed YAML; dates are ISO 8601 text, so that all of it is also JSON."""

    data: dict[str, JsonValue]
    keys: Mapping[Path, Position] = field(repr=False)
    """Path → where its key stands, or its value in a list."""
    values: Mapping[Path, Position] = field(repr=False)
    """Path → where its value stands, if that is on one line with the key; else where its key does."""
    problems: Mapping[Path, Problem]
    """What is wrong with single keys and values; each of these values is None, or the last one there is."""


def parse_yaml(text: str, source: str) -> YamlDocument:
    """Parse one YAML mapping; reads YAML 1.1, with anchors and merges, but no tags that make objects.

    Raises:
        StrategyError: it is not YAML, not a mapping, or expands to more than a strategy is.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        lines = text[: error.start].split("\n")
        problem = Problem("", f"not text: {error.reason}", len(lines), len(lines[-1]) + 1)
        raise StrategyError(source, [problem]) from error
    if size > MAX_TEXT_BYTES:
        raise StrategyError(source, [Problem("", f"the file is over {MAX_TEXT_BYTES:,} bytes")])
    try:
        _require_small(text)
    except yaml.YAMLError as error:
        raise StrategyError(source, [_yaml_problem(error)]) from error
    loader = yaml.CSafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise StrategyError(source, [Problem("", "the file is empty", 1, 1)])
        if not isinstance(root, yaml.MappingNode):
            line, column = _position(root)
            raise StrategyError(
                source, [Problem("", "a strategy is a mapping of keys to values", line, column)]
            )
        reader = _Reader(loader)
        data = reader.mapping(root, ())
    except yaml.YAMLError as error:
        raise StrategyError(source, [_yaml_problem(error)]) from error
    finally:
        loader.dispose()
    return YamlDocument(data, reader.keys, reader.values, reader.problems)


def _require_small(text: str) -> None:
    # The composer recurses in C: depth overflows its stack and ends the process. The parser does not recurse,
    # and takes a tenth of the time.
    depth = nodes = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            nodes += isinstance(event, yaml.NodeEvent)
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > _MAX_DEPTH or nodes > _MAX_NODES:
                raise _too_large(event)
    except yaml.MarkedYAMLError as error:
        # Reading ahead, a newer libyaml meets a limit of its own first; its words are no help to a user.
        if "exceeded maximum nesting depth" in str(error.problem):
            raise _too_large_at(error.problem_mark) from error
        raise


def _too_large(at: Any) -> yaml.MarkedYAMLError:  # a node or an event; the C parser's marks have a type apart
    return _too_large_at(at.start_mark)


def _too_large_at(mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(
        problem="the document expands to more than a strategy can be", problem_mark=mark
    )


class _Reader:
    def __init__(self, loader: yaml.CSafeLoader) -> None:
        self._loader = loader
        self._nodes = 0
        self.keys: dict[Path, Position] = {}
        self.values: dict[Path, Position] = {}
        self.problems: dict[Path, Problem] = {}

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, JsonValue]:
        self._count(node, path)
        own_keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: set[str] = set()
        for key in own_keys:
            name = self._key(key, path)
            if name in seen:
                self._complain(f"'{name}' is there twice", key, (*path, name))
            seen.add(name)
        if len(own_keys) != len(node.value):
            self._loader.flatten_mapping(
                node
            )  # resolves `<<`; a key of the mapping itself comes last and wins
        result: dict[str, JsonValue] = {}
        for key, value in node.value:
            name = self._key(key, path)
            at = self.keys[(*path, name)] = _position(key)
            # An alias stands where it is used, and its value elsewhere.
            is_beside = value.start_mark.line == key.end_mark.line and _position(value) > at
            self.values[(*path, name)] = _position(value) if is_beside else at
            result[name] = self._value(value, (*path, name))
        return result

    def _key(self, node: yaml.Node, path: Path) -> str:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        self._complain("a key must be a plain name", node, (*path, "?"))
        return "?"

    def _value(self, node: yaml.Node, path: Path) -> JsonValue:
        if isinstance(node, yaml.MappingNode):
            return dict(self.mapping(node, path))
        if isinstance(node, yaml.SequenceNode):
            self._count(node, path)
            items: list[JsonValue] = []
            for index, item in enumerate(node.value):
                self.keys[(*path, index)] = self.values[(*path, index)] = _position(item)
                items.append(self._value(item, (*path, index)))
            return items
        self._count(node, path)
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: Path) -> JsonValue:
        assert isinstance(node, yaml.ScalarNode)
        if node.tag == "tag:yaml.org,2002:str" and not node.style and _FLOAT.fullmatch(node.value):
            return float(node.value)
        try:
            value = self._loader.construct_object(node)
        except (ValueError, AttributeError, KeyError):  # all of them for an explicit tag that does not fit
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            shown = node.value if len(node.value) <= 40 else f"{node.value[:40]}…"
            self._complain(f"'{shown}' cannot be read as {kind}", node, path)
            return None
        if isinstance(value, datetime | date):
            return value.isoformat()
        if isinstance(value, float) and value - value != 0:
            self._complain(f"'{node.value}' is not a finite number", node, path)
            return None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            self._complain("is too large a number", node, path)
            return None
        if value is None or isinstance(value, str | int | float | bool):
            return value
        self._complain(f"{type(value).__name__} values have no place here", node, path)
        return None

    def _count(self, node: yaml.Node, path: Path) -> None:
        # Aliases are expanded, so that a small text may stand for a huge, or endless, document.
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise _too_large(node)

    def _complain(self, message: str, node: yaml.Node, path: Path) -> None:
        self.problems.setdefault(path, Problem(dotted(path), message, *_position(node)))


def dotted(path: Path) -> str:
    """Return a path as people write it: ``nn_inputs.0.timeframes``."""
    return ".".join(str(part) for part in path)


def _position(node: yaml.Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _yaml_problem(error: yaml.YAMLError) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        context = f" ({error.context})" if error.context else ""
        return Problem("", f"not valid YAML: {error.problem}{context}", mark.line + 1, mark.column + 1)
    return Problem("", f"not valid YAML: {str(error).splitlines()[0]}")
