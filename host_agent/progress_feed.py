"""From the runner's progress to events: the newest wins, and nothing waits for them."""

import asyncio

import structlog

from host_agent.journal import Claim
from host_agent.link import Link
from host_agent.waiting import first_of
from ktrdr.clock import Clock
from ktrdr.errors import BusError, CodecError
from ktrdr.events.training import TrainingProgress
from ktrdr.training.progress import Progress, Stage

_FLUSH_LIMIT_S = 0.25

_log = structlog.get_logger()


class ProgressFeed:
    """Publishes the progress of one attempt; while one event is under way, newer progress replaces older."""

    def __init__(self, link: Link, claim: Claim, *, agent_id: str, clock: Clock) -> None:
        self._link = link
        self._claim = claim
        self._agent_id = agent_id
        self._clock = clock
        self._newest: Progress | None = None
        self._sequence = 0
        self._publishing: asyncio.Task[None] | None = None

    def put(self, progress: Progress) -> None:
        """Publish this soon, unless newer progress comes first."""
        self._newest = progress
        if self._publishing is None or self._publishing.done():
            name = f"progress {self._claim.claim_id}"
            self._publishing = asyncio.create_task(self._publish_all(), name=name)

    async def close(self, *, flush: bool = True) -> None:
        """End; if asked to, publish the newest first, unless that takes long: it is not worth waiting for."""
        if self._publishing is None or self._publishing.done():
            return
        if flush:
            await first_of(asyncio.shield(self._publishing), self._clock.sleep(_FLUSH_LIMIT_S))
        self._publishing.cancel()
        await asyncio.gather(self._publishing, return_exceptions=True)

    async def _publish_all(self) -> None:
        while self._newest is not None:
            newest, self._newest = self._newest, None
            try:
                await self._link.publish(self._event(newest))
            except (BusError, CodecError, ValueError) as error:
                _log.debug("progress not published", reason=str(error))

    def _event(self, progress: Progress) -> TrainingProgress:
        self._sequence += 1
        return TrainingProgress(
            operation_id=self._claim.operation_id,
            attempt=self._claim.attempt,
            claim_id=self._claim.claim_id,
            agent_id=self._agent_id,
            sequence=self._sequence,
            stage=progress.stage.title,
            stage_number=progress.stage.number,
            stages=len(Stage),
            epoch=progress.epoch,
            epochs=progress.epochs,
            batch=progress.batch,
            batches=progress.batches,
            metrics=dict(progress.metrics),
            fraction=progress.fraction,
            eta_s=progress.eta_s,
        )
