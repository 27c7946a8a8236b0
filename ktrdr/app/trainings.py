"""Accepting trainings: each is decided on, recorded, and handed to whoever carries it."""

import asyncio
import hashlib
import json
from dataclasses import astuple, replace

import structlog

from ktrdr.app.deciding import decide, default_mode, set_default_mode
from ktrdr.app.embedded import submission_of
from ktrdr.app.preparing import Preparing
from ktrdr.backend.dispatching import submitted_as
from ktrdr.backend.preparation import PreparedTraining
from ktrdr.backend.records import Idempotency, OperationRecord
from ktrdr.backend.service import Backend
from ktrdr.backend.store import OperationStore
from ktrdr.backend.wishes import Accepted, TrainingWish
from ktrdr.blobs.store import BlobStore
from ktrdr.clock import Clock, SystemClock
from ktrdr.ids import IdFactory
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Decision, Mode, Place

_log = structlog.get_logger()


class Trainings:
    """Accepts trainings for the agent in this process and for host agents.

    Args:
        settings: limits, and where strategies and bars are.
        store: where operations are recorded.
        blobs: where bars go, for agents to fetch them.
        local: the backend of the agent in this process.
        hosts: the backend of the host agents; None if no broker is named.
        ids: for seeds.
        clock: for the age of what was prepared.
    """

    def __init__(
        self,
        settings: Settings,
        store: OperationStore,
        *,
        blobs: BlobStore,
        local: Backend,
        hosts: Backend | None,
        ids: IdFactory,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._preparing = Preparing(settings, blobs, clock or SystemClock())
        self._local = local
        self._hosts = hosts
        self._ids = ids

    async def submit(
        self, wish: TrainingWish, *, mode: Mode | None, idempotency_key: str | None = None
    ) -> Accepted:
        """Accept a training; when this returns, nothing loses it any more.

        Delivery: who calls again under the same key gets the operation that the first call has made.

        Args:
            wish: what to train.
            mode: where; None: as `default_mode` says.
            idempotency_key: what the client calls this request, at most 255 characters; None: each call makes
                an operation.

        Raises:
            StrategyError: the strategy is wrong.
            DataError: its bars are missing or wrong.
            NowhereToTrainError: it requires a GPU, and there is none where it may run.
            IdempotencyError: another request has that key.
            BlobError: the bars cannot be stored.
            DatabaseUnavailableError: the database cannot be written; nothing was accepted.
        """
        idempotency = None
        if idempotency_key is not None:
            idempotency = Idempotency(idempotency_key, _sha256(wish, mode))
            if (known := await asyncio.to_thread(self._submitted_as, idempotency)) is not None:
                return _repeated(known)
        decision, prepared = await asyncio.to_thread(self._decide_and_prepare, wish, mode)
        carrier = self._local if decision.where is Place.LOCAL or self._hosts is None else self._hosts
        submission = await carrier.submit(
            replace(
                submission_of(prepared, wish, self._ids, decision),
                # A client that asks twice wants two, unless it says otherwise by a key.
                fingerprint=None,
                idempotency=idempotency,
            )
        )
        if submission.repeated:
            return _repeated(submission.operation)
        log = _log.warning if decision.is_fallback else _log.info
        log(
            "accepted",
            operation_id=submission.operation.operation_id,
            mode=decision.mode.value,
            where=decision.where.value,
            reason=decision.reason,
        )
        return Accepted(submission.operation, decision, created=True)

    async def default_mode(self) -> Mode:
        """Return the mode of trainings for which none is named."""
        return (await asyncio.to_thread(default_mode, self._settings, self._store)).mode

    async def set_default_mode(self, mode: Mode) -> None:
        """Set it, for every process on this database, until it is set again.

        Raises:
            DatabaseUnavailableError: it cannot be recorded.
        """
        await asyncio.to_thread(set_default_mode, self._store, mode)
        _log.info("default mode set", mode=mode.value)

    def _decide_and_prepare(self, wish: TrainingWish, mode: Mode | None) -> tuple[Decision, PreparedTraining]:
        unreachable = None
        if self._hosts is None:
            unreachable = "no broker is named, over which hosts are reached"
        elif not self._hosts.is_listening:
            unreachable = "the broker cannot be reached"
        decision = decide(
            self._settings,
            self._store,
            wish,
            mode,
            instance=self._local.instance,
            unreachable=unreachable,
        )
        return decision, self._preparing.prepare(wish)

    def _submitted_as(self, idempotency: Idempotency) -> OperationRecord | None:
        with self._store.reading() as connection:
            return submitted_as(connection, idempotency)


def _repeated(operation: OperationRecord) -> Accepted:
    assert operation.mode is not None
    assert operation.place is not None
    decision = Decision(operation.mode, operation.place, operation.place_reason or "")
    return Accepted(operation, decision, created=False)


def _sha256(wish: TrainingWish, mode: Mode | None) -> str:
    text = json.dumps([astuple(wish), mode], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
