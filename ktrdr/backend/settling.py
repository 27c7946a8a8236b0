"""Seeing one delivery through: handled and acknowledged, rejected with the reason, or given back."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from ktrdr.backend.outage import Outage
from ktrdr.bus.port import Delivery
from ktrdr.clock import Clock
from ktrdr.errors import (
    BlobError,
    BusError,
    DatabaseUnavailableError,
    KtrdrError,
    ModelError,
    StorageFullError,
)
from ktrdr.events import AgentPresence, ClaimEvent, Envelope, OperationEvent

_log = structlog.get_logger()

Handle = Callable[[Envelope], Awaitable[None]]

_OBSTACLES = (StorageFullError, DatabaseUnavailableError, BlobError, ModelError)
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_NO_DATABASE = "the database is away; others may take what waits for it"
_HOLD_S = 20 * 60.0
"""RabbitMQ ends consumers that hold a message for 30 minutes."""


class RefusedError(Exception):
    """A message is to be dead-lettered, with these words."""


class StandBack(Protocol):
    """Stops the reading of a queue, so that what is given back does not come again at once."""

    async def __call__(self, reason: str, until: Callable[[], Awaitable[None]]) -> bool:
        """Read nothing more before ``until`` has returned; return whether anything can be given back."""


class Settler:
    """What becomes of the deliveries of one queue.

    What is in the way of an event and may pass (a full disk, a database or a blob store that is away) has it
    stay in hand and tried again: a queue counts how often a message is given back. If it lasts, the delivery
    is given back all the same, once, for other backends to take, and nothing more is read until it is over:
    however long that takes counts as one.

    Args:
        queue: its name, for the log.
        handle: does the work.
        on_obstacle: told what is in the way of an event, each time; whether to try again is not its choice.
        pause: waits so many seconds before an event is tried again, or less if that changes its prospects.
        outage: whether the database is there.
        stand_back: has nothing more read.
        clock: for durations.
    """

    def __init__(
        self,
        *,
        queue: Callable[[], str],
        handle: Handle,
        on_obstacle: Callable[[Envelope, KtrdrError], Awaitable[None]],
        pause: Callable[[Envelope, float], Awaitable[None]],
        outage: Outage,
        stand_back: StandBack,
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._handle = handle
        self._on_obstacle = on_obstacle
        self._pause = pause
        self._outage = outage
        self._stand_back = stand_back
        self._clock = clock

    async def settle(self, delivery: Delivery, envelope: Envelope) -> None:
        """Handle an event, however long that takes, and settle its delivery."""
        structlog.contextvars.bind_contextvars(**_about(envelope))  # in the context of this task
        give_up_at = self._clock.monotonic() + _HOLD_S
        pause_s, told = _FIRST_PAUSE_S, ""
        while True:
            try:
                await self._handle(envelope)
            except _OBSTACLES as error:
                # Once for each reason: it may last for hours.
                log = _log.debug if str(error) == told else _log.warning
                log("event waits", type=envelope.event.type_name(), reason=str(error))
                told = str(error)
                await self._on_obstacle(envelope, error)
                if await self._is_given_up(delivery, envelope, error, give_up_at):
                    await settled(delivery.nack())
                    return
                await self._pause(envelope, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except RefusedError as error:
                await self.reject(delivery, str(error))
                return
            except Exception as error:
                _log.exception("event could not be handled", type=envelope.event.type_name())
                await settled(delivery.reject(f"defect: {type(error).__name__}: {error}"))
                return
            else:
                self._outage.worked()
                await settled(delivery.ack())
                return

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """Have a message dead-lettered, with the reason."""
        message = delivery.message
        _log.warning(
            "message rejected",
            queue=self._queue(),
            type=message.type,
            sender=message.app_id,
            reason=reason,
        )
        await settled(delivery.reject(reason))

    async def _is_given_up(
        self, delivery: Delivery, envelope: Envelope, error: KtrdrError, give_up_at: float
    ) -> bool:
        is_late = self._clock.monotonic() >= give_up_at
        if isinstance(error, DatabaseUnavailableError):
            self._outage.failed()
            if self._outage.lasts and await self._stand_back(_NO_DATABASE, self._outage.wait_for_end):
                # What has come back before is held for longer: the queue counts.
                return is_late or not delivery.redelivered
        elif is_late:
            await self._stand_back(str(error), lambda: self._wait_until_handled(envelope))
        return is_late

    async def _wait_until_handled(self, envelope: Envelope) -> None:
        """Return once nothing is in the way of an event that was given back.

        What it needs, in space and elsewhere, shows by doing it. It comes again, and is known then.
        """
        pause_s = _FIRST_PAUSE_S
        with structlog.contextvars.bound_contextvars(**_about(envelope)):
            while True:
                await self._pause(envelope, pause_s)
                try:
                    await self._handle(envelope)
                except _OBSTACLES:
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                except Exception as error:
                    _log.debug("event that waited is rejected when it comes again", reason=str(error))
                    return
                else:
                    return


async def settled(settling: Awaitable[None]) -> None:
    """Wait for a delivery to be settled; a connection that is lost meanwhile is no error."""
    try:
        await settling
    except BusError as error:
        # The connection is gone, and the delivery with it: it comes again, and the inbox knows it.
        _log.warning("delivery not settled, will come again", error=str(error))


def _about(envelope: Envelope) -> dict[str, object]:
    """Return what each line is about that is logged while an event is handled."""
    event = envelope.event
    about: dict[str, object] = {}
    if isinstance(event, OperationEvent):
        about |= {"operation_id": event.operation_id, "attempt": event.attempt}
    if isinstance(event, ClaimEvent | AgentPresence):
        about["agent"] = event.agent_id
    return about
