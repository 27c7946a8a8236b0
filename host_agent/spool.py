"""Telling the backend how attempts ended, for as long as it takes."""

import asyncio
import random

import structlog

from host_agent.attempts import Attempts
from host_agent.complaint import Complaint
from host_agent.endings import Cancelled, Failed, Trained
from host_agent.journal import Announcement, ClaimFolder
from host_agent.link import Link
from host_agent.log_feed import LogFeed
from host_agent.waiting import Backoff, first_of
from ktrdr.blobs.store import BlobStore
from ktrdr.clock import Clock
from ktrdr.errors import BlobRefusedError, BusUnavailableError, CodecError, KtrdrError, PublishNackedError
from ktrdr.events.base import ClaimEvent
from ktrdr.events.causes import FailureCause
from ktrdr.events.compression import compress
from ktrdr.events.references import BlobRef, Codec, InlineModel
from ktrdr.events.training import ModelReady, TrainingCancelled, TrainingFailed
from ktrdr.ids import IdFactory
from ktrdr.logs.overhearing import overheard_by

_RETRY_FIRST_S, _RETRY_LIMIT_S = 0.2, 30.0
_REPEAT_FIRST_S, _REPEAT_LIMIT_S = 10.0, 300.0
_STORING_AT_ONCE = 2
"""Models: a store that is slow or away must not take all threads of the process."""
_STORE_AGAIN_S = 3600.0
"""So that a blob which nobody has asked for yet stays young, whatever is collected meanwhile."""
_WORTH_COMPRESSING = 4
"""Times the inline limit: weights compress by a tenth, so that what is larger goes by reference anyway."""

_log = structlog.get_logger()


class _Delivery:
    """One ending on its way."""

    def __init__(self, folder: ClaimFolder, announcement: Announcement) -> None:
        self.folder = folder
        self.announcement = announcement
        self.times_told = 0
        self.by_reference = False
        """Whether the broker has refused the model inline."""
        self.blob: BlobRef | None = None
        """What the model was stored as."""
        self.stored_at = 0.0
        """When, in monotonic seconds."""
        self.answered = asyncio.Event()
        self.hurry = asyncio.Event()


class Spool:
    """Delivers endings: a model until the backend answers, anything else until the broker has it.

    What is in it is on the disk too (`host_agent.journal`), so that it goes on after a restart.
    """

    def __init__(
        self,
        *,
        link: Link,
        logs: LogFeed,
        blobs: BlobStore,
        attempts: Attempts,
        agent_id: str,
        inline_limit_bytes: int,
        clock: Clock,
        ids: IdFactory,
        rng: random.Random,
    ) -> None:
        self._link = link
        self._logs = logs
        self._blobs = blobs
        self._attempts = attempts
        self._agent_id = agent_id
        self._inline_limit_bytes = inline_limit_bytes
        self._clock = clock
        self._ids = ids
        self._rng = rng
        self._storing = asyncio.Semaphore(_STORING_AT_ONCE)
        self._deliveries: dict[str, _Delivery] = {}
        self._added: asyncio.Queue[_Delivery] = asyncio.Queue()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def add(self, folder: ClaimFolder, announcement: Announcement) -> None:
        """Tell the backend of this ending, starting now."""
        delivery = _Delivery(folder, announcement)
        self._deliveries[folder.claim.claim_id] = delivery
        self._emptied.clear()
        self._added.put_nowait(delivery)

    def answered(self, claim_id: str) -> bool:
        """Note that the backend knows this ending; return whether anyone was waiting for that."""
        delivery = self._deliveries.get(claim_id)
        if delivery is None:
            return False
        delivery.answered.set()
        return True

    def hurry(self, claim_id: str | None = None) -> None:
        """Tell it again now: that ending, or all, because their answers may have been lost."""
        for its, delivery in self._deliveries.items():
            if claim_id in (None, its):
                delivery.hurry.set()

    async def run(self) -> None:
        """Deliver, until this is cancelled."""
        async with asyncio.TaskGroup() as deliveries:
            while True:
                delivery = await self._added.get()
                deliveries.create_task(self._deliver(delivery))

    async def drain(self) -> None:
        """Wait until everything is delivered."""
        await self._emptied.wait()

    def give_up(self) -> None:
        """Say that what is not delivered waits for the next start."""
        if self._deliveries:
            _log.warning("results are kept on the disk until the next start", results=len(self._deliveries))

    async def _deliver(self, delivery: _Delivery) -> None:
        claim = delivery.folder.claim
        with (
            structlog.contextvars.bound_contextvars(
                operation_id=claim.operation_id, attempt=claim.attempt, agent=self._agent_id
            ),
            overheard_by(self._logs.listener(claim.claim_id)),
        ):
            await self._tell_until_known(delivery)
            await asyncio.to_thread(delivery.folder.remove)
        self._logs.end(claim.claim_id)
        del self._deliveries[claim.claim_id]
        self._attempts.remove(claim.claim_id)
        if not self._deliveries:
            self._emptied.set()

    async def _tell_until_known(self, delivery: _Delivery) -> None:
        retries = Backoff(_RETRY_FIRST_S, _RETRY_LIMIT_S, self._rng)
        repeats = Backoff(_REPEAT_FIRST_S, _REPEAT_LIMIT_S, self._rng)
        complaint = Complaint("result not delivered", self._clock)
        while not delivery.answered.is_set():
            delivery.hurry.clear()
            is_model = isinstance(delivery.announcement.ending, Trained)
            try:
                await self._tell(delivery)
            except (CodecError, ValueError) as error:
                # Saying it again would change nothing: it cannot be put into an event.
                if not is_model:
                    _log.exception("an ending cannot be told")
                    return
                _log.exception("a model cannot be delivered")
                await self._replace(delivery, FailureCause.INTERNAL_ERROR, str(error))
                continue
            except BlobRefusedError as error:
                # Larger than the backend takes; it would reject it too.
                await self._replace(delivery, FailureCause.RESULT_REJECTED, str(error))
                continue
            except BusUnavailableError as error:
                pause_s = retries.next()
                _log.debug("result not delivered", reason=str(error))  # The link complains of that.
            except Exception as error:
                # Also what is not foreseen: it must not end the agent, which would find this again.
                if is_model and not await asyncio.to_thread(delivery.folder.bundle.exists):
                    await self._replace(delivery, FailureCause.RESULT_REJECTED, "Its bundle is gone.")
                    continue
                delivery.by_reference |= isinstance(error, PublishNackedError)
                pause_s = retries.next()
                foreseen = isinstance(error, KtrdrError | OSError)
                complaint.repeat(reason=str(error) or repr(error), exc_info=None if foreseen else error)
            else:
                if not is_model:
                    return
                complaint.withdraw()
                retries.reset()
                pause_s = repeats.next()
            await first_of(delivery.answered.wait(), delivery.hurry.wait(), self._clock.sleep(pause_s))

    async def _replace(self, delivery: _Delivery, cause: FailureCause, reason: str) -> None:
        """Report a failure in place of a model that cannot be delivered."""
        delivery.announcement = Announcement(
            # Another event than the one that may have been heard already.
            event_id=self._ids.event_id(),
            ending=Failed(cause=cause, message=f"The model was made, but could not be delivered. {reason}"),
        )
        try:
            await asyncio.to_thread(delivery.folder.record, delivery.announcement)
        except OSError as failure:
            _log.warning("ending not recorded", reason=str(failure))

    async def _tell(self, delivery: _Delivery) -> None:
        event = await self._event(delivery)
        await self._link.publish(event, event_id=delivery.announcement.event_id)
        tell = _log.debug if delivery.times_told else _log.info
        tell("told the backend", event_type=event.type_name(), summary=event.summary())
        delivery.times_told += 1

    async def _event(self, delivery: _Delivery) -> ClaimEvent:
        claim = delivery.folder.claim
        token = {
            "operation_id": claim.operation_id,
            "attempt": claim.attempt,
            "claim_id": claim.claim_id,
            "agent_id": self._agent_id,
        }
        match delivery.announcement.ending:
            case Trained() as ending:
                inline = (
                    None if delivery.by_reference else await asyncio.to_thread(self._inline, delivery.folder)
                )
                if inline is not None:
                    return ModelReady(**token, manifest=ending.manifest, inline=inline)
                async with self._storing:
                    blob = await asyncio.to_thread(self._stored, delivery)
                return ModelReady(**token, manifest=ending.manifest, blob=blob)
            case Failed() as ending:
                return TrainingFailed(
                    **token,
                    cause=ending.cause,
                    message=ending.message,
                    traceback=ending.traceback,
                    epoch=ending.epoch,
                )
            case Cancelled() as ending:
                return TrainingCancelled(**token, epoch=ending.epoch)

    def _stored(self, delivery: _Delivery) -> BlobRef:
        """Put the model into the store; when it is told again, only see that it is there."""
        now = self._clock.monotonic()
        known = delivery.blob
        if known is None or now - delivery.stored_at > _STORE_AGAIN_S or not self._blobs.exists(known.sha256):
            delivery.blob = known = self._blobs.put_file(delivery.folder.bundle)
            delivery.stored_at = now
        return known

    def _inline(self, folder: ClaimFolder) -> InlineModel | None:
        if folder.bundle.stat().st_size > _WORTH_COMPRESSING * self._inline_limit_bytes:
            return None
        data = compress(folder.bundle.read_bytes())
        if len(data) > self._inline_limit_bytes:
            return None
        return InlineModel(codec=Codec.ZSTD, data=data)
