"""The generated schemas are current, and real events are what they say."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.bus import asyncapi
from ktrdr.bus.topology import ROUTES, route, shared_topology
from ktrdr.events import EVENT_TYPES, Event, schemas
from tests.unit.events_cases import EXAMPLES
from tests.unit.events_strategies import events

COMMITTED = Path(__file__).parents[2] / "schemas"


def validator(event_type: type[Event]) -> jsonschema.Draft202012Validator:
    schema = json.loads((COMMITTED / schemas.schema_file_name(event_type)).read_text())
    return jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


# --- the files ---


def test_the_committed_files_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (schemas.main, asyncapi.main):
        assert command(["--check", str(COMMITTED)]) == 0, capsys.readouterr().err


def test_writing_makes_every_file_and_the_check_agrees(tmp_path: Path) -> None:
    for command in (schemas.main, asyncapi.main):
        assert command([str(tmp_path / "schemas")]) == 0
        assert command(["--check", str(tmp_path / "schemas")]) == 0
    names = {path.name for path in (tmp_path / "schemas").iterdir()}
    assert names == {f"{event_type.type_name()}.json" for event_type in EVENT_TYPES} | {"asyncapi.yaml"}


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    schemas.main([str(tmp_path)])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    schemas.main([str(tmp_path)])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_check_names_each_file_that_is_wrong_and_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schemas.main([str(tmp_path)])
    (tmp_path / "ktrdr.training.failed.v1.json").write_text("{}")
    (tmp_path / "ktrdr.training.accepted.v1.json").unlink()
    (tmp_path / "ktrdr.training.forgotten.v1.json").write_text("{}")
    (tmp_path / "openapi.json").write_text("of someone else")
    assert schemas.main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/ktrdr.training.accepted.v1.json is missing",
        f"{tmp_path}/ktrdr.training.failed.v1.json is stale",
        f"{tmp_path}/ktrdr.training.forgotten.v1.json is not generated any more",
        f"Run: python -m ktrdr.events.schemas {tmp_path}",
    ]
    assert schemas.main([str(tmp_path)]) == 0
    assert schemas.main(["--check", str(tmp_path)]) == 0
    assert not (tmp_path / "ktrdr.training.forgotten.v1.json").exists()
    assert (tmp_path / "openapi.json").read_text() == "of someone else"


def test_a_directory_that_is_not_there_is_missing_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asyncapi.main(["--check", str(tmp_path / "nowhere")]) == 1
    assert "asyncapi.yaml is missing" in capsys.readouterr().err


# --- the schemas ---


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda event_type: event_type.type)
def test_a_schema_is_valid_and_says_what_it_describes(event_type: type[Event]) -> None:
    schema = schemas.json_schema(event_type)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:ktrdr:event:{event_type.type_name()}"
    assert schema["title"] == event_type.type_name()
    assert schema["description"].endswith(".")
    assert set(schema["properties"]) == set(event_type.model_fields)


def test_a_schema_says_what_the_code_says_of_a_field() -> None:
    schema = schemas.json_schema(
        next(each for each in EVENT_TYPES if each.type == "ktrdr.training.requested")
    )
    assert schema["properties"]["attempt"]["description"] == "Which try at it."
    assert schema["$defs"]["BlobRef"]["properties"]["size"]["description"] == "Bytes as stored."
    assert schema["$defs"]["StrategyDocument"]["properties"]["sha256"]["description"] == (
        "Of the UTF-8 bytes of `yaml`."
    )


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_a_real_event_is_what_its_schema_says(event: Event) -> None:
    validator(type(event)).validate(json.loads(event.model_dump_json()))


@settings(deadline=None)
@given(st.sampled_from(EVENT_TYPES).flatmap(events))
def test_any_event_is_what_its_schema_says(event: Event) -> None:
    validator(type(event)).validate(json.loads(event.model_dump_json()))


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_a_schema_refuses_what_the_model_refuses(event: Event) -> None:
    fields = json.loads(event.model_dump_json())
    required = [name for name, field in type(event).model_fields.items() if field.is_required()]
    for name in required:
        without = {key: value for key, value in fields.items() if key != name}
        assert not validator(type(event)).is_valid(without)
    for name in ("operation_id", "claim_id", "agent_id"):
        if name in fields:
            assert not validator(type(event)).is_valid({**fields, name: "../x"})


# --- AsyncAPI ---


def test_the_asyncapi_document_has_every_event_with_its_schema() -> None:
    document = yaml.safe_load((COMMITTED / "asyncapi.yaml").read_text())
    assert document["asyncapi"] == "3.0.0"
    names = {event_type.__name__ for event_type in EVENT_TYPES}
    assert set(document["components"]["messages"]) == set(document["operations"]) == names
    for message in document["components"]["messages"].values():
        assert (COMMITTED / message["payload"]["schema"]["$ref"]).is_file()


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_the_asyncapi_document_says_where_an_event_really_goes(event: Event) -> None:
    document = asyncapi.asyncapi_document()
    channel = document["channels"][event.type]
    where = route(event)
    exchange = channel["bindings"]["amqp"]["exchange"]
    kinds = {each.name: each.kind for each in shared_topology().exchanges}
    assert (exchange["name"], exchange["type"]) == (where.exchange, kinds[where.exchange])
    if where.routing_key:
        fields = {name: getattr(event, name) for name in channel.get("parameters", {})}
        assert channel["address"].format(**fields) == where.routing_key
    action = document["operations"][type(event).__name__]["action"]
    assert (action == "send") == (ROUTES[type(event)].sender == "backend")


def test_every_reference_within_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi.asyncapi_document()

    def references(value: object) -> list[str]:
        match value:
            case dict():
                own = [value["$ref"]] if "$ref" in value else []
                return own + [found for inner in value.values() for found in references(inner)]
            case list():
                return [found for inner in value for found in references(inner)]
            case _:
                return []

    local = [reference for reference in references(document) if reference.startswith("#/")]
    assert local
    for reference in local:
        found = document
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]
