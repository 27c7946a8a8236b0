"""From the agent's log to events: what is said of its attempts, in batches that nothing waits for."""

import asyncio
from enum import Enum, auto
from functools import partial

import structlog

from host_agent.attempt_log import AttemptLog
from host_agent.complaint import Complaint
from host_agent.journal import Claim
from ktrdr.bus.publisher import EventPublisher
from ktrdr.clock import Clock
from ktrdr.errors import (
    BusError,
    BusUnavailableError,
    CodecError,
    PublishNackedError,
    PublishTimeoutError,
    UnroutableError,
)
from ktrdr.events.log_lines import LogEntry
from ktrdr.events.training import TrainingLogged
from ktrdr.logs.overhearing import Listener, Overheard, overheard_by

INTERVAL_S = 0.25
_AFTER_REFUSAL_S = 60.0
"""A broker that was set up before there were logs on it refuses them; nobody is to be bothered by that."""

_MOST_ENDED = 100
"""Attempts that are over and whose lines wait: a minute may see thousands."""
_PASSING = (BusUnavailableError, PublishTimeoutError, PublishNackedError, UnroutableError)

_log = structlog.get_logger()


class _Outcome(Enum):
    """What became of an event."""

    SETTLED = auto()
    """It was published, or never can be."""
    FAILED = auto()
    """It was not, and may be the next time."""
    REFUSED = auto()
    """It was not, and nothing of the kind will be for some time."""


class LogFeed:
    """Publishes the lines of all attempts: of each at most one event in `INTERVAL_S`.

    Nothing depends on it. What cannot be published is kept for as long as there is room.

    Args:
        publisher: speaks in the agent's name; not by the link, which would take a refusal for a silence.
        agent_id: of the agent.
        clock: for the interval.
    """

    def __init__(self, publisher: EventPublisher, *, agent_id: str, clock: Clock) -> None:
        self._publisher = publisher
        self._agent_id = agent_id
        self._clock = clock
        self._logs: dict[str, AttemptLog] = {}
        self._said = asyncio.Event()
        self._refused = Complaint("the log of trainings cannot be published", clock)

    def begin(self, claim: Claim) -> AttemptLog:
        """Return the log of a new attempt."""
        log = self._logs[claim.claim_id] = AttemptLog(claim, clock=self._clock, on_said=self._said.set)
        return log

    def listener(self, claim_id: str) -> Listener | None:
        """Return who takes the lines about an attempt; None if it was begun by a predecessor."""
        # By name: contexts, which hold it, live as long as the timers that were set in them.
        return partial(self._overhear, claim_id) if claim_id in self._logs else None

    def end(self, claim_id: str) -> None:
        """Expect no more lines about an attempt; what is left of them still is published."""
        if (log := self._logs.get(claim_id)) is not None:
            log.end()
        ended = [each for each, log in self._logs.items() if log.has_ended]
        for oldest in ended[:-_MOST_ENDED]:
            del self._logs[oldest]

    def discard(self, claim_id: str) -> None:
        """Forget the log of an attempt that was not begun."""
        self._logs.pop(claim_id, None)

    async def run(self) -> None:
        """Publish, until this is cancelled."""
        while True:
            await self._said.wait()
            # First of all, so that the lines of a moment are in one event.
            await self._clock.sleep(INTERVAL_S)
            self._said.clear()
            for log in list(self._logs.values()):
                if await self._publish(log, log.take(at_once=log.has_ended)) is _Outcome.REFUSED:
                    await self._clock.sleep(_AFTER_REFUSAL_S)
                    break
            self._forget_ended()
            if any(len(log) for log in self._logs.values()):
                self._said.set()

    async def flush(self) -> None:
        """Publish all that is left, or as much as can be."""
        for log in list(self._logs.values()):
            while entries := log.take(at_once=True):
                if await self._publish(log, entries) is not _Outcome.SETTLED:
                    return

    def _overhear(self, claim_id: str, line: Overheard) -> None:
        if (log := self._logs.get(claim_id)) is not None:
            log.overhear(line)

    async def _publish(self, log: AttemptLog, entries: tuple[LogEntry, ...]) -> _Outcome:
        if not entries:
            return _Outcome.SETTLED
        claim = log.claim
        # What is said here of the feed itself would feed it.
        with overheard_by(None):
            try:
                await self._publisher.publish(
                    TrainingLogged(
                        operation_id=claim.operation_id,
                        attempt=claim.attempt,
                        claim_id=claim.claim_id,
                        agent_id=self._agent_id,
                        lines=entries,
                    )
                )
            except asyncio.CancelledError:
                # The agent stops, and says the rest all at once; what comes twice is known by its numbers.
                log.put_back(entries)
                raise
            except _PASSING as error:
                _log.debug("log not published", reason=str(error))  # The link complains of that.
                log.put_back(entries)
                return _Outcome.FAILED
            except BusError as error:
                self._refused.repeat(reason=str(error))
                log.put_back(entries)
                return _Outcome.REFUSED
            except (CodecError, ValueError) as error:
                _log.debug("log cannot be published", reason=str(error))
            else:
                self._refused.withdraw("the log of trainings can be published again")
        return _Outcome.SETTLED

    def _forget_ended(self) -> None:
        for claim_id, log in list(self._logs.items()):
            if log.has_ended and not log:
                del self._logs[claim_id]
