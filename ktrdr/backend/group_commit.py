"""Write transactions of several threads in one, so that they share one sync of the disk."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")

_MOST = 64
"""Actions in one transaction."""


class _State(Enum):
    WAITING = "waiting"
    DONE = "done"
    """Committed."""
    ALONE = "alone"
    """Something went wrong in the transaction that it was part of: it is to be run by itself."""


class _Entry:
    """An action and what became of it."""

    def __init__(self, action: Callable[[Connection], Any]) -> None:
        self.action = action
        self.state = _State.WAITING
        self.result: Any = None


class GroupCommit:
    """Runs actions in transactions; those that wait at the same moment share one.

    A commit waits for the disk, and only one transaction at a time can write: whoever's turn it is takes
    along what others have brought meanwhile. If anything goes wrong in such a transaction, it is undone, and
    each of its actions is run in one of its own, so that none suffers from another.

    Args:
        write: begins a transaction, and commits it at the end of the block.
        patience_s: how long an action waits for its turn.
        locked: makes the error of who has waited so long.
    """

    def __init__(
        self,
        write: Callable[[], AbstractContextManager[Connection]],
        *,
        patience_s: float,
        locked: Callable[[], Exception],
    ) -> None:
        self._write = write
        self._patience_s = patience_s
        self._locked = locked
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._waiting: deque[_Entry] = deque()

    def run(self, action: Callable[[Connection], T]) -> T:
        """Return what the action returns, once it is committed.

        Delivery: the action is run again if another's failure undid it.
        """
        entry = _Entry(action)
        with self._guard:
            self._waiting.append(entry)
        self._await_turn(entry)
        try:
            while entry.state is _State.WAITING:
                self._run_together()
        finally:
            self._turn.release()
        if entry.state is not _State.DONE:
            with self._write() as connection:
                return action(connection)
        result: T = entry.result
        return result

    def _await_turn(self, entry: _Entry) -> None:
        if self._turn.acquire(timeout=self._patience_s):
            return
        with self._guard:
            if entry in self._waiting:
                self._waiting.remove(entry)
                raise self._locked()
        # It is under way in another thread's transaction.
        self._turn.acquire()

    def _run_together(self) -> None:
        with self._guard:
            batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
        state = _State.ALONE
        try:
            with self._write() as connection:
                for entry in batch:
                    entry.result = entry.action(connection)
            state = _State.DONE
        except Exception:
            if len(batch) == 1:
                raise
        finally:
            for entry in batch:
                entry.state = state
