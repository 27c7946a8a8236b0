"""Which claims this backend waits for, and until when: in memory, on the monotonic clock.

A lease counts from what this backend has observed. It starts anew when the backend does, so that nothing has
expired merely because nobody listened.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.events import TrainingRequested

_PATIENCE = 10
"""So many leases long an expiry waits for a backlog of events to be read."""


@dataclass(slots=True)
class Lease:
    """An attempt that is being run."""

    operation_id: str
    attempt: int
    claim_id: str
    lease_s: float
    deadline: float
    """Monotonic seconds."""

    @property
    def token(self) -> tuple[int, str]:
        """Attempt and claim."""
        return self.attempt, self.claim_id


@dataclass(frozen=True, slots=True)
class Request:
    """An attempt that nobody has accepted yet."""

    operation_id: str
    attempt: int
    within_s: float
    deadline: float
    """Monotonic seconds."""


class Leases:
    """The deadlines of the operations that one instance carries.

    Args:
        instance: only operations that it owns are waited for.
        monotonic: the clock, in seconds.
    """

    def __init__(self, instance: str, monotonic: Callable[[], float]) -> None:
        self._instance = instance
        self._monotonic = monotonic
        self._leases: dict[str, Lease] = {}
        self._requests: dict[str, Request] = {}

    def follow(self, operation: OperationRecord, *, first_s: float | None = None) -> None:
        """Wait for what the operation needs now: its claim, or nothing.

        Args:
            operation: as it is in the database.
            first_s: the length of the lease until it is renewed, where that is not the claim's own.
        """
        operation_id = operation.operation_id
        held = operation.state in (State.RUNNING, State.CANCELLING) and operation.owner == self._instance
        if not held or operation.claim_id is None or operation.lease_s is None:
            self._leases.pop(operation_id, None)
        else:
            lease = self._leases.get(operation_id)
            same = lease is not None and lease.token == (operation.attempt, operation.claim_id)
            if not same or first_s is not None:
                first_s = operation.lease_s if first_s is None else first_s
                self._leases[operation_id] = Lease(
                    operation_id,
                    operation.attempt,
                    operation.claim_id,
                    operation.lease_s,
                    self._monotonic() + first_s,
                )
        request = self._requests.get(operation_id)
        waiting = operation.state in (State.PENDING, State.QUEUED)
        if request is not None and not (waiting and request.attempt == operation.attempt):
            del self._requests[operation_id]

    def requested(self, request: TrainingRequested) -> None:
        """Wait for somebody to accept what is now on the bus."""
        if request.operation_id in self._leases:
            return
        within_s = request.accept_within_s
        self._requests[request.operation_id] = Request(
            request.operation_id, request.attempt, within_s, self._monotonic() + within_s
        )

    def renew(self, operation_id: str, attempt: int, claim_id: str) -> bool:
        """Take note of a sign of life; return whether that claim holds the grant."""
        lease = self._leases.get(operation_id)
        if lease is None or lease.token != (attempt, claim_id):
            return False
        lease.deadline = self._monotonic() + lease.lease_s
        return True

    def expired(self, idle_at: float) -> list[Lease]:
        """Return the leases that nobody has renewed in time.

        Args:
            idle_at: when there was last nothing to read, in monotonic seconds. A renewal may be among what
                was sent before the deadline and is not read yet, so an expiry waits for that; not for ever.
        """
        now = self._monotonic()
        return [
            lease
            for lease in self._leases.values()
            if lease.deadline <= now
            and (idle_at >= lease.deadline or now >= lease.deadline + _PATIENCE * lease.lease_s)
        ]

    def overdue(self) -> list[Request]:
        """Return the requests that nobody has accepted in time, and forget them."""
        now = self._monotonic()
        overdue = [request for request in self._requests.values() if request.deadline <= now]
        for request in overdue:
            del self._requests[request.operation_id]
        return overdue
