"""Hypothesis strategies for every event, made from the fields of the models."""

import enum
import types
import typing
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st
from pydantic import AwareDatetime, JsonValue
from pydantic.fields import FieldInfo

from ktrdr.events import BlobRef, Event, InlineModel, ModelReady
from ktrdr.events.base import Part

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
# A day's distance to the ends of the calendar, so that each moment exists in every time zone.
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES)  # noqa: DTZ001  # has one
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


def events(event_type: type[Event]) -> st.SearchStrategy[Event]:
    """Events of a type with any values that its fields allow."""
    if event_type is ModelReady:
        where = st.fixed_dictionaries({"inline": parts(InlineModel)}) | st.fixed_dictionaries(
            {"blob": parts(BlobRef)}
        )
        others = _fields(ModelReady, without=("inline", "blob"))
        return st.tuples(others, where).map(lambda both: ModelReady(**both[0], **both[1]))
    return parts(event_type)


def parts(model: type[Part]) -> st.SearchStrategy[typing.Any]:
    """Values of a model."""
    return _fields(model).map(lambda fields: model(**fields))


def _fields(model: type[Part], without: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, typing.Any]]:
    required, optional = {}, {}
    for name, field in model.model_fields.items():
        if name not in without:
            (required if field.is_required() else optional)[name] = _values(field.annotation, field.metadata)
    return st.fixed_dictionaries(required, optional=optional)


def _values(annotation: typing.Any, metadata: typing.Iterable[typing.Any]) -> st.SearchStrategy[typing.Any]:
    if annotation is JsonValue:
        return JSON_VALUES
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _values(arguments[0], [*arguments[1:], *metadata])
    if origin in (typing.Union, types.UnionType):
        return st.one_of([_values(argument, ()) for argument in arguments])
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    limits = _limits(metadata)
    if origin is tuple:
        return st.lists(_values(arguments[0], ()), min_size=limits.get("min_length", 0), max_size=3).map(
            tuple
        )
    if origin is dict:
        return st.dictionaries(_values(arguments[0], ()), _values(arguments[1], ()), max_size=3)
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(limits["ge"], limits["lt"] - 1 if "lt" in limits else limits["le"])
    if annotation is float:
        return st.floats(
            limits.get("ge", limits.get("gt")),
            limits.get("le"),
            exclude_min="gt" in limits,
            allow_nan=False,
            allow_infinity=False,
        )
    if annotation is str:
        if pattern := limits.get("pattern"):
            return st.from_regex(pattern, fullmatch=True)
        return st.text(max_size=min(300, limits.get("max_length", 300)))
    if annotation is bytes:
        return st.binary(max_size=300)
    if annotation is AwareDatetime:
        return MOMENTS
    if issubclass(annotation, enum.Enum):
        return st.sampled_from(annotation)
    return parts(annotation)


def _limits(metadata: typing.Iterable[typing.Any]) -> dict[str, typing.Any]:
    found: dict[str, typing.Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= _limits(item.metadata)
        else:
            names = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
            found |= {name: limit for name in names if (limit := getattr(item, name, None)) is not None}
    return found
