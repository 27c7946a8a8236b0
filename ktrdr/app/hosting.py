"""One host agent as a process of its own, on a broker that other machines share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from urllib.parse import urlsplit

import structlog

from host_agent.agent import HostAgent, speaker_of
from host_agent.directory import open_directory
from host_agent.naming import agent_name
from host_agent.options import AgentOptions
from host_agent.runner_process import Runner
from host_agent.waiting import first_of
from ktrdr.addresses import is_loopback
from ktrdr.app.connecting import connect_to_broker
from ktrdr.blobs.opening import open_blob_store
from ktrdr.bus.port import Bus
from ktrdr.clock import SystemClock
from ktrdr.ids import RandomIds
from ktrdr.settings import Settings

_log = structlog.get_logger()


@asynccontextmanager
async def hosted(
    settings: Settings,
    *,
    connect: Callable[[Settings, str], Bus] = connect_to_broker,
    new_runner: Callable[[], Runner] | None = None,
) -> AsyncIterator[HostAgent]:
    """Wire one host agent; `HostAgent.start` starts it, leaving the block stops it.

    Args:
        settings: which broker, which blob store, and what the agent serves.
        connect: opens the bus, given the name of its connections.
        new_runner: makes the runner of each slot; by default a process of its own.

    Raises:
        AgentError: another agent of this name runs in this home directory.
        SettingsError: the broker or the blob store cannot be used like this.
    """
    agent_id = agent_name(settings.agents_dir, settings.agent_id)
    # The store is closed last: what still sends a model by then is ended, and the spool has it.
    with (
        closing(open_blob_store(settings)) as blobs,
        open_directory(settings.agents_dir, agent_id) as directory,
    ):
        bus = connect(settings, speaker_of(agent_id))
        _warn_of_a_private_blob_store(settings)
        try:
            agent = HostAgent(
                bus=bus,
                blobs=blobs,
                directory=directory,
                options=AgentOptions.from_settings(settings, lanes=settings.lanes),
                clock=SystemClock(),
                ids=RandomIds(),
                new_runner=new_runner,
            )
            try:
                yield agent
            finally:
                await agent.stop()
        finally:
            await bus.close()


async def run_agent(
    settings: Settings,
    *,
    stop: asyncio.Event,
    at_once: asyncio.Event,
    connect: Callable[[Settings, str], Bus] = connect_to_broker,
    new_runner: Callable[[], Runner] | None = None,
) -> None:
    """Run one host agent until it is told to stop; it does not mind if the broker is away.

    Args:
        settings: see `hosted`.
        stop: when set, no more work is taken; what runs gets ``drain_s`` to end, and is handed over then.
        at_once: when set, what runs is handed over now.
        connect: see `hosted`.
        new_runner: see `hosted`.

    Raises:
        AgentError: as `hosted`.
        SettingsError: as `hosted`.
        ExceptionGroup: a part of the agent is broken.
    """
    async with hosted(settings, connect=connect, new_runner=new_runner) as agent:
        _log.info(
            "starting",
            agent=agent.agent_id,
            lanes=list(settings.lanes),
            slots=settings.slots,
            device=settings.device,
        )
        await agent.start()
        await first_of(agent.wait(), stop.wait())
        _log.info("draining", agent=agent.agent_id, running=agent.running, grace_s=settings.drain_s)
        draining = asyncio.create_task(agent.stop(settings.drain_s))
        await first_of(draining, at_once.wait())
        if at_once.is_set():
            _log.info("handing over", agent=agent.agent_id, running=agent.running)
            await agent.stop()
        _log.info("stopped", agent=agent.agent_id)


def _warn_of_a_private_blob_store(settings: Settings) -> None:
    url = settings.broker_url
    if settings.blob_store is not None or url is None:
        return
    if not is_loopback(urlsplit(url.get_secret_value()).hostname):
        _log.warning(
            "no blob store is set: this works only if the backend shares the directory",
            directory=str(settings.blobs_dir),
            fix="Set KTRDR_BLOB_STORE or --blobs, to the backend's address for example.",
        )
