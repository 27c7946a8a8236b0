"""What the page on blob stores shows, done."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.blob_server import TOKEN, blob_server

PAGE = Path(__file__).parents[2] / "docs" / "blob-stores.md"


@pytest.mark.skipif(
    not all(map(shutil.which, ("curl", "openssl", "bash"))), reason="needs curl, openssl and bash"
)
def test_the_example_prints_what_the_page_says(tmp_path: Path) -> None:
    script = PAGE.read_text().partition("<!-- runs -->\n```bash\n")[2].partition("```\n<!-- /runs -->")[0]
    promised = re.findall(r"^# (\{.*\}|the same)$", script, re.MULTILINE)
    assert len(promised) == 4
    with blob_server(tmp_path / "blobs") as server:
        environment = {**os.environ, "URL": server.url, "KTRDR_BLOB_TOKEN": TOKEN.get_secret_value()}
        done = subprocess.run(
            ["bash", "-euc", script],
            env={**environment, "TMPDIR": str(tmp_path), "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert [entry.size for entry in server.store.entries()] == [3_000_000]
    assert re.findall(r"\{[^}]*\}|the same", done.stdout) == promised
    assert done.stderr == ""
