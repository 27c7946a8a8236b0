"""What the agent's process does without."""

import subprocess
import sys

HEAVY = ("torch", "pandas", "numpy", "pyarrow", "talib", "ktrdr.backend", "ktrdr.cli")


def test_the_agent_imports_neither_torch_nor_pandas_nor_the_backend() -> None:
    program = f"import sys, host_agent.agent; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
