"""What a log line shows, and what it must not."""

import json

import pytest
import structlog

from ktrdr.logs import configure_logging


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_logged_exception_shows_no_local_variables(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", form)  # type: ignore[arg-type]  # one of its literals
    password = "hunter" + "2"
    try:
        raise ValueError("no" if password else "yes")
    except ValueError:
        structlog.get_logger().exception("it failed")
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert password not in said
    if form == "json":
        assert json.loads(said)["exception"][0]["exc_type"] == "ValueError"
