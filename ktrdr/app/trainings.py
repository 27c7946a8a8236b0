"""Accepting trainings: each is decided on, recorded, and handed to whoever carries it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from pydantic import TypeAdapter

from ktrdr.app.deciding import decide, default_mode, set_default_mode, waits_in_lane
from ktrdr.app.embedded import submission_of
from ktrdr.app.preparing import Preparing
from ktrdr.app.retrying import decided, training_again
from ktrdr.backend.audit import Witness
from ktrdr.backend.dispatching import submitted_as
from ktrdr.backend.preparation import PreparedTraining
from ktrdr.backend.records import Idempotency, Submission, SubmitTraining
from ktrdr.backend.service import Backend
from ktrdr.backend.sharing import Shared
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.backend.wishes import (
    Accepted,
    DefaultMode,
    Preparation,
    RetryWish,
    TrainingWish,
    digest_of,
    stated,
)
from ktrdr.blobs.store import BlobStore
from ktrdr.clock import Clock, SystemClock
from ktrdr.ids import IdFactory
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Decision, Mode, Place

_IN_ITS_LANE = Decision(Mode.HOST, Place.HOST, "a lane was named, in which it waits for an agent")
"""Is told to who asks, and not recorded: nothing was decided that could be decided otherwise later."""

_PREPARATION = TypeAdapter(Preparation)

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
        self._blobs = blobs
        self._preparing = Preparing(settings, blobs, clock or SystemClock())
        self._submitter = Submitter(settings, store, ids=ids)
        self._ready: Shared[tuple[PreparedTraining, Decision | None]] = Shared(asyncio.to_thread)
        self._local = local
        self._hosts = hosts
        self._ids = ids

    async def submit(
        self,
        wish: TrainingWish,
        *,
        mode: Mode | None,
        idempotency_key: str | None = None,
        witness: Witness | None = None,
    ) -> Accepted:
        """Accept a training; when this returns, nothing loses it any more.

        Delivery: who calls again under the same key gets the operation that the first call has made.

        Args:
            wish: what to train.
            mode: where; None: as `default_mode` says.
            idempotency_key: what the client calls this request, at most 255 characters; None: each call makes
                an operation.
            witness: writes down that it was accepted, if it makes an operation.

        Raises:
            StrategyError: the strategy is wrong.
            DataError: its bars are missing or wrong.
            NowhereToTrainError: it requires a GPU, and there is none where it may run.
            SettingsError: a lane was named, and a mode other than ``host``.
            IdempotencyError: another request has that key.
            BlobError: the bars cannot be stored.
            DatabaseUnavailableError: the database cannot be written; nothing was accepted.
        """

        def get_ready() -> tuple[PreparedTraining, Decision | None]:
            decision = self._decide(wish, mode)
            return self._preparing.prepare(wish), decision

        async def prepare() -> tuple[SubmitTraining, Preparation]:
            if mode is not Mode.LOCAL:
                await self._settle()
            # Who asks for many at once asks for the same with other seeds.
            same = digest_of([stated(replace(wish, seed=None)), mode])
            prepared, decision = await self._ready.of(same, get_ready)
            # A client that asks twice wants two, unless it says otherwise by a key.
            return submission_of(prepared, wish, self._ids, decision, may_resume=False), prepared.told

        return await self._accept(prepare, _idempotency(idempotency_key, wish, mode), witness)

    async def retry(
        self,
        operation_id: str,
        wish: RetryWish,
        *,
        idempotency_key: str | None = None,
        witness: Witness | None = None,
    ) -> Accepted:
        """Accept what an operation asked for that failed or was cancelled, once more: as a new operation.

        Strategy, changes to it and bars are what was recorded, whatever has become of their files.

        Delivery: as `submit`.

        Args:
            operation_id: of the one that is repeated.
            wish: what differs.
            idempotency_key: as for `submit`.
            witness: likewise.

        Raises:
            OperationNotFoundError: there is no such operation.
            NotRetryableError: it has made a model, or has not ended.
            DataGoneError: its bars are not in the blob store any more.
            NowhereToTrainError: it requires a GPU, and there is none where it may run.
            SettingsError: a lane was named, and a mode other than ``host``.
            IdempotencyError: another request has that key.
            BlobError: the blob store does not answer.
            DatabaseUnavailableError: the database cannot be written; nothing was accepted.
        """

        def get_ready() -> SubmitTraining:
            again = training_again(*self._store.get_request(operation_id), wish, self._blobs)
            return decided(again, self._decide(again.wish, again.mode))

        async def prepare() -> tuple[SubmitTraining, None]:
            await self._settle()
            return await asyncio.to_thread(get_ready), None

        idempotency = _idempotency(idempotency_key, "retry", operation_id, wish)
        return await self._accept(prepare, idempotency, witness)

    async def _accept(
        self,
        prepare: Callable[[], Awaitable[tuple[SubmitTraining, Preparation | None]]],
        idempotency: Idempotency | None,
        witness: Witness | None,
    ) -> Accepted:
        """Submit what is prepared, unless the same was wanted before under the same key."""
        if idempotency is not None:
            known = await asyncio.to_thread(self._submitted_as, idempotency)
            if known is not None:
                return _repeated(known)
        prepared, told = await prepare()
        if idempotency is not None:
            if told is not None:
                idempotency = replace(idempotency, preparation=_PREPARATION.dump_json(told).decode())
            prepared = replace(prepared, idempotency=idempotency)
        decision = prepared.decision or _IN_ITS_LANE
        submission = await self._submit(prepared, decision.where, witness)
        if submission.repeated:
            return _repeated(submission)
        log = _log.warning if decision.is_fallback else _log.info
        log(
            "accepted",
            operation_id=submission.operation.operation_id,
            mode=decision.mode.value,
            where=decision.where.value,
            reason=decision.reason,
        )
        return Accepted(submission.operation, decision, created=True, preparation=told)

    async def default_mode(self) -> DefaultMode:
        """Return the mode of trainings for which none is named."""
        return await asyncio.to_thread(default_mode, self._settings, self._store)

    async def set_default_mode(self, mode: Mode, *, witness: Witness | None = None) -> None:
        """Set it, for every process on this database, until it is set again.

        Args:
            mode: from now on.
            witness: of the change.

        Raises:
            DatabaseUnavailableError: it cannot be recorded.
        """
        await asyncio.to_thread(set_default_mode, self._store, mode, witness=witness)
        _log.info("default mode set", mode=mode.value)

    async def _submit(self, prepared: SubmitTraining, where: Place, witness: Witness | None) -> Submission:
        if where is Place.LOCAL:
            return await self._local.submit(prepared, witness=witness)
        if self._hosts is not None:
            return await self._hosts.submit(prepared, witness=witness)
        # It waits until a backend is there that has a broker.
        return await asyncio.to_thread(self._submitter.submit, prepared, witness=witness)

    async def _settle(self) -> None:
        # A consumer that begins anew just now is no reason to train elsewhere.
        if self._hosts is not None:
            await self._hosts.settle()

    def _decide(self, wish: TrainingWish, mode: Mode | None) -> Decision | None:
        if waits_in_lane(wish, mode):
            return None
        unreachable = None
        if self._hosts is None:
            unreachable = "no broker is named, over which hosts are reached"
        elif not self._hosts.is_listening:
            unreachable = "the broker cannot be reached"
        return decide(
            self._settings,
            self._store,
            wish,
            mode,
            instance=self._local.instance,
            unreachable=unreachable,
        )

    def _submitted_as(self, idempotency: Idempotency) -> Submission | None:
        with self._store.reading() as connection:
            return submitted_as(connection, idempotency)


def _idempotency(key: str | None, *wanted: object) -> Idempotency | None:
    """Return what a request is known by; what is wanted may be wishes."""
    if key is None:
        return None
    plain = [stated(each) if isinstance(each, TrainingWish | RetryWish) else each for each in wanted]
    return Idempotency(key, digest_of(plain))


def _repeated(submission: Submission) -> Accepted:
    operation, told, decision = submission.operation, submission.preparation, _IN_ITS_LANE
    if operation.mode is not None and operation.place is not None:
        decision = Decision(operation.mode, operation.place, operation.place_reason or "")
    preparation = _PREPARATION.validate_json(told) if told is not None else None
    return Accepted(operation, decision, created=False, preparation=preparation)
