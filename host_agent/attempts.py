"""The attempts that the agent holds: from the claim until the backend knows their end."""

import asyncio
from collections.abc import Iterator
from enum import Enum

from host_agent.journal import Claim


class Stop(Enum):
    """Why an attempt is to stop."""

    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"


class Attempt:
    """One attempt that this agent holds."""

    def __init__(self, claim: Claim, *, is_running: bool) -> None:
        self.claim = claim
        self.is_running = is_running
        """Whether it occupies a slot; if not, its end is still to be told."""
        self.is_standing = not is_running
        """Whether the backend has been told of it, or may have been, so that it is not dropped unsaid."""
        self.told_at: float | None = None
        """When the broker had its acceptance, in monotonic seconds; None: nobody knows whether it has."""
        self.stop: Stop | None = None
        self.stopping = asyncio.Event()
        """Set once it is to stop."""
        self.is_detached = False
        """Whether the backend may not have heard of it for most of its lease."""

    def request_stop(self, reason: Stop) -> None:
        """Ask it to stop; that it was cancelled counts more than that the agent shuts down."""
        if self.stop is not Stop.CANCELLED:
            self.stop = reason
        self.stopping.set()


class Attempts:
    """All attempts that the agent holds, by claim."""

    def __init__(self) -> None:
        self._by_claim: dict[str, Attempt] = {}
        self.changed = asyncio.Event()
        """Set at each change; whoever waits for it clears it."""

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._by_claim.values()))

    def add(self, attempt: Attempt) -> None:
        """Hold an attempt."""
        self._by_claim[attempt.claim.claim_id] = attempt
        self.changed.set()

    def stands(self, claim_id: str, *, told_at: float | None) -> None:
        """Note that the backend has been told of an attempt; or may have been, if it is not known when."""
        attempt = self._by_claim[claim_id]
        attempt.is_standing, attempt.told_at = True, told_at
        self.changed.set()

    def ended(self, claim_id: str) -> None:
        """Note that an attempt is over, and no longer occupies its slot."""
        self._by_claim[claim_id].is_running = False
        self.changed.set()

    def remove(self, claim_id: str) -> None:
        """Let go of an attempt: the backend knows its end, or it was never accepted."""
        if self._by_claim.pop(claim_id, None) is not None:
            self.changed.set()

    def matching(self, operation_id: str, attempt: int, claim_id: str | None) -> list[Attempt]:
        """Return the attempts that an order is meant for; without a claim, whoever holds the attempt."""
        return [
            held
            for held in self
            if held.claim.operation_id == operation_id
            and held.claim.attempt == attempt
            and claim_id in (None, held.claim.claim_id)
        ]

    @property
    def running(self) -> list[Attempt]:
        """Those that occupy a slot."""
        return [attempt for attempt in self if attempt.is_running]

    def mark_detached(self) -> None:
        """Note that the backend may have given up on all that is held now."""
        for attempt in self:
            attempt.is_detached = True

    @property
    def standing(self) -> list[Attempt]:
        """Those that presence may tell of, which must not be the first that is heard of a claim."""
        return [attempt for attempt in self if attempt.is_standing]
