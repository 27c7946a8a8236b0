"""The agent's own directory: locked while it lives, inherited when it is dead."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import structlog

from host_agent.durable import sync_directory
from ktrdr.errors import AgentError
from ktrdr.lock_files import is_at

_log = structlog.get_logger()

LOCK = "lock"
"""What a live agent has locked; written to when it begins and ends."""


class AgentDirectory:
    """A directory that one live agent has; a context manager that gives it back."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._closed = False
        os.utime(lock)
        for directory in (self.claims, self.datasets, self.set_aside):
            directory.mkdir(exist_ok=True)
        sync_directory(path)

    @property
    def agent_id(self) -> str:
        """The name of the agent that has it."""
        return self.path.name

    @property
    def claims(self) -> Path:
        """The folders of claims whose end the backend does not know yet."""
        return self.path / "claims"

    @property
    def datasets(self) -> Path:
        """Fetched datasets by hash: a cache."""
        return self.path / "datasets"

    @property
    def set_aside(self) -> Path:
        """What could not be read, for a person to look at."""
        return self.path / "set-aside"

    def close(self) -> None:
        """Let another agent have it."""
        if not self._closed:
            self._closed = True
            with suppress(OSError):
                os.utime(self._lock)
            os.close(self._lock)

    def __enter__(self) -> "AgentDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_directory(agents_dir: Path, agent_id: str) -> AgentDirectory:
    """Take the directory of the agent with this id.

    Raises:
        AgentError: a live agent has it, or it cannot be made.
    """
    path = agents_dir / agent_id
    lock = _try_lock(path)
    if lock is None:
        raise AgentError(
            f"Another agent is running as '{agent_id}' in {path}.", fix="Stop it, or choose another id."
        )
    return _opened(path, lock)


def claim_directory(agents_dir: Path, *, prefix: str = "embedded") -> AgentDirectory:
    """Take the first free of ``prefix-1``, ``prefix-2``, …, and what dead agents of that prefix left behind.

    So a process that is started again after a crash gets its predecessor's directory, and finds there, or
    adopts from its dead siblings, what was claimed and what is still to be delivered.

    Raises:
        AgentError: it cannot be made.
    """
    number = 1
    while (lock := _try_lock(agents_dir / f"{prefix}-{number}")) is None:
        number += 1
    directory = _opened(agents_dir / f"{prefix}-{number}", lock)
    try:
        for sibling in _siblings(agents_dir, prefix):
            if sibling != directory.path:
                _adopt(sibling, directory)
    except BaseException:
        directory.close()
        raise
    return directory


def _opened(path: Path, lock: int) -> AgentDirectory:
    try:
        return AgentDirectory(path, lock)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError):
            raise AgentError(f"The agent's directory {path} cannot be used: {error.strerror}.") from error
        raise


def _siblings(agents_dir: Path, prefix: str) -> list[Path]:
    pattern = re.compile(re.escape(prefix) + r"-[1-9][0-9]*")
    return sorted(path for path in agents_dir.iterdir() if pattern.fullmatch(path.name) and path.is_dir())


def _adopt(sibling: Path, heir: AgentDirectory) -> None:
    """Move the claims of a dead agent over, each in one step; a live one keeps its own."""
    with locked(sibling) as is_dead:
        if not is_dead:
            return
        with suppress(FileNotFoundError):
            for folder in sorted((sibling / "claims").iterdir()):
                try:
                    folder.rename(heir.claims / folder.name)
                except OSError as error:
                    _log.warning("claim not adopted", folder=str(folder), reason=str(error))
                else:
                    _log.info("claim adopted", claim=folder.name, of=sibling.name, agent=heir.agent_id)
            sync_directory(heir.claims)
            sync_directory(sibling / "claims")


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Keep the agent of this directory from starting within the block; False: it runs.

    Raises:
        AgentError: the directory cannot be used.
    """
    lock = _try_lock(path)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _try_lock(path: Path) -> int | None:
    """Lock a directory's lock file; None if another has it. The system frees it when the process ends."""
    while True:
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = _opened_lock(path)
        except OSError as error:
            raise AgentError(
                f"The agent's directory {path} cannot be made: {error.strerror}.",
                fix="Set KTRDR_HOME to a directory that can be written.",
            ) from error
        if lock is None:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        if is_at(path / LOCK, lock):
            return lock
        os.close(lock)  # it was removed, with its directory, before it was locked


def _opened_lock(path: Path) -> int | None:
    try:
        return os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        return None  # somebody has just removed the directory
