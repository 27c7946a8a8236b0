"""What all processes of a simulated world have in common."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ktrdr.bus.memory import MemoryBroker
from ktrdr.events.message import Message
from ktrdr.settings import Settings
from tests.sim.event_loop import SimulatedLoop, nowhere

_REMEMBERED = 200

Said = tuple[Message, str, str]
"""A message, its exchange and its routing key."""


@dataclass(slots=True)
class Site:
    """Time, randomness, settings and broker."""

    loop: SimulatedLoop
    rng: random.Random
    settings: Settings
    broker: MemoryBroker
    said: deque[Said] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """What was published last, to be repeated."""
    on_said: Callable[[Said], None] = lambda said: None
    """Told of all that is published."""
    is_calm: bool = False
    """Whether nothing goes wrong by itself: no message is late, no runner crashes."""

    def new_rng(self) -> random.Random:
        """Return randomness of its own for something, so that it depends on little else."""
        return random.Random(self.rng.getrandbits(64))

    def hear(self, said: Said) -> None:
        """Take note of what was published."""
        self.said.append(said)
        self.on_said(said)

    def repeat(self, said: Said) -> None:
        """Publish once more what was published."""
        message, exchange, routing_key = said
        self.on_said(said)
        nowhere().run(
            lambda: self.broker.publish(message, exchange=exchange, routing_key=routing_key, mandatory=False)
        )
