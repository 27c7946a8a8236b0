"""What the page on the HTTP API shows, done, at a `ktrdr serve` that has no broker."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.command import Command
from tests.e2e.installation import MOMENTUM, REPOSITORY, Installation

PAGE = REPOSITORY / "docs" / "http-api.md"


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


@pytest.mark.skipif(not all(map(shutil.which, ("curl", "jq", "bash"))), reason="needs curl, jq and bash")
def test_the_example_prints_what_the_page_says(installation: Installation) -> None:
    script = PAGE.read_text().partition("<!-- runs -->\n```bash\n")[2].partition("```\n<!-- /runs -->")[0]
    lines = script.splitlines()
    # What stands below a command is what it prints; what stands below an empty line is for the reader.
    promised = [line for above, line in pairwise(lines) if above and line.startswith("# ")]
    assert len(promised) == 9
    serve = installation.start("serve")
    token = installation.start("tokens", "create", "me", "--role", "operator").succeed().stdout.strip()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=installation.root,
        env={**os.environ, "URL": url_of(serve), "TOKEN": token, "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.splitlines() == [line.removeprefix("# ") for line in promised], done.stderr
    assert (installation.root / "report.html").read_text().startswith("<!doctype html>")
    assert token not in serve.stderr
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0
