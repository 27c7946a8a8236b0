"""What fields refuse, what they cut, and that events cannot be changed."""

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, TypeAdapter, ValidationError

from ktrdr.events import (
    EVENT_TYPES,
    AgentPresence,
    BlobRef,
    CancelRequested,
    Event,
    FailureCause,
    FileDigest,
    InlineModel,
    ModelManifest,
    ModelPersisted,
    ModelReady,
    Name,
    OperationId,
    Sha256,
    StrategyDocument,
    TrainingAccepted,
    TrainingFailed,
    TrainingProgress,
)
from ktrdr.events.base import Part, UtcDatetime
from ktrdr.events.references import Timeframe
from ktrdr.events.texts import Line, Text, TextTail
from tests.unit.events_cases import BLOB, CLAIM, EXAMPLES, MANIFEST, SHA, example

TRAVERSALS = [
    "../x",
    "..",
    ".",
    ".hidden",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "..\\x",
    "C:\\x",
    "a\0b",
    "a\nb",
    "a\n",
    "",
    " a",
    "~root",
    "-rf",
    "%2e%2e%2fx",
    "ａ",
    "a" * 129,
]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_a_name_that_is_no_plain_path_component_is_refused(name: str) -> None:
    for kind in (Name, OperationId):
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(name)


@pytest.mark.parametrize("name", ["eurusd_momentum", "EURUSD", "BTC-USD", "BRK.B", "host-a@lab", "v1.2+3"])
def test_an_ordinary_name_is_accepted(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@given(st.text())
def test_a_name_that_is_accepted_is_one_safe_path_component(name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        return
    assert name not in (".", "..")
    assert not name.startswith(".")
    assert not {"/", "\\", "\0", "\n"} & set(name)


@pytest.mark.parametrize("field", ["strategy", "symbol", "timeframe", "files"])
def test_no_name_of_a_model_leads_out_of_its_directory(field: str) -> None:
    bad: object = {"../x": FileDigest(sha256=SHA, size=1)} if field == "files" else "../x"
    with pytest.raises(ValidationError):
        ModelManifest(**{**MANIFEST.model_dump(), field: bad})


@pytest.mark.parametrize("model", ["../x/EURUSD_1h_v1", "x", "/x/y", "x/../y", "x/y/z", "x/.y"])
def test_the_name_of_a_persisted_model_is_two_plain_components(model: str) -> None:
    fields = example("ktrdr.training.model_persisted").model_dump()
    with pytest.raises(ValidationError):
        ModelPersisted(**{**fields, "model": model})


@pytest.mark.parametrize("sha256", ["", "abc", SHA.upper(), SHA + "0", SHA[:-1] + "g", SHA + "\n"])
def test_a_hash_is_64_lower_case_hex_digits(sha256: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Sha256).validate_python(sha256)


@pytest.mark.parametrize("timeframe", ["1h", "15m", "4h", "1d", "1w", "1M"])
def test_a_timeframe_is_accepted(timeframe: str) -> None:
    assert TypeAdapter(Timeframe).validate_python(timeframe) == timeframe


@pytest.mark.parametrize("timeframe", ["h", "0h", "1x", "1h ", "-1h", "../1h", "99999h"])
def test_a_timeframe_that_is_none_is_refused(timeframe: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Timeframe).validate_python(timeframe)


# --- numbers ---


@pytest.mark.parametrize("attempt", [0, -1, 2**31, 2**63, 2**64 - 1, 1.5, "x", None])
def test_an_attempt_is_a_number_that_a_database_holds(attempt: object) -> None:
    with pytest.raises(ValidationError):
        CancelRequested(operation_id="op-1", attempt=attempt, reason="stop")  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("seconds", [0, -1, 1e300, math.inf, -math.inf, math.nan])
def test_a_lease_is_a_time_that_can_be_reckoned_with(seconds: float) -> None:
    with pytest.raises(ValidationError):
        TrainingAccepted(**CLAIM, slot=1, device="cpu", lease_s=seconds)


def test_the_longest_time_can_be_added_to_a_date() -> None:
    accepted = TrainingAccepted(**CLAIM, slot=1, device="cpu", lease_s=1e10)
    assert datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=accepted.lease_s) < datetime.max.replace(
        tzinfo=UTC
    )


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, math.inf])
def test_a_fraction_is_between_0_and_1(fraction: float) -> None:
    with pytest.raises(ValidationError):
        progress(fraction=fraction)


def test_metrics_that_are_no_finite_numbers_are_left_out() -> None:
    given = {"train_loss": 0.5, "val_loss": math.inf, "auc": math.nan, "f1": np.float32("nan"), "epoch": 3}
    assert progress(metrics=given).metrics == {"train_loss": 0.5, "epoch": 3.0}


@pytest.mark.parametrize(
    "metrics", [{"loss": "high"}, {"loss": None}, {"loss": [1]}, [1], "x", {1: 1.0}, {"n": 10**400}]
)
def test_metrics_that_are_no_numbers_are_refused(metrics: object) -> None:
    with pytest.raises(ValidationError):
        progress(metrics=metrics)


def progress(**fields: object) -> TrainingProgress:
    known = example("ktrdr.training.progress").model_dump()
    return TrainingProgress(**{**known, **fields})


# --- times ---


def test_a_time_is_kept_in_utc() -> None:
    adapter: TypeAdapter[datetime] = TypeAdapter(UtcDatetime)
    zone = timezone(timedelta(hours=2))
    assert adapter.validate_python(datetime(2026, 1, 1, 2, tzinfo=zone)) == datetime(2026, 1, 1, tzinfo=UTC)
    assert adapter.validate_python(datetime(2026, 1, 1, 2, tzinfo=zone)).tzinfo is UTC


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(UtcDatetime).validate_python(datetime(2026, 1, 1))  # noqa: DTZ001  # on purpose


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_time_that_utc_has_no_year_for_is_refused(moment: str) -> None:
    with pytest.raises(ValidationError, match="outside the years"):
        TypeAdapter(UtcDatetime).validate_python(moment)


# --- texts ---


@given(st.text(st.characters()))
def test_whatever_the_text_it_can_be_sent_and_is_bounded(text: str) -> None:
    long = text * 100
    for kind, limit in ((Line, 200), (Text, 8192), (TextTail, 8192)):
        kept: str = TypeAdapter(kind).validate_python(long)
        assert len(kept) <= limit
        kept.encode()
        assert TypeAdapter(kind).validate_python(kept) == kept


def test_a_failure_that_takes_long_to_tell_is_told() -> None:
    event = TrainingFailed(
        **CLAIM,
        cause=FailureCause.STRATEGY_ERROR,
        message="first problem\n" + "x" * 20_000,
        traceback="y" * 20_000 + "\nValueError: the last line",
    )
    assert event.message.startswith("first problem\n")
    assert event.message.endswith("…")
    assert event.traceback is not None
    assert event.traceback.startswith("…")
    assert event.traceback.endswith("ValueError: the last line")


def test_a_text_that_fits_is_kept_as_it_is() -> None:
    text = "line 1\n\tline 2 · ελ"
    assert TrainingFailed(**CLAIM, cause=FailureCause.DATA_ERROR, message=text).message == text


def test_a_file_name_that_is_no_utf_8_can_be_told_of() -> None:
    event = TrainingFailed(**CLAIM, cause=FailureCause.DATA_ERROR, message="no such file: b\udcff.csv")
    assert event.message == "no such file: b?.csv"


@pytest.mark.parametrize("kind", [Line, Text, TextTail])
@pytest.mark.parametrize("value", [1, None, ["x"], {"x": 1}])
def test_a_text_is_text(kind: object, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)


def test_a_line_is_one_line() -> None:
    accepted = TrainingAccepted(**CLAIM, slot=1, device="cpu\r\n\tand  more\x00\x1b[31m", lease_s=30)
    assert accepted.device == "cpu and more [31m"


# --- overrides ---


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**63) - 1, math.nan, math.inf, "\ud800", "x" * 70_000, list(range(30_000))],
    ids=["int", "negative int", "nan", "inf", "surrogate", "long", "many"],
)
def test_an_override_that_cannot_be_sent_is_refused(value: JsonValue) -> None:
    with pytest.raises(ValidationError):
        StrategyDocument(name="s", yaml="", sha256=SHA, overrides={"a": value})


@pytest.mark.parametrize("depth", [40, 200, 600, 5000])
def test_an_override_that_is_nested_too_deep_is_refused(depth: int) -> None:
    value: JsonValue = 1
    for _ in range(depth):
        value = [value]
    with pytest.raises(ValidationError):
        StrategyDocument(name="s", yaml="", sha256=SHA, overrides={"a": value})


def test_an_override_may_be_any_ordinary_value() -> None:
    overrides: dict[str, JsonValue] = {"a.b": [1, {"c": None}], "d": True, "e": 2**64 - 1, "f": 0.5}
    assert StrategyDocument(name="s", yaml="", sha256=SHA, overrides=overrides).overrides == overrides


# --- models in events ---


def test_a_model_is_inline_or_by_reference_but_not_both_nor_neither() -> None:
    inline = InlineModel(codec="none", data=b"x")
    ModelReady(**CLAIM, manifest=MANIFEST, inline=inline)
    ModelReady(**CLAIM, manifest=MANIFEST, blob=BLOB)
    for fields in ({}, {"inline": inline, "blob": BLOB}):
        with pytest.raises(ValidationError, match="exactly one"):
            ModelReady(**CLAIM, manifest=MANIFEST, **fields)


def test_an_inline_model_over_8_mib_is_refused() -> None:
    with pytest.raises(ValidationError):
        InlineModel(codec="none", data=bytes(8 * 1024 * 1024 + 1))


def test_the_bytes_of_a_model_do_not_show_in_logs() -> None:
    event = ModelReady(**CLAIM, manifest=MANIFEST, inline=InlineModel(codec="none", data=b"weights"))
    assert "weights'" not in repr(event)


# --- frozen ---


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_an_event_cannot_be_changed(event: Event) -> None:
    for name in type(event).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(event, name, None)


def test_nor_can_its_parts() -> None:
    def parts(base: type[Part]) -> list[type[Part]]:
        return [part for sub in base.__subclasses__() for part in (sub, *parts(sub))]

    assert all(part.model_config["frozen"] and part.model_config["extra"] == "ignore" for part in parts(Part))
    with pytest.raises(ValidationError, match="frozen"):
        BlobRef(**BLOB.model_dump()).size = 0


def test_type_names_are_unique_and_have_versions() -> None:
    names = [event_type.type_name() for event_type in EVENT_TYPES]
    assert len(set(names)) == len(names)
    assert AgentPresence.type_name() == "ktrdr.agent.presence.v1"
