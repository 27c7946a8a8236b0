"""Pages of the documentation whose commands are run: each must print what the page says."""

import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path

from tests.e2e.installation import REPOSITORY

_PART = re.compile(r"<!-- runs -->\n```bash\n(.*?)```\n<!-- /runs -->", re.DOTALL)


class Page:
    """What a page marks as running, as one script.

    What stands in a comment below a command is what it prints; what stands below an empty line, or first, is
    for the reader.
    """

    def __init__(self, name: str) -> None:
        self._parts = _PART.findall((REPOSITORY / "docs" / name).read_text())
        assert self._parts, f"nothing of {name} is marked as running"

    @property
    def promised(self) -> list[str]:
        """The lines that the page says are printed."""
        pairs = [pair for part in self._parts for pair in pairwise(["", *part.splitlines()])]
        return [line.removeprefix("# ") for above, line in pairs if above and line.startswith("# ")]

    def run(self, directory: Path, variables: dict[str, str], *, within_s: float) -> list[str]:
        """Run it in a directory with these variables, and return what it printed."""
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", "\n".join(self._parts)],
            cwd=directory,
            env={**os.environ, **variables, "no_proxy": "*"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            printed, said = process.communicate(timeout=within_s)
        finally:
            process.kill()
        assert process.returncode == 0, f"printed:\n{printed}\nsaid:\n{said}"
        return printed.splitlines()
