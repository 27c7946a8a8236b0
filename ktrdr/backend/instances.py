"""Which backend processes are alive, by file locks: the kernel frees them however a process ends."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ktrdr.errors import DatabaseUnavailableError, StorageFullError, StoreError
from ktrdr.lock_files import is_at

_SUFFIX = ".lock"

BROKER_OWNER = "broker"
"""The owner of what is carried by the broker rather than by a process: it outlives them all.

No process is this instance. Any number of them see to what it owns, together: ``ktrdr serve``.
"""
_LOCK_TRIES = 25
_LOCK_PAUSE_S = 0.02


class Lock(Protocol):
    """What a living instance holds."""

    def renew(self) -> None:
        """Take it again, if it was lost.

        Raises:
            DatabaseUnavailableError: that cannot be done now.
        """

    def release(self) -> None:
        """Say that the instance has ended."""


class Registry(Protocol):
    """The backend processes that share a database."""

    def register(self, instance: str) -> Lock:
        """Say that this process is the instance, until it releases the lock or ends.

        Raises:
            StoreError: another process is it already.
            StorageFullError: the disk is full.
            DatabaseUnavailableError: it cannot be said.
        """

    def is_alive(self, instance: str) -> bool:
        """Return whether a process holds the lock of that instance."""

    def is_gone(self, instance: str) -> bool:
        """Return whether what the instance carries is free for others to take over."""

    def remove_stale(self) -> list[str]:
        """Remove what is left of dead instances; return which they were."""


class Instances:
    """The lock files of all backend processes that share one home directory.

    A process holds the lock of its own instance as long as it lives, also when it is killed. Locks are
    advisory (``flock``) and seen on one machine only.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def register(self, instance: str) -> "InstanceLock":
        """Say that this process is the instance, until it releases the lock or ends.

        Raises:
            StoreError: another process is it already.
            StorageFullError: the disk is full.
            DatabaseUnavailableError: the directory cannot be written.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            return InstanceLock(self._path(instance))
        except BlockingIOError as error:
            process = self.process(instance)
            raise StoreError(f"Process {process or 'unknown'} is the instance {instance} already.") from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StorageFullError(f"The disk of {self._directory} is full.") from error
            raise DatabaseUnavailableError(
                f"The directory {self._directory} cannot be written: {error.strerror}.",
                fix="Set KTRDR_HOME to a directory that is yours.",
            ) from error

    def is_alive(self, instance: str) -> bool:
        """Return whether a process holds the lock of that instance."""
        # Shared: two processes that ask at the same moment must not take each other for the holder.
        with _locked(self._path(instance), fcntl.LOCK_SH) as free:
            return free is False

    def alive(self) -> list[str]:
        """Return the instances that a process is, by name."""
        names = sorted(path.name.removesuffix(_SUFFIX) for path in self._directory.glob(f"*{_SUFFIX}"))
        return [name for name in names if self.is_alive(name)]

    def is_gone(self, instance: str) -> bool:
        """Return whether what the instance carries is free for others to take over."""
        return instance != BROKER_OWNER and not self.is_alive(instance)

    def process(self, instance: str) -> int | None:
        """Return the process id that the instance has, or had last."""
        try:
            return int(self._path(instance).read_text())
        except (OSError, ValueError):
            return None

    def remove_stale(self) -> list[str]:
        """Delete the lock files of dead instances; return which they were."""
        removed = []
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            # Removed while locked: an instance that is just starting waits, and then makes a new file.
            with _locked(path, fcntl.LOCK_EX) as free:
                if free:
                    path.unlink()
                    removed.append(path.name.removesuffix(_SUFFIX))
        return removed

    def _path(self, instance: str) -> Path:
        return self._directory / f"{instance}{_SUFFIX}"


class InstanceLock:
    """Held by a living instance."""

    def __init__(self, path: Path) -> None:
        self._path = path
        while True:
            # Not inherited by child processes: a runner that outlives its parent must not keep it alive.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _lock_soon(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            # Another process may have removed the file as stale before we had the lock.
            if is_at(path, descriptor):
                break
            os.close(descriptor)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor: int | None = descriptor

    def renew(self) -> None:
        """Do nothing: the kernel takes it from nobody who lives."""

    def release(self) -> None:
        """Say that the instance has ended."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def _lock_soon(descriptor: int) -> None:
    """Take the lock; others who merely ask hold it for a moment."""
    for tries_left in reversed(range(_LOCK_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not tries_left:
                raise
            time.sleep(_LOCK_PAUSE_S)
        else:
            return


@contextmanager
def _locked(path: Path, mode: int) -> Iterator[bool | None]:
    """Hold a lock file for the length of the block, if nobody else does; None if there is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            # What was locked may have been removed, and be another file by now.
            yield True if is_at(path, descriptor) else None
    finally:
        os.close(descriptor)
