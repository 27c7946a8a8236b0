"""What the page on the HTTP API shows, done, at a `ktrdr serve` that has no broker."""

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import Command
from tests.e2e.installation import MOMENTUM, Installation
from tests.e2e.page import Page


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path) as made:
        made.variables["KTRDR_STRATEGIES_DIR"] = str(MOMENTUM.parent)
        yield made


def url_of(serve: Command) -> str:
    """The address at which it says that it listens, as soon as it does."""
    serve.until_said("http://")
    found = re.search(r"http://127\.0\.0\.1:[0-9]+", serve.stderr)
    assert found is not None
    return found[0]


@pytest.mark.timeout(400)
@pytest.mark.skipif(not all(map(shutil.which, ("curl", "jq", "bash"))), reason="needs curl, jq and bash")
def test_the_example_prints_what_the_page_says(installation: Installation) -> None:
    page = Page("http-api.md")
    serve = installation.start("serve")
    token = installation.start("tokens", "create", "me", "--role", "operator").succeed().stdout.strip()
    variables = {"URL": url_of(serve), "TOKEN": token}
    assert page.run(installation.root, variables, within_s=300) == page.promised
    assert (installation.root / "report.html").read_text().startswith("<!doctype html>")
    assert token not in serve.stderr
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0
