"""The agent: takes requests from the bus, runs each in a process of its own, and tells how it ended."""

import asyncio
import random
import socket
from collections.abc import Callable

import structlog

from host_agent.attempts import Attempt, Attempts, Stop
from host_agent.control import Control
from host_agent.datasets import DatasetCache
from host_agent.directory import AgentDirectory
from host_agent.endings import Failed
from host_agent.housekeeping import Housekeeper
from host_agent.journal import Announcement, ClaimFolder, Journal
from host_agent.link import Link
from host_agent.log_feed import LogFeed
from host_agent.made import find_model
from host_agent.options import AgentOptions
from host_agent.presence import Presence
from host_agent.runner_child import RunnerOptions
from host_agent.runner_process import Runner, RunnerProcess
from host_agent.shared import Shared
from host_agent.slot import Slot
from host_agent.spool import Spool
from host_agent.waiting import first_of
from ktrdr.blobs.store import BlobStore
from ktrdr.bus.port import Bus
from ktrdr.bus.publisher import EventPublisher
from ktrdr.clock import Clock
from ktrdr.errors import AgentError
from ktrdr.events.causes import FailureCause
from ktrdr.ids import IdFactory

_DETACHED_AFTER = 2 / 3
"""Of a lease."""
_FLUSH_LIMIT_S = 1.0

_log = structlog.get_logger()


def speaker_of(agent_id: str) -> str:
    """Return how an agent is called where people read it: ``host-agent@machine``."""
    return f"host-agent@{agent_id}"


class HostAgent:
    """One agent, embedded in a process of the backend or alone on a machine; used once.

    Args:
        bus: where requests come from and events go; stays the caller's, as ``blobs`` and ``directory`` do.
        blobs: where datasets are fetched from and large models are put.
        directory: the agent's own, and its name.
        options: how it works.
        clock: for durations and records.
        ids: for claims and events.
        new_runner: makes the runner of each slot; by default a process of its own.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        blobs: BlobStore,
        directory: AgentDirectory,
        options: AgentOptions,
        clock: Clock,
        ids: IdFactory,
        new_runner: Callable[[], Runner] | None = None,
    ) -> None:
        self._directory = directory
        self._options = options
        self._clock = clock
        self._ids = ids
        self._journal = Journal(directory)
        self._attempts = Attempts()
        self._draining = asyncio.Event()
        self._out_of_time = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        new_runner = new_runner or self._new_runner_process
        self._runners = [new_runner() for _ in range(options.slots)]
        rng = random.Random(ids.seed())  # noqa: S311  # it only spreads pauses
        publisher = EventPublisher(
            bus,
            # The backend tells agent and machine apart by it.
            sender=f"{self.agent_id}@{socket.gethostname()}",
            ids=ids,
            clock=clock,
            timeout_s=options.publish_timeout_s,
        )
        link = Link(
            publisher,
            clock=clock,
            limit_s=_DETACHED_AFTER * options.lease_s,
            on_detached=self._attempts.mark_detached,
        )
        self._logs = LogFeed(publisher, agent_id=self.agent_id, clock=clock)
        self._spool = Spool(
            link=link,
            logs=self._logs,
            blobs=blobs,
            attempts=self._attempts,
            agent_id=self.agent_id,
            inline_limit_bytes=options.inline_limit_bytes,
            clock=clock,
            ids=ids,
            rng=rng,
        )
        self._control = Control(
            bus,
            agent_id=self.agent_id,
            speaker=self.speaker,
            lanes=options.lanes,
            attempts=self._attempts,
            spool=self._spool,
            clock=clock,
            rng=rng,
        )
        self._presence = Presence(
            link=link,
            attempts=self._attempts,
            agent_id=self.agent_id,
            lanes=options.lanes,
            slots=options.slots,
            listening=self._control.listening,
            interval_s=options.presence_interval_s,
            lease_s=options.lease_s,
            clock=clock,
            rng=rng,
        )
        self._datasets = DatasetCache(
            blobs,
            directory.datasets,
            limit_bytes=options.cache_limit_bytes,
            kept=options.cache_kept,
            clock=clock,
        )
        self._housekeeper = Housekeeper(
            datasets=self._datasets, set_aside=directory.set_aside, kept=options.set_aside_kept, clock=clock
        )
        shared = Shared(
            agent_id=self.agent_id,
            speaker=self.speaker,
            bus=bus,
            link=link,
            journal=self._journal,
            logs=self._logs,
            spool=self._spool,
            attempts=self._attempts,
            datasets=self._datasets,
            presence=self._presence,
            listening=self._control.listening,
            draining=self._draining,
            options=options,
            clock=clock,
            ids=ids,
            rng=rng,
        )
        self._slots = [Slot(number, runner, shared) for number, runner in enumerate(self._runners, start=1)]

    @property
    def agent_id(self) -> str:
        """The agent's name, as in its events."""
        return self._directory.agent_id

    @property
    def speaker(self) -> str:
        """The agent's name where people read it, as on its broker's pages: ``host-agent@machine``."""
        return speaker_of(self.agent_id)

    @property
    def running(self) -> int:
        """How many attempts occupy a slot now."""
        return len(self._attempts.running)

    def warm(self) -> None:
        """Start the runners' interpreters, so that their imports overlap with what the caller does next."""
        for runner in self._runners:
            runner.warm()

    async def start(self) -> None:
        """Begin to work: first tell what a predecessor left, then take requests."""
        if self._main is not None:
            raise AgentError("The agent was started before.", fix="Make a new one.")
        if self._options.prewarm:
            self.warm()
        await asyncio.to_thread(self._datasets.sweep)
        for folder in await asyncio.to_thread(self._journal.load):
            await self._resume(folder)
        self._main = asyncio.create_task(self._work(), name=f"agent {self.agent_id}")

    async def wait(self) -> None:
        """Return when the agent has ended; raises what broke it, which is a defect."""
        if self._main is not None:
            await asyncio.shield(self._main)

    async def stop(self, grace_s: float = 0.0) -> None:
        """Stop: take no more work, give running attempts the grace time, and tell how they ended.

        An attempt that is not done by then fails as ``agent_shutdown``, so that it is tried elsewhere. What
        cannot be told by then, or within the time limit of a publish, is told after the next start. A call
        that is cancelled has begun all this; the next one may give less time.
        """
        if self._main is None:
            await self._close_runners()
            return
        self._draining.set()
        self._presence.set_draining()
        if not self._main.done():
            await first_of(asyncio.shield(self._main), self._clock.sleep(grace_s))
        for attempt in self._attempts.running:
            attempt.request_stop(Stop.SHUTDOWN)
        self._out_of_time.set()
        await self._main

    async def _work(self) -> None:
        structlog.contextvars.bind_contextvars(agent=self.agent_id)  # in the context of this task
        try:
            async with asyncio.TaskGroup() as services:
                running = [
                    services.create_task(service.run(), name=type(service).__name__)
                    for service in (self._spool, self._control, self._presence, self._logs, self._housekeeper)
                ]
                async with asyncio.TaskGroup() as slots:
                    for slot in self._slots:
                        slots.create_task(slot.run(), name="slot")
                await first_of(self._spool.drain(), self._last_try())
                for task in running:
                    task.cancel()
            # The last that was logged is of interest, but not worth any delay.
            await first_of(self._logs.flush(), self._clock.sleep(_FLUSH_LIMIT_S))
            await self._presence.say_stopped()
        finally:
            await self._close_runners()

    async def _last_try(self) -> None:
        await self._out_of_time.wait()
        await self._clock.sleep(self._options.publish_timeout_s)
        self._spool.give_up()

    async def _resume(self, folder: ClaimFolder) -> None:
        """Tell how a claim of a predecessor ended: as it says, with a model, or with the predecessor."""
        announcement = folder.announcement
        if announcement is None:
            ending = await asyncio.to_thread(find_model, folder.bundle) or Failed(
                cause=FailureCause.AGENT_RESTARTED,
                message="The agent ended in the middle of the training, and was started again.",
            )
            announcement = Announcement(event_id=self._ids.event_id(), ending=ending)
            try:
                await asyncio.to_thread(folder.record, announcement)
            except OSError as error:
                _log.warning("ending not recorded", reason=str(error))
        _log.info(
            "left by a predecessor",
            operation_id=folder.claim.operation_id,
            attempt=folder.claim.attempt,
            ending=announcement.ending.kind,
            agent=self.agent_id,
        )
        self._attempts.add(Attempt(folder.claim, is_running=False))
        self._spool.add(folder, announcement)

    async def _close_runners(self) -> None:
        await asyncio.gather(*(runner.close() for runner in self._runners))

    def _new_runner_process(self) -> RunnerProcess:
        options = self._options
        # What is shown here of its lines is one thing; the backend is told of the steps in any case.
        level = "debug" if options.log_level == "debug" else "info"
        return RunnerProcess(
            RunnerOptions(device=options.device, threads=options.threads, log_level=level),
            max_bundle_bytes=options.max_model_bytes,
            cancel_grace_s=options.cancel_grace_s,
            clock=self._clock,
        )
