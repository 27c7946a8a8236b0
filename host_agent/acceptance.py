"""Telling the backend that a claim has taken a request, and what to think when nothing comes back."""

import random
from enum import Enum

import structlog

from host_agent.link import Link
from host_agent.waiting import Backoff
from ktrdr.clock import Clock
from ktrdr.errors import AccessRefusedError, BusError, PublishNackedError, UnroutableError
from ktrdr.events.training import TrainingAccepted

_TRIES = 3

_log = structlog.get_logger()


class Told(Enum):
    """What is known of an acceptance that was sent."""

    YES = "yes"
    """The broker has it."""
    NO = "no"
    """The broker refuses it: nobody will hear of the claim, which may be dropped."""
    UNKNOWN = "unknown"
    """The broker may have it. Then the backend waits for this claim, so it has to stand."""


class Acceptance:
    """The acceptance of one request by one claim.

    Delivery: at least once, always under the same event id.
    """

    def __init__(
        self, event: TrainingAccepted, *, event_id: str, link: Link, clock: Clock, rng: random.Random
    ) -> None:
        self._event = event
        self._event_id = event_id
        self._link = link
        self._clock = clock
        self._rng = rng

    async def tell(self) -> Told:
        """Say it, and find out whether it is heard; a refusal is tried again, a silence is not waited for."""
        pauses = Backoff(0.1, 1.0, self._rng)
        for remaining in reversed(range(_TRIES)):
            try:
                await self._link.publish(self._event, event_id=self._event_id)
            except (UnroutableError, PublishNackedError, AccessRefusedError) as error:
                _log.warning("acceptance refused by the broker", reason=str(error), tries_left=remaining)
                if remaining:
                    await self._clock.sleep(pauses.next())
            except BusError as error:
                # A time-out or a lost connection says nothing: what was sent may be stored, now or later.
                _log.debug("acceptance not confirmed", reason=str(error))
                return Told.UNKNOWN
            else:
                return Told.YES
        return Told.NO

    async def insist(self) -> None:
        """Say it until the broker has it."""
        pauses = Backoff(0.2, 5.0, self._rng)
        while True:
            try:
                await self._link.publish(self._event, event_id=self._event_id)
            except BusError as error:
                _log.debug("acceptance not confirmed", reason=str(error))
                await self._clock.sleep(pauses.next())
            else:
                return
