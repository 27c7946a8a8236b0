"""What a drill has to work with, and what a drill is."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from ktrdr.bus.management import ManagementView
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.clock import Clock
from ktrdr.drill.pace import Pace
from ktrdr.drill.scratch_broker import ScratchBroker
from ktrdr.drill.site import Site
from ktrdr.events.message import Message
from ktrdr.ids import IdFactory

_PUBLISH_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Scene:
    """The broker, the scratch prefix on it, and who is there."""

    broker: ScratchBroker
    bus: RabbitMQBus
    """With the drill's own name."""
    new_bus: Callable[[str], RabbitMQBus]
    """Makes another one, of the same user, under the same prefix; who makes it closes it."""
    management: ManagementView | None
    """What the management API says; None if nobody has named it."""
    prefix_in_use: str
    """Of the user's own installation: its names are looked at, and never touched."""
    inline_limit_bytes: int
    """Models up to this size are to travel in messages, by the user's settings."""
    pace: Pace
    clock: Clock
    ids: IdFactory
    site: Callable[[], Awaitable[Site]]
    """Returns the installation once its agents are ready; raises `UncheckableError` if they do not come."""

    def message(self, body: bytes = b"drill", *, type_name: str = "drill") -> Message:
        """Return a message that says nothing."""
        return Message(
            body=body,
            message_id=self.ids.event_id(),
            type=type_name,
            app_id="drill",
        )

    async def publish(
        self, message: Message, *, exchange: str = "", routing_key: str, mandatory: bool = True
    ) -> None:
        """Publish on the drill's own bus; raises as `Bus.publish` does."""
        await self.bus.publish(
            message,
            exchange=exchange,
            routing_key=routing_key,
            mandatory=mandatory,
            timeout_s=_PUBLISH_WITHIN_S,
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """A promise that was seen to hold."""

    detail: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drill:
    """One promise, and how it is tried."""

    name: str
    """To be typed: ``unroutable``."""
    title: str
    """What happens in it, in a few words."""
    promise: str
    """What holds if it passes."""
    run: Callable[[Scene], Awaitable[Kept]]
    """Raises `BrokenPromiseError` or `UncheckableError`; a `BusError` counts as a broken promise."""
    limit_s: float
    """It takes no longer than this, whatever the broker does; without the time that agents need to start."""
    needs_site: bool = False
    is_long: bool = False
    only_measures: bool = False
