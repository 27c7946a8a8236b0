"""Write transactions for an event loop: actions that wait at the same moment share one."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ktrdr.backend.store import OperationStore
from ktrdr.backend.waiting import Offload
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError
from ktrdr.logs.binding import context_of_no_operation

I = TypeVar("I")  # noqa: E741  (an item)
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
        self._waiting: deque[_Change] = deque()
        self._running: asyncio.Task[None] | None = None
        self._timer: asyncio.Task[None] | None = None

    async def change(self, action: Callable[[Work], T], *, within_s: float = 0.0) -> T:
        """Return what the action returns, once it is committed; raises, and repeats it, as the store does.

        Args:
            action: reads and writes.
            within_s: so long it may wait for another to share its transaction with.
        """
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._enter(_Change(action, outcome), within_s)
        return await outcome

    async def change_together(
        self, action: Callable[[Work, Sequence[I]], Sequence[T]], item: I, *, within_s: float = 0.0
    ) -> T:
        """Return what the action returns for an item; otherwise as `change`.

        It is called once for all items that share a transaction, before whatever else does; and for each
        alone, if it fails with several.

        Args:
            action: reads and writes for several items, and returns of each what becomes of it, in order.
            item: one of them.
            within_s: as for `change`.
        """
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._enter(_Change(action, outcome, (item,)), within_s)
        return await outcome

    def _enter(self, change: "_Change", within_s: float) -> None:
        self._waiting.append(change)
        if within_s == 0:
            self._begin()
        elif self._timer is None and self._running is None:
            self._timer = asyncio.create_task(self._begin_later(within_s), context=context_of_no_operation())

    def abandon(self) -> None:
        """Begin no more transactions; who waits for one is cancelled."""
        for task in (self._running, self._timer):
            if task is not None:
                task.cancel()
        self._running = self._timer = None
        while self._waiting:
            self._waiting.popleft().outcome.cancel()

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
                await self._commit(_grouped([change for change in taken if not change.outcome.done()]))
        finally:
            self._running = None

    async def _commit(self, groups: list[list["_Change"]]) -> None:
        actions = [_action_of(group) for group in groups]
        try:
            results = await self._offload(lambda: self._store.change_all(actions, owner=self._owner))
        except BaseException as error:
            # Nobody may wait for ever.
            results = [error] * len(groups)
        alone: list[list[_Change]] = []
        for group, result in zip(groups, results, strict=True):
            if len(group) > 1 and _may_be_of_one(result):
                alone += [[change] for change in group]
            else:
                _tell(group, result)
        if alone:
            await self._commit(alone)


@dataclass(frozen=True, slots=True)
class _Change:
    """What somebody waits for."""

    action: Callable[..., Any]
    outcome: asyncio.Future[Any]
    item: tuple[Any, ...] = ()
    """What the action is for; none: it is for nothing else than this."""


def _grouped(changes: list[_Change]) -> list[list[_Change]]:
    """Return what is done by one call together, and first: it reads, before which additions are written."""
    together: dict[Callable[..., Any], list[_Change]] = {}
    for change in changes:
        if change.item:
            together.setdefault(change.action, []).append(change)
    return [*together.values(), *([change] for change in changes if not change.item)]


def _action_of(group: list[_Change]) -> Callable[[Work], Any]:
    action, items = group[0].action, [item for change in group for item in change.item]
    return (lambda work: action(work, items)) if items else action


def _may_be_of_one(result: object) -> bool:
    """Return whether what has gone wrong may be the fault of one of several."""
    is_of_all = isinstance(result, DatabaseUnavailableError | StorageFullError)
    return isinstance(result, Exception) and not is_of_all


def _tell(group: list[_Change], result: Any) -> None:
    has_failed = isinstance(result, BaseException)
    each_result = result if group[0].item and not has_failed else [result] * len(group)
    for change, one in zip(group, each_result, strict=True):
        if change.outcome.done():
            continue  # nobody waits for it any more
        if isinstance(one, asyncio.CancelledError):
            change.outcome.cancel()
        elif isinstance(one, BaseException):
            change.outcome.set_exception(one)
        else:
            change.outcome.set_result(one)
