"""Ctrl-C and SIGTERM as a wish to stop, not as an exception anywhere."""

import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

_FORCED_EXIT = 130


@contextmanager
def until_begun() -> Iterator[None]:
    """Have Ctrl-C end the process at once, until `run_until_interrupted` or `run_service` begins.

    For a command that imports what it needs, and has begun nothing: an exception that is raised in the middle
    of an import may be swallowed there, by what asks C for an attribute for example, and the command goes on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"Interrupted.\n")
    os._exit(_FORCED_EXIT)


def run_until_interrupted(
    work: Callable[["asyncio.Event"], Coroutine[None, None, T]], *, on_interrupt: Callable[[], None]
) -> T:
    """Run the coroutine that ``work`` returns, which ends in its own time once the event is set.

    The first interrupt sets the event. A third one ends the process at once: its runner dies with it, and the
    operation is picked up or cancelled by a later command.
    """

    import asyncio

    async def main() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        interrupts = 0

        def interrupt() -> None:
            nonlocal interrupts
            interrupts += 1
            if interrupts == 1:
                stop.set()
                on_interrupt()
            elif interrupts >= 3:
                os._exit(_FORCED_EXIT)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt)
        return await work(stop)

    return asyncio.run(main())


def run_service(work: Callable[["asyncio.Event", "asyncio.Event"], Coroutine[None, None, None]]) -> None:
    """Run the coroutine that ``work`` returns until it ends, given two events.

    The first interrupt sets the first: end in your own time. The second sets the second: end at once. A third
    one ends the process, and what it has not settled is settled by the next one.
    """

    import asyncio

    async def main() -> None:
        soon, at_once = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            if not soon.is_set():
                soon.set()
            elif not at_once.is_set():
                at_once.set()
            else:
                os._exit(_FORCED_EXIT)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt)
        await work(soon, at_once)

    asyncio.run(main())
