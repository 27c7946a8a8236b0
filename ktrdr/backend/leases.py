"""Which claims this backend waits for, and until when: in memory, on the monotonic clock.

A lease counts from what this backend has observed. It starts anew when the backend does, and when it has not
been able to listen, so that nothing expires merely because nobody listened. Where several backends carry
operations together, each waits for all of them.
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
    limit: float
    """Likewise: so long it is waited for at most, while events are read."""
    is_cancelling: bool
    """Whether the claim is to stop, and to be told so whenever it speaks."""

    @property
    def token(self) -> tuple[int, str]:
        """Attempt and claim."""
        return self.attempt, self.claim_id


@dataclass(frozen=True, slots=True)
class Request:
    """An attempt that nobody has accepted yet."""

    operation_id: str
    attempt: int
    event_id: str
    within_s: float
    deadline: float
    """Monotonic seconds."""


class Leases:
    """The deadlines of the operations of one owner.

    Args:
        owner: only operations that it has are waited for.
        monotonic: the clock, in seconds.
    """

    def __init__(self, owner: str, monotonic: Callable[[], float]) -> None:
        self._owner = owner
        self._monotonic = monotonic
        self._revisions: dict[str, int] = {}
        self._leases: dict[str, Lease] = {}
        self._requests: dict[str, Request] = {}

    def __len__(self) -> int:
        return len(self._leases) + len(self._requests)

    def follow(self, operation: OperationRecord, *, first_s: float | None = None) -> None:
        """Wait for what the operation needs now: its claim, or nothing.

        Args:
            operation: as it is in the database; what is older than what was followed before is passed over.
            first_s: the length of the lease until it is renewed, where that is not the claim's own.
        """
        operation_id = operation.operation_id
        if operation.revision < self._revisions.get(operation_id, 0):
            return
        if operation.owner == self._owner and not operation.state.terminal:
            self._revisions[operation_id] = operation.revision
        else:
            self._revisions.pop(operation_id, None)
        held = operation.state in (State.RUNNING, State.CANCELLING) and operation.owner == self._owner
        if not held or operation.claim_id is None or operation.lease_s is None:
            self._leases.pop(operation_id, None)
        else:
            lease = self._leases.get(operation_id)
            same = lease is not None and lease.token == (operation.attempt, operation.claim_id)
            if lease is None or not same or first_s is not None:
                lease = self._leases[operation_id] = Lease(
                    operation_id,
                    operation.attempt,
                    operation.claim_id,
                    operation.lease_s,
                    deadline=0,
                    limit=0,
                    is_cancelling=False,
                )
                self._extend(lease, operation.lease_s if first_s is None else first_s)
            lease.is_cancelling = operation.state is State.CANCELLING
        request = self._requests.get(operation_id)
        waiting = operation.state in (State.PENDING, State.QUEUED)
        if request is not None and not (waiting and request.attempt == operation.attempt):
            del self._requests[operation_id]

    def revisions(self) -> dict[str, int]:
        """Return as of which revision each operation is followed that has not ended."""
        return dict(self._revisions)

    def catch_up(self, operation: OperationRecord) -> bool:
        """Follow an operation that another process may have changed; return whether it has.

        What changes of a run that goes on, its agent has said: that it was heard there counts here too.
        """
        operation_id = operation.operation_id
        if operation.revision <= self._revisions.get(operation_id, -1):
            return False
        lease = self._leases.get(operation_id)
        was_cancelling = lease is not None and lease.is_cancelling
        self.follow(operation)
        goes_on = lease is not None and self._leases.get(operation_id) is lease
        if lease is not None and goes_on and lease.is_cancelling == was_cancelling:
            self._extend(lease, lease.lease_s)
        return True

    def requested(self, request: TrainingRequested, event_id: str) -> None:
        """Wait for somebody to accept what is now on the bus."""
        if request.operation_id not in self._leases:
            self.wait_for_claim(request.operation_id, request.attempt, event_id, request.accept_within_s)

    def wait_for_claim(self, operation_id: str, attempt: int, event_id: str, within_s: float) -> None:
        """Wait so long for somebody to accept the request that went out under that event id."""
        self._requests[operation_id] = Request(
            operation_id, attempt, event_id, within_s, self._monotonic() + within_s
        )

    def waits_for_claim(self, operation_id: str, event_id: str) -> bool:
        """Return whether it waits for somebody to accept that request."""
        request = self._requests.get(operation_id)
        return request is not None and request.event_id == event_id

    def came_back(self, operation_id: str, event_id: str) -> None:
        """Wait no longer for somebody to accept that request."""
        if self.waits_for_claim(operation_id, event_id):
            del self._requests[operation_id]

    def renew(self, operation_id: str, attempt: int, claim_id: str) -> Lease | None:
        """Take note of a sign of life; return the lease, if that claim holds the grant."""
        lease = self._leases.get(operation_id)
        if lease is None or lease.attempt != attempt or lease.claim_id != claim_id:
            return None
        self._extend(lease, lease.lease_s)
        return lease

    def begin_anew(self, *, with_limits: bool) -> None:
        """Count every deadline anew: for some time nothing, or not everything, could be heard.

        Args:
            with_limits: whether the limit of the patience begins anew too. A part of what is said that is
                lost again and again must not keep a dead claim for ever.
        """
        for lease in self._leases.values():
            limit = lease.limit
            self._extend(lease, lease.lease_s)
            if not with_limits:
                lease.limit = limit
        for request in list(self._requests.values()):
            self.wait_for_claim(request.operation_id, request.attempt, request.event_id, request.within_s)

    def are_due(self, idle_at: float) -> bool:
        """Return whether anything has expired, or is overdue."""
        return bool(self.expired(idle_at) or self.overdue())

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
            if now >= lease.limit or (now >= lease.deadline and idle_at >= lease.deadline)
        ]

    def overdue(self) -> list[Request]:
        """Return the requests that nobody has accepted in time."""
        now = self._monotonic()
        return [request for request in self._requests.values() if request.deadline <= now]

    def _extend(self, lease: Lease, seconds: float) -> None:
        lease.deadline = self._monotonic() + seconds
        lease.limit = lease.deadline + _PATIENCE * lease.lease_s
