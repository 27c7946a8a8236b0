"""What the parts of an agent share."""

import asyncio
import random
from dataclasses import dataclass

from host_agent.attempts import Attempts
from host_agent.datasets import DatasetCache
from host_agent.journal import Journal
from host_agent.link import Link
from host_agent.log_feed import LogFeed
from host_agent.options import AgentOptions
from host_agent.presence import Presence
from host_agent.spool import Spool
from ktrdr.bus.port import Bus
from ktrdr.clock import Clock
from ktrdr.ids import IdFactory


@dataclass(frozen=True, slots=True)
class Shared:
    """What the slots of an agent have in common."""

    agent_id: str
    speaker: str
    """The agent's name for people: ``host-agent@machine``."""
    bus: Bus
    link: Link
    journal: Journal
    logs: LogFeed
    spool: Spool
    attempts: Attempts
    datasets: DatasetCache
    presence: Presence
    listening: asyncio.Event
    """Set while orders reach the agent: nothing is begun that could not be stopped."""
    draining: asyncio.Event
    """Set when no new work is to be taken."""
    options: AgentOptions
    clock: Clock
    ids: IdFactory
    rng: random.Random
