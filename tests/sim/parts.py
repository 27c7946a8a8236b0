"""The processes of a simulated installation: each may be started, stopped and killed again and again."""

import asyncio
import os
from functools import partial
from typing import Any

from host_agent.agent import HostAgent
from host_agent.directory import AgentDirectory, claim_directory, open_directory
from host_agent.options import AgentOptions
from ktrdr.app.backends import Backends
from ktrdr.backend.falling_back import Refuge
from ktrdr.backend.instances import BROKER_OWNER, InstanceLock
from ktrdr.backend.service import Backend
from ktrdr.backend.store import OperationStore
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.port import Bus
from tests.sim.event_loop import KilledError, Process
from tests.sim.network import Line
from tests.sim.runner import INLINE_LIMIT_BYTES, SimulatedRunner
from tests.sim.site import Site
from tests.sim.times import SimulatedClock, SimulatedIds

_FEED_POLL_S = 0.25
"""Hours pass here, and asking is all that happens in most of their moments."""


class Part:
    """A process, or the machine on which there is none at the moment."""

    def __init__(self, site: Site, name: str) -> None:
        self.name = name
        self.clock = SimulatedClock(site.loop)
        self._site = site
        self._process: Process | None = None
        self._line: Line | None = None

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.is_alive

    @property
    def process(self) -> Process:
        """The last that was started."""
        assert self._process is not None
        return self._process

    @property
    def line(self) -> Line:
        """Its connection."""
        assert self._line is not None
        return self._line

    async def start(self) -> None:
        """Start it anew; returns when it works, or is dead."""
        assert not self.is_up
        site = self._site
        self._process = process = Process(site.loop, self.name)
        self._line = line = Line(site)
        process.on_death.append(line.cut)
        try:
            await process.call(self._begin(process, line))
        except KilledError:
            return

    async def stop(self) -> None:
        """Have it end in an orderly way; returns when it is gone."""
        process = self.process
        try:
            await process.call(self._end())
        except KilledError:
            return
        process.kill()

    def kill(self, *, after_steps: int = 0) -> None:
        """Kill it now, or after so many steps."""
        self.process.kill(after_steps=after_steps)

    def heal(self) -> None:
        """End all its troubles, but those that are over with it."""
        self.clock.wrong_by_s = 0.0
        if self.is_up:
            self.process.pardon()
            self.line.mend()

    async def _begin(self, process: Process, line: Line) -> None:
        raise NotImplementedError

    async def _end(self) -> None:
        raise NotImplementedError


class ServePart(Part):
    """``ktrdr serve``: the backend of host agents, and one of an agent in the same process."""

    store: OperationStore
    local: Backend
    hosts: Backend
    backends: Backends

    async def _begin(self, process: Process, line: Line) -> None:
        site = self._site
        ids = SimulatedIds(site.new_rng())
        self.store = OperationStore.open(site.settings, clock=self.clock, ids=ids)
        process.on_death.append(self.store.close)
        broker = MemoryBroker(self.clock)
        directory = claim_directory(site.settings.agents_dir, prefix="embedded")
        process.on_death.append(directory.close)
        self._agent = _agent(site, self.clock, MemoryBus(broker), directory, slots=1)
        self.local = self._backend(process, ids, MemoryBus(broker))
        refuge = Refuge(self.local.instance, site.settings.max_attempts)
        self.hosts = self._backend(process, ids, line, owner=BROKER_OWNER, refuge=refuge)
        self.backends = Backends(self.store, self.local, self.hosts)
        await self.hosts.start()
        await self.local.start()
        await self._agent.start()

    async def _end(self) -> None:
        await self.hosts.stop()
        await self._agent.stop()
        await self.local.stop()

    def _backend(self, process: Process, ids: SimulatedIds, bus: Bus, **options: Any) -> Backend:
        settings = self._site.settings
        backend = Backend(
            settings,
            bus=bus,
            store=self.store,
            blobs=DirectoryBlobStore(settings.blobs_dir),
            clock=self.clock,
            ids=ids,
            **options,
        )
        process.on_death.append(partial(_free, backend))
        backend._feed._poll_s = _FEED_POLL_S
        return backend


class AgentPart(Part):
    """A host agent.

    Args:
        site: where.
        name: its id.
        slots: trainings at a time.
    """

    def __init__(self, site: Site, name: str, *, slots: int) -> None:
        super().__init__(site, name)
        self._slots = slots

    async def _begin(self, process: Process, line: Line) -> None:
        directory = open_directory(self._site.settings.agents_dir, self.name)
        process.on_death.append(directory.close)
        self._agent = _agent(self._site, self.clock, line, directory, slots=self._slots)
        await self._agent.start()

    async def _end(self) -> None:
        await self._agent.stop(self._site.settings.drain_s)


def start_all(parts: list[Part]) -> "asyncio.Future[list[None]]":
    """Start those that are not up, side by side."""
    return asyncio.gather(*(part.start() for part in parts if not part.is_up))


def _agent(
    site: Site, clock: SimulatedClock, bus: Bus, directory: AgentDirectory, *, slots: int
) -> HostAgent:
    settings = site.settings
    return HostAgent(
        bus=bus,
        blobs=DirectoryBlobStore(settings.blobs_dir),
        directory=directory,
        options=AgentOptions(
            slots=slots,
            lease_s=settings.lease_s,
            presence_interval_s=settings.presence_interval_s,
            publish_timeout_s=settings.publish_timeout_s,
            inline_limit_bytes=INLINE_LIMIT_BYTES,
        ),
        clock=clock,
        ids=SimulatedIds(site.new_rng()),
        new_runner=lambda: SimulatedRunner(site.new_rng(), is_calm=lambda: site.is_calm),
    )


def _free(backend: Backend) -> None:
    """Free the lock by which others know that it lives, as the system does; the file stays."""
    lock = backend._registration._lock
    if isinstance(lock, InstanceLock) and lock._descriptor is not None:
        os.close(lock._descriptor)
        lock._descriptor = None
