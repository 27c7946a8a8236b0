"""An event loop whose time is its own and whose processes can be killed between any two of its steps."""

import asyncio
import contextlib
import random
import selectors
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from ktrdr.errors import KtrdrError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LONGEST_WAIT_S = 0.02
"""Of what is called in a thread, before it begins and before its result is seen."""


class StuckError(KtrdrError):
    """Nobody waits for any time: nothing will ever happen again."""


class KilledError(KtrdrError):
    """The process that was asked for something is dead."""


class Process:
    """What can be killed as by ``kill -9``: from then on no step of it runs, not even a ``finally``.

    Args:
        loop: where its tasks are.
        name: for people.
    """

    def __init__(self, loop: "SimulatedLoop", name: str) -> None:
        self.name = name
        self.is_alive = True
        self.on_death: list[Callable[[], None]] = []
        """What the system does then: it closes files and connections."""
        self._loop = loop
        self._context = copy_context()
        self._context.run(_PROCESS.set, self)
        self._steps_left: int | None = None
        self._dead = loop.create_future()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in it; return what comes of it.

        Raises:
            KilledError: it died meanwhile, or before.
        """
        if not self.is_alive:
            work.close()
            raise KilledError(self.name)
        task = self._loop.create_task(work, context=self._context.copy())
        await asyncio.wait((task, self._dead), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise KilledError(self.name)
        return task.result()

    def kill(self, *, after_steps: int = 0) -> None:
        """End it now, or after so many steps of its tasks."""
        if after_steps:
            self._steps_left = after_steps
        elif self.is_alive:
            self._die()

    def pardon(self) -> None:
        """Have it live on, if it was to be killed later."""
        self._steps_left = None

    def step(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """Do what the loop has for it, if it lives."""
        if self._steps_left is not None and self.is_alive:
            self._steps_left -= 1
            if self._steps_left < 0:
                self._die()
        if self.is_alive:
            callback(*args)

    def _die(self) -> None:
        self.is_alive = False
        self._loop.bury(asyncio.all_tasks(self._loop))
        for close in self.on_death:
            nowhere().run(close)
        self._dead.set_result(None)


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def nowhere() -> Context:
    """Return a context of no process: what happens in it, goes on whoever dies."""
    context = copy_context()
    context.run(_PROCESS.set, None)
    return context


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Time passes when nothing is left to do, at once, and as far as to the next thing.

    What is called in a thread is called here, a random time later, and its result seen another time later: so
    other things happen in between, and it may never be seen.

    Args:
        rng: decides these times.
    """

    def __init__(self, rng: random.Random) -> None:
        self._selector_of_time = _TimeSelector()
        super().__init__(self._selector_of_time)
        self._rng = rng
        self._buried: list[object] = []

    def bury(self, tasks: Iterable[object]) -> None:
        """Keep what is never to run again: a task that nobody knows is closed, which runs its `finally`."""
        self._buried += tasks

    def time(self) -> float:
        """Return the seconds since the beginning of this world."""
        return self._selector_of_time.now

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        # A context in which nothing is set counts as false.
        context = copy_context() if context is None else context
        if (process := context.get(_PROCESS)) is not None:
            return super().call_soon(process.step, callback, *args, context=context)
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        # A context in which nothing is set counts as false.
        context = copy_context() if context is None else context
        if (process := context.get(_PROCESS)) is not None:
            return super().call_at(when, process.step, callback, *args, context=context)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self, executor: object, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        result: asyncio.Future[T] = self.create_future()

        def call() -> None:
            try:
                value = func(*args)
            except Exception as error:
                self.call_later(self._wait_s(), _settle, result.set_exception, result, error)
            else:
                self.call_later(self._wait_s(), _settle, result.set_result, result, value)

        self.call_later(self._wait_s(), call)
        return result

    def _wait_s(self) -> float:
        # Mostly next to nothing, and now and then long.
        return _LONGEST_WAIT_S * self._rng.random() ** 4


def _settle(how: Callable[[Any], None], result: asyncio.Future[Any], value: object) -> None:
    if not result.done():
        how(value)


class _TimeSelector(selectors.SelectSelector):
    """Rather than to wait, it says that the time has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StuckError("Nothing will ever happen again.")
        self.now += max(0.0, timeout)
        return []


async def settled_within(seconds: float, condition: Callable[[], bool], *, every_s: float = 1.0) -> bool:
    """Return whether a condition comes true within so many seconds."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(every_s)
    return True


def run(rng: random.Random, main: Callable[[SimulatedLoop], Any], on_defect: Callable[[str], None]) -> Any:
    """Run a world to its end; what no task of it has caught, is told as a defect."""
    loop = SimulatedLoop(rng)

    def tell(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        on_defect(f"{context['message']}: {error!r}")

    loop.set_exception_handler(tell)
    asyncio.set_event_loop(loop)
    with contextlib.suppress(asyncio.CancelledError):
        return loop.run_until_complete(main(loop))
    raise AssertionError("the world was cancelled")
