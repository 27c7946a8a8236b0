"""The backends of one process: that of its own agent, and that of the host agents."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ktrdr.backend.audit import Witness
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.service import Backend
from ktrdr.backend.store import OperationStore


class Backends:
    """The backends of one process, as one: each operation is a matter for the one that carries it.

    Args:
        store: where operations are recorded.
        local: that of the agent in this process.
        hosts: that of the host agents; None if no broker is named.
    """

    def __init__(self, store: OperationStore, local: Backend, hosts: Backend | None) -> None:
        self._store = store
        self._local = local
        self._hosts = hosts

    async def cancel(
        self, operation_id: str, reason: str, *, witness: Witness | None = None
    ) -> OperationRecord:
        """Have an operation stopped; see `Backend.cancel`."""
        return await (await self._of(operation_id)).cancel(operation_id, reason, witness=witness)

    async def watch(self, operation_id: str) -> AsyncGenerator[OperationRecord, None]:
        """Yield an operation as it changes; see `Backend.watch`."""
        backend = await self._of(operation_id)
        # Closed with this one: who watches no more must not be remembered until a garbage collection.
        async with aclosing(backend.watch(operation_id)) as records:
            async for record in records:
                yield record

    @property
    def held_up_by(self) -> str | None:
        """What is in the way of results, for so long that they are left where they are; None: nothing."""
        hosts = None if self._hosts is None else self._hosts.held_up_by
        return hosts or self._local.held_up_by

    async def wait_until_ended(self) -> None:
        """Return when one of them has been stopped; raises what brought it down."""
        waits = [
            asyncio.create_task(backend.wait_until_ended())
            for backend in (self._local, self._hosts)
            if backend is not None
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _of(self, operation_id: str) -> Backend:
        if self._hosts is None:
            return self._local
        operation = await asyncio.to_thread(self._store.get, operation_id)
        return self._local if operation.owner == self._local.instance else self._hosts
