"""How the runner's log becomes frames."""

import logging
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import structlog

from host_agent.frames import LogLine
from host_agent.pipe import encode_frame
from host_agent.runner_log import configure_runner_logging


@pytest.fixture
def lines() -> Iterator[list[LogLine]]:
    """Lines that were emitted at debug; the process's logging is as before after the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    emitted: list[LogLine] = []
    configure_runner_logging("debug", emitted.append)
    yield emitted
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_line_keeps_its_level_and_fields(lines: list[LogLine]) -> None:
    structlog.get_logger().info("[2/8] Computing indicators", rows=3, names=["a"], none=None)
    expected = {"rows": 3, "names": ["a"], "none": None}
    assert lines == [LogLine(level="info", event="[2/8] Computing indicators", fields=expected)]


def test_what_is_bound_comes_with_the_line(lines: list[LogLine]) -> None:
    with structlog.contextvars.bound_contextvars(operation_id="op-1"):
        structlog.get_logger().debug("line")
    assert lines[0].fields == {"operation_id": "op-1"}


def test_any_value_can_be_logged(lines: list[LogLine]) -> None:
    structlog.get_logger().warning(
        "line",
        path=object,
        float32=np.float32(0.5),
        int64=np.int64(7),
        huge=10**30,
        nested={1: (2, {3})},
        text="\udcff" + "x" * 50_000,
    )
    fields = lines[0].fields
    assert fields["float32"] == 0.5
    assert fields["int64"] == 7
    assert fields["huge"] == str(10**30)
    assert fields["nested"] == {"1": [2, "{3}"]}
    assert len(encode_frame(lines[0])) < 20_000


def test_an_exception_is_logged_with_its_traceback(lines: list[LogLine]) -> None:
    try:
        raise ValueError("so wrong")
    except ValueError:
        structlog.get_logger().exception("it happened")
    assert lines[0].level == "error"
    assert "ValueError: so wrong" in str(lines[0].fields["exception"])


def test_no_secret_leaves_the_runner(lines: list[LogLine]) -> None:
    url = "s3://key:" + "hunter2" + "@bucket"
    structlog.get_logger().info("reading " + url, url=url, secret_key="hunter2")
    logging.getLogger("library").error("no %s", url)
    assert "hunter2" not in str(lines)


def test_warnings_and_other_libraries_logs_come_too(lines: list[LogLine]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old function", DeprecationWarning, stacklevel=1)
    logging.getLogger("library").error("lost %s", "it")
    logging.getLogger("library").info("nobody cares")
    assert [(line.level, line.fields["logger"]) for line in lines] == [
        ("warning", "py.warnings"),
        ("error", "library"),
    ]
    assert "old function" in lines[0].event
    assert lines[1].event == "lost it"


def test_lines_below_the_level_are_not_made() -> None:
    emitted: list[LogLine] = []
    configure_runner_logging("warning", emitted.append)
    structlog.get_logger().info("line")
    structlog.reset_defaults()
    logging.captureWarnings(False)
    assert not emitted
