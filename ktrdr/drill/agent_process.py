"""A host agent as a process of its own, behind a network that can be cut."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from ktrdr.drill.proxy import Proxy
from ktrdr.settings import Settings

_ENDS_WITHIN_S = 8.0
_LOG_BYTES = 4000


class AgentProcess:
    """One host agent; started again after it was killed, it is the same agent.

    Args:
        settings: the agent's own.
        proxy: between it and the broker; its settings' URL must lead there.
        log: where it writes.
    """

    def __init__(self, settings: Settings, proxy: Proxy, log: Path) -> None:
        self._settings = settings
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.proxy = proxy
        self.agent_id = settings.agent_id or ""

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; does not wait until the agent is there."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "ktrdr.drill.agent_child",
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(self._settings),
                # An interrupt at the terminal is for the drill, which then stops its agents.
                start_new_session=True,
            )

    async def kill(self) -> None:
        """Kill it as ``kill -9`` does; its runner dies with it."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Have it end, the hard way if it takes long."""
        if not await self._end(signal.SIGTERM):
            await self._end(signal.SIGKILL)

    def last_words(self) -> str:
        """Return the end of its log, on one line."""
        with contextlib.suppress(OSError):
            lines = self._log.read_bytes()[-_LOG_BYTES:].decode(errors="replace").splitlines()
            return " / ".join(line.strip() for line in lines[-3:])
        return ""

    async def _end(self, number: int) -> bool:
        process = self._process
        if process is None or process.returncode is not None:
            return True
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_WITHIN_S):
                await process.wait()
        return process.returncode is not None


def _environment(settings: Settings) -> Mapping[str, str]:
    """Return this process's environment, without its settings and with the agent's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KTRDR_")}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if value != field.default:
            inherited[f"KTRDR_{name.upper()}"] = _text(value)
    return inherited


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)
