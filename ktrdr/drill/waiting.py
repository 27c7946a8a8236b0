"""Waiting for what others do."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from ktrdr.drill.results import BrokenPromiseError

_POLL_S = 0.02

T = TypeVar("T")


async def wait_for(condition: Callable[[], T | None], *, within_s: float, what: str) -> T:
    """Return what the condition returns, as soon as that is something.

    Args:
        condition: is asked again and again, in a thread, as it may read files or a database.
        within_s: the limit.
        what: is waited for, for the message: ``the job to be taken``.

    Raises:
        BrokenPromiseError: it did not happen in time.
    """
    try:
        async with asyncio.timeout(within_s):
            while True:
                if found := await asyncio.to_thread(condition):
                    return found
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise BrokenPromiseError(f"Waited {within_s:g} s for {what}, in vain.") from None
