"""What a log line shows, and what it must not."""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from ktrdr.logs import configure_logging, configure_logging_of_guest
from ktrdr.logs.binding import context_of_no_operation
from ktrdr.logs.overhearing import Overheard, overheard_by
from ktrdr.logs.redaction import redact

# In pieces, so that the source line that a traceback quotes does not have it.
PASSWORD = "hunter" + "2"


def said_in_json(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    lines = capsys.readouterr().err.splitlines()
    return [
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON")) for line in lines
    ]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_logged_exception_shows_no_local_variables(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", form)
    password = PASSWORD
    try:
        raise ValueError("no" if password else "yes")
    except ValueError:
        structlog.get_logger().exception("it failed")
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert password not in said
    if form == "json":
        assert json.loads(said)["exception"][0]["exc_type"] == "ValueError"


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_is_shown_wherever_it_is(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", form)
    log, url = structlog.get_logger(), f"amqps://me:{PASSWORD}@broker:5671/ktrdr"
    event = f"connecting to {url}"
    log.info(event, password=PASSWORD, broker_url=url, nested={"x": [url], "token": PASSWORD})
    log.info(
        "header", headers=f"Authorization: Bearer {PASSWORD}", command=f"KTRDR_BLOB_TOKEN={PASSWORD} ktrdr"
    )
    log.info("an error", error=ConnectionError(url))
    try:
        raise ConnectionError(f"{url} is not there")
    except ConnectionError:
        log.exception("it failed")
    logging.getLogger("library").error("%s failed", url)
    said = capsys.readouterr().err
    assert PASSWORD not in said
    assert "amqps://me:***@broker:5671/ktrdr" in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://me:p@ss{PASSWORD}@host/db", "postgresql://me:***@host/db"),
        ("https://host:8420/path and a@b", "https://host:8420/path and a@b"),
        (f"basic {PASSWORD}", "basic ***"),
        (f'{{"token": "{PASSWORD}"}}', '{"token": ***}'),
        (f"password={PASSWORD}&x=1", "password=***&x=1"),
        ("models and the token travel unprotected", "models and the token travel unprotected"),
        ("[3/8] Computing fuzzy memberships", "[3/8] Computing fuzzy memberships"),
    ],
)
def test_what_is_a_secret_is_known_by_where_it_is(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_json_is_one_valid_object_a_line_with_its_time_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    structlog.get_logger().info(
        "two\nlines", loss=float("nan"), best=[float("inf")], path=object(), text="\udcff", more={1: (2.5,)}
    )
    [line] = said_in_json(capsys)
    assert (line["event"], line["level"]) == ("two\nlines", "info")
    assert (line["loss"], line["best"], line["more"]) == ("nan", ["inf"], {"1": [2.5]})
    at = datetime.fromisoformat(line["timestamp"])
    assert at.tzinfo is not None
    assert abs((datetime.now(UTC) - at).total_seconds()) < 3600


def test_what_other_libraries_log_has_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    configure_logging("info", "json")
    with structlog.contextvars.bound_contextvars(operation_id="op-1"):
        logging.getLogger("library").warning("lost %s", "it")
    logging.getLogger("library").info("nobody cares")
    logging.getLogger("aiormq.connection").error("what is said elsewhere, and once")
    [line] = said_in_json(capsys)
    del line["timestamp"]
    assert line == {"event": "lost it", "level": "warning", "logger": "library", "operation_id": "op-1"}


def test_who_listens_is_told_from_info_on_of_what_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("error", "json")
    log, heard = structlog.get_logger(), list[Overheard]()
    log.info("before")
    with overheard_by(heard.append), structlog.contextvars.bound_contextvars(attempt=2):
        log.info("[1/4] Accepting", url=f"amqp://me:{PASSWORD}@host")
        log.debug("too much")
        with overheard_by(None):
            log.info("not to be told")
        context_of_no_operation().run(log.info, "of somebody else")
        try:
            raise ValueError(f"amqp://me:{PASSWORD}@host")
        except ValueError:
            log.exception("it failed")
    log.info("after")
    assert [(line.level, line.event) for line in heard] == [
        ("info", "[1/4] Accepting"),
        ("error", "it failed"),
    ]
    assert heard[0].fields == {"attempt": 2, "url": "amqp://me:***@host"}
    assert re.search(r"ValueError: amqp://me:\*\*\*@host$", str(heard[1].fields["exception"]))
    assert [line["event"] for line in said_in_json(capsys)] == ["it failed"]


def test_what_is_begun_for_one_operation_and_goes_on_is_about_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "json")
    with structlog.contextvars.bound_contextvars(operation_id="op-1", attempt=1, agent="alpha"):
        context_of_no_operation().run(structlog.get_logger().info, "runner ready")
    [line] = said_in_json(capsys)
    assert (line.get("operation_id"), line.get("attempt"), line["agent"]) == (None, None, "alpha")


def test_inside_another_program_nothing_of_its_own_logging_is_touched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handlers = logging.getLogger().handlers[:]
    configure_logging_of_guest()
    structlog.get_logger().info("[1/8] Loading data")
    structlog.get_logger().warning("odd")
    logging.getLogger("library").warning("theirs")
    said = capsys.readouterr()
    assert [json.loads(line)["event"] for line in said.err.splitlines() if line.startswith("{")] == ["odd"]
    assert said.out == ""
    assert logging.getLogger().handlers == handlers
    structlog.reset_defaults()
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    configure_logging_of_guest()
    structlog.get_logger().info("as they want it")
    assert capsys.readouterr().out == "event='as they want it'\n"
