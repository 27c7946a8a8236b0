"""One write transaction on operations: rows in, rows out, no decisions."""

from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, delete, func, insert, select, update

from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.rows import operation_record, select_operations
from ktrdr.backend.states import Trigger, apply
from ktrdr.backend.tables import attempts, inbox, operation_history, operations, outbox
from ktrdr.events import BlobRef, OperationEvent, TrainingRequested
from ktrdr.ids import IdFactory


class Claim(Protocol):
    """Who runs, or says to run, an attempt: the fencing token."""

    @property
    def operation_id(self) -> str:
        """The operation."""

    @property
    def attempt(self) -> int:
        """The attempt."""

    @property
    def claim_id(self) -> str:
        """The claim."""


class ConflictError(Exception):
    """Another transaction changed the operation since this one read it; the transaction is to be repeated."""


class Work:
    """What one transaction reads and writes; all of it is committed, or none.

    Args:
        connection: in a write transaction.
        now: the moment under which it is recorded.
        ids: makes the ids of the events that are sent.
        instance: on whose bus answers are sent; None in a process that has no bus.
    """

    def __init__(
        self, connection: Connection, *, now: datetime, ids: IdFactory, instance: str | None
    ) -> None:
        self.connection = connection
        self.now = now
        self.instance = instance
        self._ids = ids

    # --- operations -------------------------------------------------------------------------------

    def operation(self, operation_id: str) -> OperationRecord | None:
        """Return the operation, locked until the end of the transaction where the database does so."""
        query = select_operations().where(operations.c.id == operation_id).with_for_update(of=operations)
        row = self.connection.execute(query).one_or_none()
        return operation_record(row) if row is not None else None

    def request(self, operation_id: str) -> TrainingRequested:
        """Return the request of the first attempt."""
        query = select(operations.c.request).where(operations.c.id == operation_id)
        return TrainingRequested.model_validate_json(self.connection.execute(query).scalar_one())

    def checkpoint(self, operation_id: str) -> BlobRef | None:
        """Return the newest checkpoint of any attempt."""
        query = select(operations.c.checkpoint).where(operations.c.id == operation_id)
        found = self.connection.execute(query).scalar_one()
        return BlobRef.model_validate_json(found) if found else None

    def change(self, operation: OperationRecord, **values: Any) -> OperationRecord:
        """Change columns of the operation, if it still is as it was read.

        Raises:
            ConflictError: it is not.
        """
        changed = self.connection.execute(
            update(operations)
            .where(operations.c.id == operation.operation_id, operations.c.revision == operation.revision)
            .values(updated_at=self.now, revision=operation.revision + 1, **values)
        )
        if changed.rowcount != 1:
            raise ConflictError(operation.operation_id)
        after = self.operation(operation.operation_id)
        assert after is not None
        return after

    def move(self, operation: OperationRecord, trigger: Trigger, **values: Any) -> OperationRecord:
        """Apply a trigger, and change further columns; the requests of one that ends are withdrawn."""
        state = apply(operation.state, trigger)
        if state.terminal:
            self.withdraw_requests(operation.operation_id)
            values = {"finished_at": self.now, **values}
        return self.change(operation, state=state, **values)

    # --- attempts ---------------------------------------------------------------------------------

    def grant(self, claim: Claim, *, agent_id: str, device: str) -> None:
        """Note who holds an attempt."""
        self.connection.execute(
            insert(attempts).values(
                operation_id=claim.operation_id,
                attempt=claim.attempt,
                claim_id=claim.claim_id,
                agent_id=agent_id,
                device=device,
                accepted_at=self.now,
            )
        )

    def holder(self, operation_id: str, attempt: int) -> str | None:
        """Return the claim to which an attempt, also an earlier one, was granted."""
        query = select(attempts.c.claim_id).where(
            attempts.c.operation_id == operation_id, attempts.c.attempt == attempt
        )
        return self.connection.execute(query).scalar_one_or_none()

    def device_of_run(self, claim: Claim) -> str | None:
        """Return on what the claim runs the attempt that it was granted; None if it does not, or has ended."""
        query = select(attempts.c.ended_at, attempts.c.device).where(
            attempts.c.operation_id == claim.operation_id,
            attempts.c.attempt == claim.attempt,
            attempts.c.claim_id == claim.claim_id,
        )
        row = self.connection.execute(query).one_or_none()
        return row.device if row is not None and row.ended_at is None else None

    def next_attempt(self, operation: OperationRecord) -> int:
        """Return the number of the next attempt: one that no claim has ever held."""
        query = select(func.max(attempts.c.attempt)).where(attempts.c.operation_id == operation.operation_id)
        newest: int | None = self.connection.execute(query).scalar_one()
        return max(newest or 0, operation.attempt) + 1

    def void_attempt(self, operation_id: str, attempt: int) -> None:
        """Grant an attempt to nobody, for good."""
        self.connection.execute(
            insert(attempts).values(
                operation_id=operation_id,
                attempt=attempt,
                claim_id="",
                agent_id="",
                device="",
                accepted_at=self.now,
                ended_at=self.now,
                outcome="not needed",
            )
        )

    def end_attempt(self, claim: Claim, outcome: str) -> None:
        """Note that the claim's run is over, if it holds the attempt."""
        self.connection.execute(
            update(attempts)
            .where(
                attempts.c.operation_id == claim.operation_id,
                attempts.c.attempt == claim.attempt,
                attempts.c.claim_id == claim.claim_id,
                attempts.c.ended_at.is_(None),
            )
            .values(ended_at=self.now, outcome=outcome)
        )

    def running_claims(self, operation_id: str) -> list[tuple[int, str]]:
        """Return attempt and claim of every run that may still be going on somewhere."""
        query = (
            select(attempts.c.attempt, attempts.c.claim_id)
            .where(attempts.c.operation_id == operation_id, attempts.c.ended_at.is_(None))
            .order_by(attempts.c.attempt)
        )
        return [(row.attempt, row.claim_id) for row in self.connection.execute(query)]

    # --- history, inbox, outbox -------------------------------------------------------------------

    def note(
        self,
        operation: OperationRecord,
        kind: HistoryKind,
        message: str,
        *,
        attempt: int | None = None,
        agent_id: str | None = None,
    ) -> None:
        """Add to the operation's history; under its current attempt, if no other is named."""
        self.connection.execute(
            insert(operation_history).values(
                operation_id=operation.operation_id,
                at=self.now,
                kind=kind,
                attempt=attempt or operation.attempt,
                agent_id=agent_id,
                message=message,
            )
        )

    def first_time(self, event_id: str, event: OperationEvent) -> bool:
        """Return whether the event was not received before, and remember it."""
        known = self.connection.execute(select(inbox.c.event_id).where(inbox.c.event_id == event_id)).first()
        if known is None:
            self.connection.execute(
                insert(inbox).values(
                    event_id=event_id,
                    operation_id=event.operation_id,
                    type=event.type_name(),
                    received_at=self.now,
                )
            )
        return known is None

    def send(self, event: OperationEvent, *, owner: str | None = None, delay_s: float = 0.0) -> None:
        """Have the event published after the commit, by the instance that is named, or this one.

        Where there is neither, nobody could hear it: an in-process bus ends with its process.
        """
        carrier = owner or self.instance
        if carrier is None:
            return
        self.connection.execute(
            insert(outbox).values(
                event_id=self._ids.event_id(),
                operation_id=event.operation_id,
                owner=carrier,
                type=event.type_name(),
                payload=event.model_dump_json(),
                delay_s=delay_s,
                created_at=self.now,
                tries=0,
            )
        )

    def newest_request(self, operation_id: str) -> str | None:
        """Return the event id of the request that was decided on last, published or not."""
        query = (
            select(outbox.c.event_id)
            .where(outbox.c.operation_id == operation_id, outbox.c.type == TrainingRequested.type_name())
            .order_by(outbox.c.id.desc())
            .limit(1)
        )
        return self.connection.execute(query).scalar_one_or_none()

    def withdraw_requests(self, operation_id: str) -> None:
        """Take back requests that are not published yet: a later decision has overtaken them."""
        self.connection.execute(
            delete(outbox).where(
                outbox.c.operation_id == operation_id,
                outbox.c.sent_at.is_(None),
                outbox.c.type == TrainingRequested.type_name(),
            )
        )
