"""A broker that stays away: what waits for an agent behind it runs beside the backend instead."""

from collections.abc import Callable

from sqlalchemy import select

from ktrdr.backend.falling_back import Refuge, fall_back, may_fall_back
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import operations
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.waiting import Offload
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.training.execution_mode_selector import Place

_WAITING = (State.PENDING, State.QUEUED)


class Away:
    """Has what waits fall back once the broker has been away for long; what runs on hosts goes on there.

    Args:
        store: where operations are.
        transactions: where they are changed.
        refuge: where they run then.
        instance: this one.
        is_away: whether the broker cannot be reached from here now.
        after_s: how long it may be away.
        clock: for that.
        offload: where the database is asked.
        on_change: told of each operation that changed.
    """

    def __init__(
        self,
        store: OperationStore,
        transactions: Transactions,
        refuge: Refuge,
        *,
        instance: str,
        is_away: Callable[[], bool],
        after_s: float,
        clock: Clock,
        offload: Offload,
        on_change: Callable[[OperationRecord], None],
    ) -> None:
        self._store = store
        self._transactions = transactions
        self._refuge = refuge
        self._instance = instance
        self._is_away = is_away
        self._after_s = after_s
        self._clock = clock
        self._offload = offload
        self._on_change = on_change
        self._since: float | None = None

    async def look(self) -> None:
        """Look whether the broker is there, and do what follows; to be called every second or so."""
        now = self._clock.monotonic()
        if not self._is_away():
            self._since = None
            return
        self._since = now if self._since is None else self._since
        if now - self._since < self._after_s or await self._offload(self._is_reached_by_another):
            return
        for operation_id in await self._offload(self._waiting):
            changed = await self._transactions.change(self._falling_back(operation_id))
            if changed is not None:
                self._on_change(changed)

    def _is_reached_by_another(self) -> bool:
        """Return whether it is only this process that is cut off."""
        return any(each.reaches_broker for each in self._store.servers() if each.instance != self._instance)

    def _waiting(self) -> list[str]:
        query = (
            select(operations.c.id)
            .where(operations.c.owner == BROKER_OWNER, operations.c.place == Place.HOST)
            .where(operations.c.state.in_(_WAITING))
            .order_by(operations.c.created_at)
        )
        with self._store.reading() as connection:
            return list(connection.execute(query).scalars())

    def _falling_back(self, operation_id: str) -> Callable[[Work], OperationRecord | None]:
        def action(work: Work) -> OperationRecord | None:
            operation = work.operation(operation_id)
            # Meanwhile it may have been accepted, or have ended.
            if operation is None or operation.state not in _WAITING:
                return None
            if not may_fall_back(work, operation, self._refuge):
                return None
            story = f"the broker has been away for more than {self._after_s:g} s"
            return fall_back(work, operation, self._refuge, story)

        return action
