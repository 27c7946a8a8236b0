"""From the runner's progress to events: the newest wins, and nothing waits for them."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from host_agent.journal import Claim
from host_agent.link import Link
from host_agent.waiting import first_of
from ktrdr.clock import Clock
from ktrdr.errors import BusError, CodecError
from ktrdr.events.training import MAX_EARLIER, EpochMetrics, TrainingProgress
from ktrdr.training.progress import Progress, Stage

_FLUSH_LIMIT_S = 0.25

_log = structlog.get_logger()


_MOST_UNTOLD = 10_000
"""Epochs that are kept while nothing gets through; the newest."""


class ProgressFeed:
    """Publishes the progress of one attempt; while one event is under way, newer progress replaces older.

    The metrics of an epoch are told once, with the next event that gets through: also after an hour without a
    broker.
    """

    def __init__(self, link: Link, claim: Claim, *, agent_id: str, clock: Clock) -> None:
        self._link = link
        self._claim = claim
        self._agent_id = agent_id
        self._clock = clock
        self._newest: Progress | None = None
        self._sequence = 0
        self._newest_epoch = 0
        self._untold: dict[int, Mapping[str, float]] = {}
        self._publishing: asyncio.Task[None] | None = None

    def put(self, progress: Progress) -> None:
        """Publish this soon, unless newer progress comes first."""
        self._newest = progress
        for epoch, metrics in (*progress.earlier, (progress.epoch, progress.metrics)):
            if epoch > self._newest_epoch:
                self._newest_epoch = epoch
                self._untold[epoch] = metrics
        while len(self._untold) > _MOST_UNTOLD:
            del self._untold[min(self._untold)]
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
        while (newest := self._newest) is not None:
            self._newest = None
            told = sorted(epoch for epoch in self._untold if epoch != newest.epoch)[:MAX_EARLIER]
            try:
                await self._link.publish(self._event(newest, told))
            except BusError as error:
                _log.debug("progress not published", reason=str(error))
                continue  # they are told with the next
            except (CodecError, ValueError) as error:
                _log.debug("progress cannot be published", reason=str(error))
            for epoch in (*told, newest.epoch):
                self._untold.pop(epoch, None)
            if self._untold and self._newest is None:
                self._newest = newest  # there is more to tell than fits into one event

    def _event(self, progress: Progress, told: Sequence[int]) -> TrainingProgress:
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
            earlier=tuple(EpochMetrics(epoch=epoch, metrics=dict(self._untold[epoch])) for epoch in told),
            fraction=progress.fraction,
            eta_s=progress.eta_s,
        )
