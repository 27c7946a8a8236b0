"""Lines of an operation's log, as people read them and as scripts do."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING

from rich.text import Text

from ktrdr.cli.output import err, out

if TYPE_CHECKING:
    from ktrdr.backend.log_reading import LogRecord

_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "bold red"}
_EXCEPTION = "exception"


class LogView:
    """Prints lines as they come.

    Args:
        as_json: one JSON object a line.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._holder: tuple[int, str] | None = None

    def show(self, lines: Sequence["LogRecord"]) -> None:
        """Print more lines."""
        for line in lines:
            if self._as_json:
                plain = {**asdict(line), "at": line.at.astimezone(UTC).isoformat()}
                _print(Text(json.dumps(plain, ensure_ascii=False)))
            else:
                self._show(line)

    def waiting(self, why: str) -> None:
        """Say why no lines come for now."""
        err.print(Text(f"Waiting: {why}", style="yellow"), soft_wrap=True)

    def end(self) -> None:
        """Say where the whole log is."""
        if self._as_json:
            return
        if self._holder is None:
            err.print("No agent has logged anything about it yet.", style="dim")
            return
        err.print(
            Text(
                f"These are the newest lines. {self._holder[1]} writes all of them to its own log: on its "
                "machine `journalctl -u ktrdr-host-agent`, or standard error of the process that it is in.",
                style="dim",
            ),
            soft_wrap=True,
        )

    def _show(self, line: "LogRecord") -> None:
        holder = (line.attempt, line.agent_id)
        if holder != self._holder:
            self._holder = holder
            _print(Text(f"attempt {line.attempt} on {line.agent_id}", style="bold"))
        if line.left_out:
            _print(Text(f"… {line.left_out:,} {'line' if line.left_out == 1 else 'lines'} left out", "dim"))
        # The executor's steps are within one of the agent's.
        said = f"{'  ' if line.source == 'executor' else ''}{line.event}"
        severity = f"{line.level}: " if line.level not in ("debug", "info") else ""
        fields = "  ".join(
            f"{name}={_value(value)}" for name, value in line.fields.items() if name != _EXCEPTION
        )
        text = Text(f"{line.at.astimezone(UTC):%H:%M:%S.%f}"[:-3], style="dim")
        text.append(f"  {severity}{said}", style=_STYLES[line.level])
        if fields:
            text.append(f"  {fields}", style="dim")
        _print(text)
        if (traceback := line.fields.get(_EXCEPTION)) is not None:
            _print(Text(str(traceback), style="dim"))


def _value(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(" \t\n\"'=") else text


def _print(text: Text) -> None:
    out.print(text, soft_wrap=True)
