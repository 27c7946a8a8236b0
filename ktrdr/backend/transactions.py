"""Write transactions for an event loop: actions that wait at the same moment share one."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ktrdr.backend.store import OperationStore
from ktrdr.backend.waiting import Offload
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.logs.binding import context_of_no_operation

T = TypeVar("T")

_MOST = 64
"""Actions in one transaction."""


class Transactions:
    """Runs actions on the store, one transaction at a time, away from the event loop.

    A commit waits for the disk, and threads that want the interpreter hold each other up: so one thread at a
    time writes for everybody who has come meanwhile.

    Args:
        store: what is changed.
        owner: on whose bus the actions may answer.
        clock: for what can wait.
        offload: where a transaction is made.
    """

    def __init__(self, store: OperationStore, owner: str, *, clock: Clock, offload: Offload) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._offload = offload
        self._waiting: deque[tuple[Callable[[Work], Any], asyncio.Future[Any]]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._timer: asyncio.Task[None] | None = None

    async def change(self, action: Callable[[Work], T], *, within_s: float = 0.0) -> T:
        """Return what the action returns, once it is committed; raises, and repeats it, as the store does.

        Args:
            action: reads and writes.
            within_s: so long it may wait for another to share its transaction with.
        """
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((action, outcome))
        if within_s == 0:
            self._begin()
        elif self._timer is None and self._running is None:
            self._timer = asyncio.create_task(self._begin_later(within_s), context=context_of_no_operation())
        return await outcome

    def abandon(self) -> None:
        """Begin no more transactions; who waits for one is cancelled."""
        for task in (self._running, self._timer):
            if task is not None:
                task.cancel()
        self._running = self._timer = None
        while self._waiting:
            self._waiting.popleft()[1].cancel()

    async def _begin_later(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer = None
        self._begin()

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is None and self._waiting:
            self._running = asyncio.create_task(
                self._run(), name=f"transactions-{self._owner}", context=context_of_no_operation()
            )

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
                await self._commit([one for one in taken if not one[1].done()])
        finally:
            self._running = None

    async def _commit(self, batch: list[tuple[Callable[[Work], Any], asyncio.Future[Any]]]) -> None:
        actions = [action for action, _ in batch]
        try:
            results = await self._offload(lambda: self._store.change_all(actions, owner=self._owner))
        except BaseException as error:
            # Nobody may wait for ever.
            results = [error] * len(batch)
        for (_, outcome), result in zip(batch, results, strict=True):
            if outcome.done():
                continue  # nobody waits for it any more
            if isinstance(result, asyncio.CancelledError):
                outcome.cancel()
            elif isinstance(result, BaseException):
                outcome.set_exception(result)
            else:
                outcome.set_result(result)
