"""What a drill makes and throws away: a directory, and names on the broker; also after drills that died."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from ktrdr.bus.management import ManagementView
from ktrdr.drill.names import FAMILY, born, exchanges_of, prefix_of, queues_of
from ktrdr.drill.scratch_broker import ScratchBroker

_LOCK = "drill.lock"
_RECORD = "broker.json"
_OLD = timedelta(hours=1)
"""No drill lasts so long."""


@contextlib.contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """Make a directory of that name among the temporary ones, for this user alone, and remove it after.

    Its lock tells that the drill is alive; the kernel frees it however the drill ends. If the record of the
    broker is still there at the end, it is kept, for the next drill to do what this one could not.
    """
    directory = Path(tempfile.gettempdir()) / prefix
    directory.mkdir(mode=0o700)
    lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory
    finally:
        if (directory / _RECORD).exists():
            _remove_all_but_record(directory)
        else:
            shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _remove_all_but_record(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in (_LOCK, _RECORD):
            path.unlink(missing_ok=True)


def record_broker(directory: Path, broker: ScratchBroker) -> None:
    """Note on which broker the names of this directory are, for those who come after a drill that died."""
    (directory / _RECORD).write_text(json.dumps(_place(broker)))


async def clear(broker: ScratchBroker, directory: Path) -> tuple[str, ...]:
    """Delete every queue and exchange of a drill; return what could not be, as the broker calls it.

    Args:
        broker: where they are.
        directory: of the drill; forgets the broker if all are gone.
    """
    prefix = directory.name
    left = await broker.under(prefix).clear(queues_of(prefix), exchanges_of(prefix))
    if not left:
        (directory / _RECORD).unlink(missing_ok=True)
    return left


async def clear_after_the_dead(
    broker: ScratchBroker, view: ManagementView | None, now: datetime
) -> tuple[str, ...]:
    """Delete what drills left on this broker when they were killed; return their prefixes.

    Those of this machine are known by their directories, others by old names in the management API.
    """
    cleared = []
    for directory in _abandoned(_place(broker)):
        if not await clear(broker, directory):
            shutil.rmtree(directory, ignore_errors=True)
            cleared.append(directory.name)
    if view is not None:
        for prefix in _old_prefixes(view, now):
            queues, exchanges = (
                [name for name in kind if prefix_of(name) == prefix] for kind in _kinds(view)
            )
            if not await broker.under(prefix).clear(queues, exchanges):
                cleared.append(prefix)
    return tuple(cleared)


def _kinds(view: ManagementView) -> tuple[Collection[str], Collection[str]]:
    return view.queues, view.exchanges


def _old_prefixes(view: ManagementView, now: datetime) -> list[str]:
    prefixes = {prefix for kind in _kinds(view) for name in kind if (prefix := prefix_of(name)) is not None}
    return sorted(prefix for prefix in prefixes if (made := born(prefix)) is not None and now - made > _OLD)


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
