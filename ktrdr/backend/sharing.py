"""What blocks and is asked for by many at once, done once for all of them."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ktrdr.backend.waiting import Offload
from ktrdr.logs.binding import context_of_no_operation

T = TypeVar("T")


class Shared(Generic[T]):
    """Calls a blocking function once for everybody who asks the same while it is called for others.

    Nobody gets what was begun before they asked. What is asked under different keys is done side by side.

    Args:
        offload: where the functions are called.
    """

    def __init__(self, offload: Offload) -> None:
        self._offload = offload
        self._waiting: dict[Hashable, tuple[Callable[[], T], asyncio.Future[T]]] = {}
        self._calling: dict[Hashable, asyncio.Task[None]] = {}

    async def of(self, key: Hashable, function: Callable[[], T]) -> T:
        """Return what the function returns, or raise what it raises.

        Args:
            key: equal for what is the same, whoever asks.
            function: called in their place too who ask the same.
        """
        if key not in self._waiting:
            self._waiting[key] = function, asyncio.get_running_loop().create_future()
        if key not in self._calling:
            self._calling[key] = asyncio.create_task(self._call(key), context=context_of_no_operation())
        return await asyncio.shield(self._waiting[key][1])  # others may wait for it too

    async def _call(self, key: Hashable) -> None:
        try:
            while key in self._waiting:
                function, outcome = self._waiting.pop(key)
                try:
                    outcome.set_result(await self._offload(function))
                except Exception as error:
                    outcome.set_exception(error)
                    outcome.exception()  # nobody may be left to be told
                except BaseException:
                    outcome.cancel()  # nobody may wait for ever
                    raise
        finally:
            del self._calling[key]
