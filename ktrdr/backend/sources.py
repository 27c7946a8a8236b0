"""The queues that a backend reads: those that all backends share, and those that it has for itself."""

from dataclasses import dataclass, field

from ktrdr.bus.topology import (
    BACKEND_EVENTS,
    BACKEND_RETURNED,
    Topology,
    logs_queue,
    logs_topology,
    presence_queue,
    presence_topology,
    progress_queue,
    progress_topology,
)
from ktrdr.ids import IdFactory


@dataclass(frozen=True, slots=True)
class Source:
    """A queue to read, and how."""

    queue: str
    topology: Topology = field(default_factory=Topology)
    """What to declare for it, after what is shared."""
    acknowledge: bool = True
    """False if it holds only what may be lost."""


class Sources:
    """Where one backend hears what.

    What is durable waits in shared queues for whichever backend takes it. What is not goes to each backend
    that listens, in queues that end with its connection; each of these has a new name whenever it is asked
    for, since the broker may take a connection for alive long after it was lost.

    Args:
        host: the machine's name, for people who look at the queues.
        ids: tell the queues of one machine apart.
    """

    def __init__(self, host: str, ids: IdFactory) -> None:
        self._host = host
        self._ids = ids

    def events(self) -> Source:
        """Durable events of agents."""
        return Source(BACKEND_EVENTS)

    def returned(self) -> Source:
        """Requests that no agent took."""
        return Source(BACKEND_RETURNED)

    def progress(self) -> Source:
        """How far runs are."""
        name = self._new_name()
        return Source(progress_queue(name), progress_topology(name), acknowledge=False)

    def presence(self) -> Source:
        """Which agents are there, and what they hold."""
        name = self._new_name()
        return Source(presence_queue(name), presence_topology(name), acknowledge=False)

    def logs(self) -> Source:
        """What agents log about runs."""
        name = self._new_name()
        return Source(logs_queue(name), logs_topology(name), acknowledge=False)

    def _new_name(self) -> str:
        return f"{self._host}.{self._ids.token()}"
