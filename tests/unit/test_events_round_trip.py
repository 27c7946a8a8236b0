"""Every event arrives as it was said, in an envelope that AMQP can carry."""

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import OversizedError, UnencodableError
from ktrdr.events import (
    EVENT_TYPES,
    AgentPresence,
    Codec,
    Envelope,
    Event,
    InlineModel,
    ModelReady,
    OperationEvent,
    TrainingRequested,
    codec,
    decode,
    encode,
)
from ktrdr.ids import RandomIds
from tests.unit.events_cases import CLAIM, EXAMPLES, MANIFEST, example
from tests.unit.events_strategies import MOMENTS, events

ANY_EVENT = st.sampled_from(EVENT_TYPES).flatmap(events)
NOW = datetime(2026, 3, 1, 12, 30, 15, 250_001, tzinfo=UTC)


def envelope(event: Event, **fields: object) -> Envelope:
    known = {"event_id": RandomIds().event_id(), "sender": "backend@host", "occurred_at": NOW}
    return Envelope(event, **{**known, **fields})  # type: ignore[arg-type]  # named by whoever calls


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda event_type: event_type.type)
def test_what_is_decoded_is_what_was_encoded(event_type: type[Event]) -> None:
    @settings(deadline=None, max_examples=60)
    @given(event=events(event_type), moment=MOMENTS, traceparent=st.none() | st.text(min_size=1, max_size=60))
    def round_trip(event: Event, moment: datetime, traceparent: str | None) -> None:
        sent = envelope(event, occurred_at=moment, traceparent=traceparent)
        received = decode(encode(sent))
        assert received == sent
        assert type(received.event) is event_type

    round_trip()


@settings(deadline=None)
@given(ANY_EVENT)
def test_an_event_survives_json_too(event: Event) -> None:
    assert type(event).model_validate_json(event.model_dump_json()) == event


@settings(deadline=None)
@given(ANY_EVENT, MOMENTS)
def test_the_envelope_fits_amqp(event: Event, moment: datetime) -> None:
    message = encode(envelope(event, occurred_at=moment))
    for short in (message.message_id, message.type, message.correlation_id, message.app_id):
        assert short is None or len(short.encode()) <= 255
    for name, value in message.headers.items():
        assert len(name.encode()) <= 255
        assert type(value) in (str, int, float, bool)
        assert not isinstance(value, int) or -(2**63) <= value < 2**63
    size = sum(len(name.encode()) + len(str(value).encode()) + 16 for name, value in message.headers.items())
    assert size < 16 * 1024
    assert message.timestamp is not None
    assert message.timestamp.microsecond == 0


@settings(deadline=None)
@given(ANY_EVENT)
def test_a_summary_is_one_short_line(event: Event) -> None:
    summary = encode(envelope(event)).headers["summary"]
    assert isinstance(summary, str)
    assert len(summary) <= 500
    assert len(summary.splitlines()) <= 1
    assert summary.isprintable()


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_the_envelope_says_in_plain_words_what_is_inside(event: Event) -> None:
    message = encode(envelope(event, traceparent="00-trace-01"))
    assert message.type == f"{event.type}.v1"
    assert message.persistent is event.durable
    assert message.content_type == "application/msgpack"
    headers = message.headers
    assert headers["cloudEvents:id"] == message.message_id
    assert headers["cloudEvents:type"] == message.type
    assert headers["cloudEvents:source"] == message.app_id == "backend@host"
    assert headers["cloudEvents:specversion"] == "1.0"
    assert headers["cloudEvents:time"] == "2026-03-01T12:30:15.250001+00:00"
    assert headers["traceparent"] == "00-trace-01"
    if isinstance(event, OperationEvent):
        assert headers["cloudEvents:subject"] == message.correlation_id == "op-1"
        assert headers["attempt"] == 2
    else:
        assert message.correlation_id is None


def test_times_of_the_envelope_are_in_utc_wherever_the_sender_is() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    message = encode(envelope(EXAMPLES[0], occurred_at=there))
    assert message.headers["cloudEvents:time"] == "2026-03-01T12:30:15.250001+00:00"
    assert message.timestamp == NOW.replace(microsecond=0)
    assert decode(message).occurred_at == NOW


def test_summaries_tell_what_a_person_wants_to_know() -> None:
    summaries = {event.type.removeprefix("ktrdr."): event.summary() for event in EXAMPLES}
    assert summaries == {
        "training.requested": "train eurusd_momentum on EURUSD 1h, context fred_DGS2 · attempt 2 · seed 7",
        "training.accepted": "attempt 2 accepted by host-a/slot-1 on cpu",
        "training.progress": "attempt 2 · [6/8] Training · epoch 37/100 · train_loss 0.8 · val_loss 0.812",
        "training.logged": "attempt 2 · 2 lines · stage done",
        "training.checkpoint_saved": "attempt 2 · checkpoint of epoch 10 · 204,800 B",
        "training.model_ready": "eurusd_momentum EURUSD 1h · 20,000 B inline",
        "training.failed": "attempt 2 failed: out_of_memory: The runner was killed.",
        "training.cancelled": "attempt 2 cancelled after 12 epochs",
        "control.cancel_requested": "stop attempt 2: cancelled by the user",
        "training.model_persisted": "persisted eurusd_momentum/EURUSD_1h_v3",
        "training.model_discarded": "attempt 2 discarded: already completed",
        "agent.presence": "host-a ready · cuda:0 · 1/2 slots",
    }


def test_there_is_an_example_of_every_event_type() -> None:
    assert [type(event) for event in EXAMPLES] == list(EVENT_TYPES)


def test_the_base_class_has_no_summary_to_inherit() -> None:
    with pytest.raises(NotImplementedError):
        Event().summary()


# --- compatibility ---


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_fields_of_a_later_version_are_ignored(event: Event) -> None:
    message = encode(envelope(event))
    fields = msgpack.unpackb(decompressed(message.body, message.content_encoding), timestamp=0)
    fields["from_the_future"] = {"nested": [1, 2, 3]}
    assert decode(replace_body(message, msgpack.packb(fields))).event == event


def test_fields_of_a_later_version_are_ignored_in_parts_of_an_event_too() -> None:
    request = example("ktrdr.training.requested")
    message = encode(envelope(request))
    fields = msgpack.unpackb(message.body, timestamp=0)
    fields["strategy"]["from_the_future"] = 1
    fields["datasets"][0]["blob"]["from_the_future"] = 1
    assert decode(replace_body(message, msgpack.packb(fields))).event == request


def test_optional_fields_that_an_older_program_leaves_out_have_their_defaults() -> None:
    presence = example("ktrdr.agent.presence")
    assert isinstance(presence, AgentPresence)
    fields = presence.model_dump(round_trip=True)
    del fields["running"], fields["device_name"], fields["memory_bytes"], fields["protocol_version"]
    received = decode(replace_body(encode(envelope(presence)), msgpack.packb(fields))).event
    assert isinstance(received, AgentPresence)
    assert received.running == ()


# --- compression ---


def test_a_large_event_that_compresses_is_compressed() -> None:
    request = example("ktrdr.training.requested")
    assert isinstance(request, TrainingRequested)
    strategy = request.strategy.model_copy(update={"yaml": "indicators:\n  - rsi\n" * 1000})
    request = request.model_copy(update={"strategy": strategy})
    message = encode(envelope(request))
    assert message.content_encoding == "zstd"
    assert len(message.body) < 2000
    assert decode(message).event == request


def test_a_small_event_is_not_compressed() -> None:
    assert encode(envelope(example("ktrdr.training.progress"))).content_encoding is None


def test_what_does_not_compress_is_sent_as_it_is() -> None:
    noise = random_bytes(100_000)
    event = ModelReady(**CLAIM, manifest=MANIFEST, inline=InlineModel(codec=Codec.ZSTD, data=noise))
    message = encode(envelope(event))
    assert message.content_encoding is None
    assert decode(message).event == event


def test_the_largest_inline_model_that_settings_allow_can_be_sent() -> None:
    noise = random_bytes(8 * 1024 * 1024)
    event = ModelReady(**CLAIM, manifest=MANIFEST, inline=InlineModel(codec=Codec.ZSTD, data=noise))
    assert decode(encode(envelope(event))).event == event


# --- what cannot be sent ---


def test_an_event_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_BODY_BYTES", 10)
    with pytest.raises(OversizedError, match=r"ktrdr\.training\.failed\.v1 of \d+ bytes is over 10"):
        encode(envelope(example("ktrdr.training.failed")))


def test_text_that_utf_8_has_no_bytes_for_cannot_be_sent() -> None:
    request = example("ktrdr.training.requested")
    assert isinstance(request, TrainingRequested)
    strategy = request.strategy.model_copy(update={"yaml": "name: \ud800"})
    with pytest.raises(UnencodableError, match="surrogates not allowed"):
        encode(envelope(request.model_copy(update={"strategy": strategy})))


def test_an_event_with_too_many_values_cannot_be_sent() -> None:
    manifest = MANIFEST.model_copy(update={"features": tuple(f"f{n}" for n in range(30_000))})
    with pytest.raises(OversizedError, match="values"):
        encode(envelope(ModelReady(**CLAIM, manifest=manifest, blob=example_blob())))


def example_blob() -> object:
    return example("ktrdr.training.checkpoint_saved").checkpoint  # type: ignore[attr-defined]


def decompressed(body: bytes, encoding: str | None) -> bytes:
    return codec.decompress(body, limit=codec.MAX_CONTENT_BYTES) if encoding else body


def replace_body(message: codec.Message, body: bytes) -> codec.Message:
    return replace(message, body=body, content_encoding=None)


def random_bytes(count: int) -> bytes:
    return random.Random(7).randbytes(count)


def test_json_of_an_event_has_no_bytes_in_it() -> None:
    event = example("ktrdr.training.model_ready")
    assert json.loads(event.model_dump_json())["inline"]["data"].startswith("AAECAwQF")
