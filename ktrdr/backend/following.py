"""Keeping up with what other processes do to the operations that this one carries too."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from ktrdr.backend.leases import Leases
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.rows import operation_record
from ktrdr.backend.statements import OPERATIONS, REQUESTS_OF_QUEUED, REVISIONS, UNCLAIMED
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.waiting import Offload
from ktrdr.clock import Clock

_AT_ONCE = 500
_PAUSE = 20
"""So many times as long as a comparison takes, the next waits, unless it is due anyway: with thousands of
operations that have not ended, each takes tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class _News:
    """What there is that this process has not done itself."""

    has_mail: bool
    """Whether there is something to publish that nobody has claimed."""
    changed: list[OperationRecord]
    on_the_bus: dict[str, str]
    """Operation → event id of its newest request, of those of them that wait for somebody to accept it."""


class Following:
    """Waits for what others have begun as if it had been begun here.

    Args:
        store: where operations are.
        owner: whose operations are followed.
        leases: what is waited for.
        clock: for pauses.
        accept_deadline_s: how long a request that another process has published may wait.
        offload: where the database is asked.
        on_change: told of each operation that another process has changed.
        on_mail: told that there is something to publish that nobody has claimed.
    """

    def __init__(
        self,
        store: OperationStore,
        owner: str,
        leases: Leases,
        *,
        clock: Clock,
        accept_deadline_s: float,
        offload: Offload,
        on_change: Callable[[OperationRecord], None],
        on_mail: Callable[[], None],
    ) -> None:
        self._store = store
        self._owner = owner
        self._leases = leases
        self._clock = clock
        self._accept_deadline_s = accept_deadline_s
        self._offload = offload
        self._on_change = on_change
        self._on_mail = on_mail
        self._rests_until = float("-inf")

    async def catch_up(self, *, is_due: bool = True) -> None:
        """Take note of everything that was committed by now; costs little if that was all done here.

        Args:
            is_due: False: of operations only if that was not done just before.

        Raises:
            DatabaseUnavailableError: the database cannot be asked.
        """
        began = self._clock.monotonic()
        known = self._leases.revisions() if is_due or began >= self._rests_until else None
        news = await self._offload(lambda: self._read(known))
        if known is not None:
            ended = self._clock.monotonic()
            self._rests_until = ended + _PAUSE * (ended - began)
        if news.has_mail:
            self._on_mail()
        for operation in news.changed:
            if not self._leases.catch_up(operation):
                continue  # meanwhile it was changed here
            event_id = news.on_the_bus.get(operation.operation_id)
            if event_id is not None and not self._leases.waits_for_claim(operation.operation_id, event_id):
                self._leases.wait_for_claim(
                    operation.operation_id, operation.attempt, event_id, self._accept_deadline_s
                )
            self._on_change(operation)

    def _read(self, known: Mapping[str, int] | None) -> _News:
        of_owner = {"of_owner": self._owner}
        with self._store.reading() as connection:
            has_mail = connection.execute(UNCLAIMED, of_owner).first() is not None
            if known is None:
                return _News(has_mail, [], {})
            now = dict(connection.execute(REVISIONS, of_owner).all())
            news = list({each for each, _ in now.items() ^ known.items()})
            changed: list[OperationRecord] = []
            on_the_bus: dict[str, str] = {}
            for first in range(0, len(news), _AT_ONCE):
                some = {"of_operations": news[first : first + _AT_ONCE]}
                read = [operation_record(row) for row in connection.execute(OPERATIONS, some)]
                changed += read
                on_the_bus |= _requests_on_the_bus(connection, read)
        return _News(has_mail, changed, on_the_bus)


def _requests_on_the_bus(connection: Connection, operations: list[OperationRecord]) -> dict[str, str]:
    queued = [operation.operation_id for operation in operations if operation.state is State.QUEUED]
    if not queued:
        return {}
    rows = connection.execute(REQUESTS_OF_QUEUED, {"of_operations": queued})
    newest = {row.operation_id: row for row in rows}
    return {each: row.event_id for each, row in newest.items() if row.sent_at is not None}
