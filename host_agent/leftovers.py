"""What agents of this machine that do not run have left: found, and removed while nobody can start there."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from host_agent.datasets import unused_datasets
from host_agent.directory import LOCK, locked
from host_agent.naming import is_embedded
from host_agent.set_aside import remove, set_aside_before, size_of

_CLAIMS, _DATASETS, _SET_ASIDE = "claims", "datasets", "set-aside"


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays, of agents that do not run."""

    limit_bytes: int
    """Of the cache of each."""
    used_since: datetime | None
    """Of a cache, and of the directory of an agent inside a backend; None: however old it is."""
    set_aside_since: datetime | None
    """Of what could not be read; None: likewise."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What one agent that does not run has left, and nobody needs."""

    directory: Path
    datasets: tuple[tuple[Path, int], ...]
    """Files of its cache, with their sizes: those not used for long, or over the limit."""
    claims: tuple[tuple[Path, int], ...]
    """Folders of claims on operations that are over, with what is in them."""
    set_aside: tuple[tuple[Path, int], ...]
    """What could not be read, and nobody has looked at for long."""
    is_abandoned: bool
    """Whether that is all there is, and nobody will come for more: then its directory goes too."""

    def remove(self) -> None:
        """Remove it; only within `leftovers`."""
        for path, _ in self.datasets:
            path.unlink(missing_ok=True)
        for folder, _ in self.claims:
            # As when the agent does so: out of the way in one step, so that no half of it is ever read.
            refuse = folder.with_name(f".{folder.name}")
            folder.rename(refuse)
            shutil.rmtree(refuse, ignore_errors=True)
        for path, _ in self.set_aside:
            remove(path)
        if self.is_abandoned:
            for name in (_CLAIMS, _DATASETS, _SET_ASIDE):
                remove(self.directory / name)
            # By the lock it is found again, if this ends before.
            (self.directory / LOCK).unlink()
            with suppress(OSError):  # somebody begins there at this moment
                self.directory.rmdir()


@contextmanager
def leftovers(agents_dir: Path, kept: Kept, *, is_over: Callable[[str], bool]) -> Iterator[list[Leftovers]]:
    """Look at the directory of each agent that does not run; within the block none of them can be started.

    Agents that run keep house themselves.

    Args:
        agents_dir: the parent of all.
        kept: what stays.
        is_over: whether the backend is known to want nothing more of an operation.

    Raises:
        AgentError: the directories cannot be used.
    """
    with _all_locked(agents_dir) as stopped:
        yield [_left_in(path, kept, is_over) for path in stopped]


def _left_in(path: Path, kept: Kept, is_over: Callable[[str], bool]) -> Leftovers:
    datasets, claims, set_aside = path / _DATASETS, path / _CLAIMS, path / _SET_ASIDE
    unused = (
        unused_datasets(datasets, limit_bytes=kept.limit_bytes, before=kept.used_since)
        if datasets.is_dir()
        else []
    )
    over = [
        (folder, size_of(folder))
        for folder in _visible(claims)
        if "," in folder.name and is_over(folder.name.partition(",")[0])
    ]
    old = set_aside_before(set_aside, kept.set_aside_since)
    goes = {each for each, _ in (*unused, *over, *old)}
    stays = {each for folder in (datasets, claims, set_aside) for each in _visible(folder)} - goes
    return Leftovers(
        path,
        tuple(unused),
        tuple(over),
        tuple(old),
        is_abandoned=not stays and _is_abandoned(path, kept.used_since),
    )


def _is_abandoned(path: Path, used_since: datetime | None) -> bool:
    """Return whether no agent will have the directory again but one that is as well off with another."""
    if used_since is None or not is_embedded(path.name):
        return False
    # What is not of ours is not ours to remove.
    is_ours = {each.name for each in path.iterdir()} <= {_CLAIMS, _DATASETS, _SET_ASIDE, LOCK}
    return is_ours and (path / LOCK).stat().st_mtime < used_since.timestamp()


def _visible(directory: Path) -> list[Path]:
    """Return what is in a directory and is no refuse."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


@contextmanager
def _all_locked(agents_dir: Path) -> Iterator[list[Path]]:
    with ExitStack() as stack:
        there = sorted(agents_dir.iterdir()) if agents_dir.is_dir() else []
        yield [path for path in there if (path / LOCK).is_file() and stack.enter_context(locked(path))]
