"""One write transaction on operations: rows in, rows out, no decisions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Insert, Select

from ktrdr.backend import statements
from ktrdr.backend.additions import Additions
from ktrdr.backend.conflicts import ConflictError
from ktrdr.backend.lookup import no_such_operation
from ktrdr.backend.records import HistoryKind, Idempotency, NewRequest, OperationRecord, OutgoingEvent
from ktrdr.backend.rows import operation_record
from ktrdr.backend.states import State, Trigger, apply
from ktrdr.events import BlobRef, OperationEvent, TrainingRequested
from ktrdr.ids import IdFactory

_RECORDED = frozenset(field.name for field in fields(OperationRecord))


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


class Work:
    """What one transaction reads and writes; all of it is committed, or none.

    Args:
        additions: to a write transaction, which other actions may have a part in.
        now: the moment under which it is recorded.
        ids: makes the ids of the events that are sent.
        owner: on whose bus answers are sent; None in a process that has no bus.
        publishers: owner → the instance of this process that publishes what is sent for it.
    """

    def __init__(
        self,
        additions: Additions,
        *,
        now: datetime,
        ids: IdFactory,
        owner: str | None,
        publishers: Mapping[str, str],
    ) -> None:
        self._additions = additions
        self.now = now
        self.owner = owner
        self._publishers = publishers
        self.outgoing: list[OutgoingEvent] = []
        """What is to be published after the commit, in the order of the decisions."""
        self._ids = ids

    @property
    def connection(self) -> Connection:
        """Of the transaction; what was added by now is written."""
        return self._additions.written()

    def insert(self, statement: Insert, row: dict[str, Any]) -> None:
        """Add a row that nothing depends on but what uses `connection` later."""
        self._additions.add(statement, row)

    # --- operations -------------------------------------------------------------------------------

    def operation(self, operation_id: str) -> OperationRecord | None:
        """Return the operation, locked until the end of the transaction where the database does so."""
        return self._locked(statements.LOCKED_OPERATION, operation_id)

    def operations(
        self, operation_ids: Sequence[str], known: Collection[OperationRecord] = ()
    ) -> list[OperationRecord]:
        """Return those that there are of several operations, locked likewise.

        Args:
            operation_ids: which.
            known: some of them as they were before; of what did not change since, these are returned, with
                the progress of then.
        """
        of_all = {"of_operations": operation_ids}
        revisions = dict(self.connection.execute(statements.LOCKED_REVISIONS, of_all).all())
        same = [each for each in known if revisions.get(each.operation_id) == each.revision]
        for operation in same:
            del revisions[operation.operation_id]
        if not revisions:
            return same
        found = self.connection.execute(statements.OPERATIONS, {"of_operations": list(revisions)})
        return same + [operation_record(row) for row in found]

    def existing_operation(self, operation_id: str) -> OperationRecord:
        """Return the operation, locked likewise.

        Raises:
            OperationNotFoundError: there is none of that id.
        """
        if (operation := self.operation(operation_id)) is None:
            raise no_such_operation(operation_id)
        return operation

    def operation_if_free(self, operation_id: str) -> OperationRecord | None:
        """Return the operation, locked likewise; None if another transaction has it."""
        return self._locked(statements.FREE_OPERATION, operation_id)

    def _locked(self, statement: Select[Any], operation_id: str) -> OperationRecord | None:
        row = self.connection.execute(statement, {"of_operation": operation_id}).one_or_none()
        if row is not None and row.state == State.COMPLETED and row.model_path is None:
            # While it waited for the lock, only the operation itself was read anew, and not its model.
            row = self.connection.execute(statement, {"of_operation": operation_id}).one_or_none()
        return operation_record(row) if row is not None else None

    def add(
        self,
        operation: OperationRecord,
        request_json: str,
        *,
        submitted_by: str,
        fingerprint: str | None,
        idempotency: Idempotency | None,
    ) -> None:
        """Record a new operation."""
        values = {
            "id": operation.operation_id,
            "state": operation.state,
            "revision": operation.revision,
            "attempt": operation.attempt,
            "max_attempts": operation.max_attempts,
            "strategy": operation.strategy,
            "symbol": operation.symbol,
            "timeframe": operation.timeframe,
            "seed": operation.seed,
            "fingerprint": fingerprint,
            "request": request_json,
            "submitted_by": submitted_by,
            "owner": operation.owner,
            "mode": operation.mode,
            "place": operation.place,
            "place_reason": operation.place_reason,
            "idempotency_key": idempotency.key if idempotency is not None else None,
            "wish_sha256": idempotency.wish_sha256 if idempotency is not None else None,
            "preparation": idempotency.preparation if idempotency is not None else None,
            "retry_of": operation.retry_of,
            "created_at": operation.created_at,
            "updated_at": operation.updated_at,
        }
        self.insert(statements.INSERT_OPERATION, values)

    def request(self, operation_id: str) -> TrainingRequested:
        """Return the request of the first attempt."""
        found = self.connection.execute(statements.REQUEST, {"of_operation": operation_id})
        return TrainingRequested.model_validate_json(found.scalar_one())

    def checkpoint(self, operation_id: str) -> BlobRef | None:
        """Return the newest checkpoint of any attempt."""
        found = self.connection.execute(statements.CHECKPOINT, {"of_operation": operation_id}).scalar_one()
        return BlobRef.model_validate_json(found) if found else None

    def change(self, operation: OperationRecord, **values: Any) -> OperationRecord:
        """Change columns of the operation, if it still is as it was read.

        Raises:
            ConflictError: it is not.
        """
        values = {"updated_at": self.now, "revision": operation.revision + 1, **values}
        where = {"of_operation": operation.operation_id, "at_revision": operation.revision}
        changed = self.connection.execute(statements.CHANGE_OPERATION, {**where, **values})
        if changed.rowcount != 1:
            raise ConflictError(operation.operation_id)
        if values.get("message") is None and "cancel_reason" in values:
            values["message"] = values["cancel_reason"]
        return replace(operation, **{name: values[name] for name in values.keys() & _RECORDED})

    def move(self, operation: OperationRecord, trigger: Trigger, **values: Any) -> OperationRecord:
        """Apply a trigger, and change further columns; the requests of one that ends are withdrawn."""
        state = apply(operation.state, trigger)
        if state.terminal:
            self.withdraw_requests(operation.operation_id)
            values = {"finished_at": self.now, **values}
        return self.change(operation, state=state, **values)

    def dispatch_all(self, operations: Sequence[OperationRecord]) -> list[OperationRecord]:
        """Move several operations that wait for their requests to be on the bus, by one statement.

        Raises:
            ConflictError: one of them is not as it was read any more.
        """
        moved = [
            replace(
                operation,
                state=apply(operation.state, Trigger.DISPATCHED),
                revision=operation.revision + 1,
                updated_at=self.now,
            )
            for operation in operations
        ]
        rows = [
            {
                "of_operation": operation.operation_id,
                "at_revision": operation.revision - 1,
                "state": operation.state,
                "revision": operation.revision,
                "updated_at": operation.updated_at,
            }
            for operation in moved
        ]
        if self.connection.execute(statements.CHANGE_OPERATION, rows).rowcount != len(rows):
            raise ConflictError(", ".join(operation.operation_id for operation in moved))
        return moved

    # --- attempts ---------------------------------------------------------------------------------

    def grant(self, claim: Claim, *, agent_id: str, device: str) -> None:
        """Note who holds an attempt."""
        values = {
            "operation_id": claim.operation_id,
            "attempt": claim.attempt,
            "claim_id": claim.claim_id,
            "agent_id": agent_id,
            "device": device,
            "accepted_at": self.now,
        }
        self.connection.execute(statements.INSERT_ATTEMPT, values)

    def holder(self, operation_id: str, attempt: int) -> str | None:
        """Return the claim to which an attempt, also an earlier one, was granted."""
        where = {"of_operation": operation_id, "of_attempt": attempt}
        holder: str | None = self.connection.execute(statements.HOLDER, where).scalar_one_or_none()
        return holder

    def device_of_run(self, claim: Claim) -> str | None:
        """Return on what the claim runs the attempt that it was granted; None if it does not any more."""
        row = self.connection.execute(statements.RUN, _of(claim)).one_or_none()
        return row.device if row is not None and row.ended_at is None else None

    def next_attempt(self, operation: OperationRecord) -> int:
        """Return the number of the next attempt: one that no claim has ever held."""
        where = {"of_operation": operation.operation_id}
        newest: int | None = self.connection.execute(statements.NEWEST_ATTEMPT, where).scalar_one()
        return max(newest or 0, operation.attempt) + 1

    def void_attempt(self, operation_id: str, attempt: int) -> None:
        """Grant an attempt to nobody, for good."""
        values = {
            "operation_id": operation_id,
            "attempt": attempt,
            "claim_id": "",
            "agent_id": "",
            "device": "",
            "accepted_at": self.now,
            "ended_at": self.now,
            "outcome": "not needed",
        }
        self.connection.execute(statements.INSERT_ATTEMPT, values)

    def end_attempt(self, claim: Claim, outcome: str) -> None:
        """Note that the claim's run is over, if it holds the attempt."""
        values = {"ended_at": self.now, "outcome": outcome}
        self.connection.execute(statements.END_ATTEMPT, {**_of(claim), **values})

    def running_claims(self, operation_id: str) -> list[tuple[int, str]]:
        """Return attempt and claim of every run that may still be going on somewhere."""
        found = self.connection.execute(statements.RUNNING_CLAIMS, {"of_operation": operation_id})
        return [(row.attempt, row.claim_id) for row in found]

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
        values = {
            "operation_id": operation.operation_id,
            "at": self.now,
            "kind": kind,
            "attempt": attempt or operation.attempt,
            "agent_id": agent_id,
            "message": message,
        }
        self.insert(statements.INSERT_HISTORY, values)

    def first_time(self, event_id: str, event: OperationEvent) -> bool:
        """Return whether the event was not received before, and remember it."""
        return statements.insert_if_new(
            self.connection,
            event_id=event_id,
            operation_id=event.operation_id,
            type=event.type_name(),
            received_at=self.now,
        )

    def send(self, event: OperationEvent, *, owner: str | None = None, delay_s: float = 0.0) -> None:
        """Have the event published after the commit, on the bus of the owner that is named, or of this one.

        Where there is neither, nobody could hear it: an in-process bus ends with its process.
        """
        carrier = owner or self.owner
        if carrier is not None:
            outgoing = OutgoingEvent(self._ids.event_id(), event.operation_id, carrier, event, delay_s)
            self._send(outgoing, event.model_dump_json())

    def send_new(self, request: NewRequest, operation: OperationRecord, *, owner: str) -> None:
        """Have the request of a new operation published after the commit, on the bus of the owner."""
        outgoing = OutgoingEvent(
            self._ids.event_id(),
            operation.operation_id,
            owner,
            request.event,
            packed=request.packed,
            operation=operation,
        )
        self._send(outgoing, request.json)

    def _send(self, outgoing: OutgoingEvent, json: str) -> None:
        values = {
            "event_id": outgoing.event_id,
            "operation_id": outgoing.operation_id,
            "owner": outgoing.owner,
            "type": outgoing.event.type_name(),
            "payload": json,
            "delay_s": outgoing.delay_s,
            "created_at": self.now,
            "tries": 0,
            # Else whoever sees it first.
            "claimed_by": self._publishers.get(outgoing.owner),
        }
        self.insert(statements.INSERT_OUTGOING, values)
        self.outgoing.append(outgoing)

    def newest_request(self, operation_id: str) -> str | None:
        """Return the event id of the request that was decided on last, published or not."""
        found = self.connection.execute(statements.NEWEST_REQUEST, {"of_operation": operation_id})
        newest: str | None = found.scalar_one_or_none()
        return newest

    def withdraw_requests(self, operation_id: str) -> None:
        """Take back requests that are not published yet: a later decision has overtaken them."""
        self.connection.execute(statements.WITHDRAW_REQUESTS, {"of_operation": operation_id})
        self.outgoing = [
            outgoing
            for outgoing in self.outgoing
            if outgoing.operation_id != operation_id or not isinstance(outgoing.event, TrainingRequested)
        ]


def _of(claim: Claim) -> dict[str, Any]:
    return {
        "of_operation": claim.operation_id,
        "of_attempt": claim.attempt,
        "of_claim": claim.claim_id,
    }
