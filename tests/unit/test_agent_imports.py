"""What the agent's process does without."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "pandas", "numpy", "pyarrow", "talib", "sqlalchemy", "fastapi", "ktrdr.backend")


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ("host_agent.agent", (*HEAVY, "ktrdr.cli", "aio_pika", "httpx")),
        ("ktrdr.cli.agent, ktrdr.app.hosting, ktrdr.bus.rabbitmq, ktrdr.blobs.http", HEAVY),
    ],
    ids=["agent", "process"],
)
def test_the_agent_imports_neither_torch_nor_pandas_nor_the_backend(
    modules: str, without: tuple[str, ...]
) -> None:
    program = f"import sys, {modules}; print([m for m in {without!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
