"""What agents of this machine that do not run have left: found, and removed while nobody can start there."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from host_agent.datasets import unused_datasets
from host_agent.directory import locked


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What one agent that does not run has left, and nobody needs."""

    agent_id: str
    datasets: tuple[tuple[Path, int], ...]
    """Files of its cache, with their sizes: those not used for long, or over the limit."""
    claims: tuple[tuple[Path, int], ...]
    """Folders of claims on operations that are over, with what is in them."""

    def remove(self) -> None:
        """Remove it; only within `leftovers`."""
        for path, _ in self.datasets:
            path.unlink(missing_ok=True)
        for folder, _ in self.claims:
            # As when the agent does so: out of the way in one step, so that no half of it is ever read.
            refuse = folder.with_name(f".{folder.name}")
            folder.rename(refuse)
            shutil.rmtree(refuse, ignore_errors=True)


@contextmanager
def leftovers(
    agents_dir: Path, *, limit_bytes: int, before: datetime | None, is_over: Callable[[str], bool]
) -> Iterator[list[Leftovers]]:
    """Look at the directory of each agent that does not run; within the block none of them can be started.

    Agents that run keep house themselves.

    Args:
        agents_dir: the parent of all.
        limit_bytes: of the cache of each.
        before: what of a cache was not used since may go; None: nothing because of its age.
        is_over: whether the backend is known to want nothing more of an operation.

    Raises:
        AgentError: the directories cannot be used.
    """
    found = []
    with _all_locked(agents_dir) as stopped:
        for path in stopped:
            datasets, claims = path / "datasets", path / "claims"
            found.append(
                Leftovers(
                    path.name,
                    tuple(unused_datasets(datasets, limit_bytes=limit_bytes, before=before))
                    if datasets.is_dir()
                    else (),
                    tuple(
                        (folder, _size(folder))
                        for folder in (sorted(claims.iterdir()) if claims.is_dir() else ())
                        if "," in folder.name
                        and not folder.name.startswith(".")
                        and is_over(folder.name.partition(",")[0])
                    ),
                )
            )
        yield found


@contextmanager
def _all_locked(agents_dir: Path) -> Iterator[list[Path]]:
    with ExitStack() as stack:
        there = sorted(agents_dir.iterdir()) if agents_dir.is_dir() else []
        yield [path for path in there if (path / "lock").is_file() and stack.enter_context(locked(path))]


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
