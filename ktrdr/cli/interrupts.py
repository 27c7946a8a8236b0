"""Ctrl-C and SIGTERM as a wish to stop, not as an exception anywhere."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import TypeVar

T = TypeVar("T")

_FORCED_EXIT = 130


def run_until_interrupted(
    work: Callable[[asyncio.Event], Coroutine[None, None, T]], *, on_interrupt: Callable[[], None]
) -> T:
    """Run the coroutine that ``work`` returns, which ends in its own time once the event is set.

    The first interrupt sets the event. A third one ends the process at once: its runner dies with it, and the
    operation is picked up or cancelled by a later command.
    """

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


def run_service(work: Callable[[asyncio.Event, asyncio.Event], Coroutine[None, None, None]]) -> None:
    """Run the coroutine that ``work`` returns until it ends, given two events.

    The first interrupt sets the first: end in your own time. The second sets the second: end at once. A third
    one ends the process, and what it has not settled is settled by the next one.
    """

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
