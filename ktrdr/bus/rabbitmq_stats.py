"""What a RabbitMQ bus has gone through."""

from collections import Counter
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class BusStats:
    """Counts since the bus was made."""

    connections_lost: int = 0
    """Of the two connections of a bus, together."""
    consumers_lost: int = 0
    """Consumers that ended without being asked to: with their connection or queue, or for another reason."""
    consumers_vanished: int = 0
    """Those among the lost that nobody had told us of: the watchdog has found them."""
    deliveries_dropped: int = 0
    """Of consumers that do not acknowledge: newer ones came before anybody read them."""
    publishes_confirmed: int = 0
    publishes_returned: int = 0
    """No queue took them."""
    publishes_nacked: int = 0
    """A queue refused them, or they were too large."""
    publishes_refused: int = 0
    """There is no such exchange, or this user may not publish to it."""
    publishes_timed_out: int = 0
    """Not confirmed in time, for whatever cause."""
    publishes_interrupted: int = 0
    """The connection, or the channel, was lost before they were confirmed."""
    rejects_unexplained: int = 0
    """Rejected without the reason in a header: the broker did not take a copy that has one."""


class Tally:
    """Counts up; `stats` is a snapshot."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, what: str) -> None:
        """Count one more of a field of `BusStats`."""
        self._counts[what] += 1

    @property
    def stats(self) -> BusStats:
        """The counts so far."""
        return BusStats(**{each.name: self._counts[each.name] for each in fields(BusStats)})
