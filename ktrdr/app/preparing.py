"""Preparing trainings for a backend that is asked for many: the same bars are snapshotted once a minute."""

import gc
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from ktrdr.app.embedded import prepare
from ktrdr.backend.preparation import PreparedTraining, strategy_text
from ktrdr.backend.wishes import TrainingWish, digest_of
from ktrdr.blobs.store import BlobStore
from ktrdr.clock import Clock
from ktrdr.settings import Settings

_KEPT = 64
_KEPT_S = 60.0
"""Far less than the hour for which every store keeps what was put into it and nothing names yet."""
_LONGEST_TEXT = 64 * 1024
"""Characters; with the above, no more than some megabytes are kept."""
_SIDE_BY_SIDE = 4
"""Each thread that has ever read bars keeps some 8 MiB for the next: pandas' and Arrow's, of which none is
in use. A server's pools have dozens of threads, and would come to use each of them."""
_SETTLED_S = 2.0
"""A file that changed less long ago may change again without its time telling: clocks of files are coarse."""


class Preparing:
    """Does what `prepare` does, and remembers for a minute what came of it.

    What it remembers is good as long as strategy text and wishes are the same, the files of bars have not
    been touched, and the store still has the snapshots.

    Args:
        settings: where strategies and bars are.
        blobs: where the snapshots go.
        clock: for the age of what is remembered.
    """

    def __init__(self, settings: Settings, blobs: BlobStore, clock: Clock) -> None:
        self._settings = settings
        self._blobs = blobs
        self._clock = clock
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._remembering = threading.Lock()
        self._threads = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="preparing")

    def prepare(self, wish: TrainingWish) -> PreparedTraining:
        """Check the strategy and have its bars in the store, as `prepare_training` does. Blocks."""
        text = strategy_text(wish.strategy, self._settings.strategies_dir)
        wish = replace(wish, strategy=text)
        if len(text.yaml) > _LONGEST_TEXT:
            return self._prepare(wish)
        remembered = self._of(digest_of([text.source, text.yaml, wish.start, wish.end, wish.overrides]))
        # Who wants the same meanwhile waits for it, rather than do it too.
        with remembered.working:
            if (prepared := self._still_good(remembered)) is not None:
                return prepared
            began, began_at = self._clock.monotonic(), self._clock.now().timestamp()
            before = self._traces(remembered.prepared)
            prepared = self._prepare(wish)
            _settle()
            after = self._traces(prepared)
            # Which files to look at is known from the second time on: only then is it known that none of them
            # has changed while they were read.
            is_settled = all(trace.changed_at < began_at - _SETTLED_S for trace in after)
            remembered.traces = after if before == after and is_settled else ()
            remembered.prepared = prepared
            remembered.until = began + _KEPT_S
            return prepared

    def _prepare(self, wish: TrainingWish) -> PreparedTraining:
        """Do it in one of the few threads that do nothing else, and wait for that."""
        preparing = partial(prepare, wish, self._settings, self._blobs)
        return self._threads.submit(copy_context().run, preparing).result()

    def _of(self, key: str) -> "_Remembered":
        with self._remembering:
            remembered = self._remembered.setdefault(key, _Remembered())
            self._remembered.move_to_end(key)
            if len(self._remembered) > _KEPT:
                self._remembered.popitem(last=False)
        return remembered

    def _still_good(self, remembered: "_Remembered") -> PreparedTraining | None:
        prepared = remembered.prepared
        if prepared is None or not remembered.traces or self._clock.monotonic() >= remembered.until:
            return None
        if self._traces(prepared) != remembered.traces:
            return None
        is_there = all(self._blobs.exists(dataset.blob.sha256) for dataset in prepared.datasets)
        return prepared if is_there else None

    def _traces(self, prepared: PreparedTraining | None) -> tuple["_Trace", ...]:
        """Return what tells whether the files are the same; nothing if they cannot be looked at."""
        if prepared is None:
            return ()
        try:
            # The directory too: a file that is new there may be the better one.
            return tuple(_trace(path) for path in (self._settings.data_dir, *prepared.files))
        except OSError:
            return ()


@dataclass(slots=True)
class _Remembered:
    working: threading.Lock = field(default_factory=threading.Lock)
    prepared: PreparedTraining | None = None
    traces: tuple["_Trace", ...] = ()
    """Of the files that it was made of; none: it is not to be used again."""
    until: float = 0.0
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class _Trace:
    """What changes with a file."""

    path: Path
    inode: int
    size_bytes: int
    changed_at: float
    """Seconds since 1970."""


def _trace(path: Path) -> _Trace:
    found = path.stat()
    return _Trace(path, found.st_ino, found.st_size, max(found.st_mtime, found.st_ctime))


@cache
def _settle() -> None:
    """Have the garbage collector pass over everything that there is once the first training is prepared.

    These are some 170,000 objects, pandas among them, that stay for the life of the process. Each look at all
    of them stops every thread for over 100 ms; in a profile of trainings being accepted, that seems a fifth.
    """
    gc.collect()
    gc.freeze()
