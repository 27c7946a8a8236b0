"""Submitting a training: a transaction, for which nobody needs a bus or an event loop."""

from collections.abc import Callable

from ktrdr.backend import dispatching
from ktrdr.backend.audit import Witness
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import NewRequest, Submission, SubmitTraining
from ktrdr.backend.store import OperationStore
from ktrdr.backend.work import Work
from ktrdr.clock import Clock, SystemClock
from ktrdr.events import TrainingRequested
from ktrdr.ids import IdFactory, RandomIds
from ktrdr.models.directory import version_name
from ktrdr.settings import Settings


class Submitter:
    """Records trainings for whoever carries them to publish; may be used from any process and thread.

    Args:
        settings: limits and deadlines.
        store: where operations are recorded.
        clock: for the times of records.
        ids: identifiers.
    """

    def __init__(
        self,
        settings: Settings,
        store: OperationStore,
        *,
        clock: Clock | None = None,
        ids: IdFactory | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()

    def submit(
        self, wish: SubmitTraining, *, owner: str = BROKER_OWNER, witness: Witness | None = None
    ) -> Submission:
        """Accept a training; when this returns, nothing loses it any more. Blocks.

        By default it goes over the broker: ``ktrdr serve`` publishes it, at once or when it is started. A
        wish that repeats an interrupted one resumes it, unless it goes over the broker, where nothing is ever
        interrupted.

        Args:
            wish: what to train.
            owner: who carries it.
            witness: of the operation, unless it was there before.

        Raises:
            ModelError: strategy, symbol or timeframe cannot be part of a path.
            CodecError: the request is too large to be sent.
            IdempotencyError: another request has its idempotency key.
            DatabaseUnavailableError: the database cannot be written.
            StorageFullError: its disk is full.
        """
        return self._store.change(self.decision(wish, owner=owner, witness=witness), owner=owner)

    def decision(
        self, wish: SubmitTraining, *, owner: str, witness: Witness | None = None
    ) -> Callable[[Work], Submission]:
        """Return what records a training in a transaction of its owner; see `submit`."""
        version_name(wish.strategy.name, wish.symbol, wish.timeframe, 1)
        now = self._clock.now()
        # What cannot be sent is refused here rather than by the relay, where nobody waits for the answer; and
        # a transaction, which others wait for and which may be repeated, has only to record what is written.
        request = NewRequest.of(
            TrainingRequested(
                operation_id=self._ids.operation_id(now),
                attempt=1,
                strategy=wish.strategy,
                datasets=wish.datasets,
                seed=wish.seed,
                lane=wish.lane,
                require_gpu=wish.require_gpu,
                requested_at=now,
                accept_within_s=self._settings.accept_deadline_s,
            )
        )
        max_attempts = wish.max_attempts or self._settings.max_attempts
        is_gone = self._store.instances.is_gone

        def action(work: Work) -> Submission:
            if wish.idempotency is not None:
                known = dispatching.submitted_as(work.connection, wish.idempotency)
                if known is not None:
                    return known
            if wish.fingerprint is not None and owner != BROKER_OWNER:
                unfinished = dispatching.resume(work, wish.fingerprint, max_attempts, owner, is_gone)
                if unfinished is not None:
                    return Submission(unfinished, resumed=True)
            operation = dispatching.submit(work, wish, request, max_attempts, owner)
            if witness is not None:
                witness(work, operation.operation_id)
            return Submission(operation, resumed=False)

        return action
