"""Run ``ktrdr`` in this process, and kill it right before one durable step: ``crash_at.py STEP ARGUMENT …``.

STEP is a regular expression. It is searched in a description of each step before the step is done:
``rename …/.staging/x~y …/EURUSD_1h_v1``, ``sync …/model.safetensors`` (Linux only), ``remove …/ending.json``,
``commit INSERT models; UPDATE operations``.
"""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from ktrdr.cli.main import main


def crash_before(pattern: str) -> None:
    """Die before the first step whose description matches."""
    wanted = re.compile(pattern)

    def step(description: str) -> None:
        if wanted.search(description):
            os.kill(os.getpid(), signal.SIGKILL)

    def stepped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            step(" ".join([name, *map(_described, arguments)]))
            return function(*arguments, **options)

        return call

    os.rename = stepped("rename", os.rename)
    os.replace = stepped("rename", os.replace)
    os.unlink = stepped("remove", os.unlink)
    os.fsync = stepped("sync", os.fsync)

    def executes(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        words = statement.split()
        if words[0] in ("INSERT", "UPDATE", "DELETE"):
            table = words[1] if words[0] == "UPDATE" else words[2]
            connection.info.setdefault("written", []).append(f"{words[0]} {table.partition('(')[0]}")

    def commits(connection: Any) -> None:
        step("commit " + "; ".join(connection.info.pop("written", [])))

    event.listen(Engine, "before_cursor_execute", executes)
    event.listen(Engine, "commit", commits)


def _described(argument: object) -> str:
    if isinstance(argument, int):
        return str(Path(f"/proc/self/fd/{argument}").readlink())
    return str(argument)


if __name__ == "__main__":
    crash_before(sys.argv[1])
    main(sys.argv[2:])
