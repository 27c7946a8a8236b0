"""What a drill makes and throws away: a directory, and names on the broker; also after drills that died."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import structlog

from ktrdr.drill.names import FAMILY, exchanges_of, prefix_of, queues_of
from ktrdr.drill.scratch_broker import ScratchBroker
from ktrdr.errors import BusError

_LOCK = "drill.lock"
_RECORD = "broker.json"

_log = structlog.get_logger()


@contextlib.contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """Make a directory of that name among the temporary ones, for this user alone, and remove it after.

    Its lock tells that the drill is alive; the kernel frees it however the drill ends.
    """
    directory = Path(tempfile.gettempdir()) / prefix
    directory.mkdir(mode=0o700)
    lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def record_broker(directory: Path, broker: ScratchBroker) -> None:
    """Note on which broker the names of this directory are, for those who come after a drill that died."""
    (directory / _RECORD).write_text(json.dumps(_place(broker)))


async def clear(broker: ScratchBroker, prefix: str) -> tuple[str, ...]:
    """Delete every queue and exchange of a drill; return what could not be, as the broker calls it."""
    left = []
    under = broker.under(prefix)
    for name in queues_of(prefix):
        try:
            await under.delete_queue(name)
        except BusError as error:
            _log.debug("queue not deleted", queue=name, reason=str(error))
            left.append(name)
    for name in exchanges_of(prefix):
        try:
            await under.delete_exchange(name)
        except BusError as error:
            _log.debug("exchange not deleted", exchange=name, reason=str(error))
            left.append(name)
    return tuple(left)


async def clear_after_the_dead(broker: ScratchBroker) -> tuple[str, ...]:
    """Delete what drills of this machine left on this broker when they were killed; return their prefixes."""
    cleared = []
    for directory in _abandoned(_place(broker)):
        if not await clear(broker, directory.name):
            shutil.rmtree(directory, ignore_errors=True)
            cleared.append(directory.name)
    return tuple(cleared)


def _abandoned(place: list[str]) -> list[Path]:
    found = sorted(Path(tempfile.gettempdir()).glob(f"{FAMILY}*"))
    return [path for path in found if prefix_of(path.name) == path.name and _is_abandoned(path, place)]


def _is_abandoned(directory: Path, place: list[str]) -> bool:
    """Return whether a directory is that of a drill on this broker, which lives no more."""
    try:
        if json.loads((directory / _RECORD).read_text()) != place:
            return False
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except (OSError, ValueError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _place(broker: ScratchBroker) -> list[str]:
    return [*(f"{address.host}:{address.port}" for address in broker.addresses), broker.vhost]
