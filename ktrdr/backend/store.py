"""The operations database as every process may use it."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, and_, func, or_, select
from sqlalchemy.exc import IntegrityError

from ktrdr.backend import cancelling
from ktrdr.backend.additions import Additions
from ktrdr.backend.catalog import ModelCatalog
from ktrdr.backend.commit_watch import CommitWatch
from ktrdr.backend.conflicts import ConflictError
from ktrdr.backend.database import Database
from ktrdr.backend.database_url import is_sqlite, parse_url
from ktrdr.backend.explaining import why_waiting
from ktrdr.backend.fleet import read_agents
from ktrdr.backend.instances import BROKER_OWNER, Instances, Registry
from ktrdr.backend.lookup import find_operation, no_such_operation
from ktrdr.backend.records import AgentRecord, HistoryEntry, Load, OperationRecord, OutgoingEvent
from ktrdr.backend.rows import history_entry, operation_record, select_history, select_operations
from ktrdr.backend.schema import ensure_schema
from ktrdr.backend.server_instances import ServerInstances
from ktrdr.backend.servers import Server, read_servers
from ktrdr.backend.statements import ACTIVE, ACTIVE_OF_OWNER, OPERATION, OPERATION_AND_REQUEST, OPERATIONS
from ktrdr.backend.states import State
from ktrdr.backend.tables import operations
from ktrdr.backend.work import Work
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError
from ktrdr.events import TrainingRequested
from ktrdr.ids import IdFactory, RandomIds
from ktrdr.settings import Settings

T = TypeVar("T")

_CONFLICTS = 10
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Publisher:
    """What publishes for an owner in this process."""

    instance: str
    tell: Callable[[list[OutgoingEvent]], object]


class OperationStore:
    """Operations, their history and their models; calls block, asynchronous callers use a thread.

    Usable from any thread, and at the same time from any number of processes.
    """

    def __init__(
        self,
        database: Database,
        instances: Registry,
        *,
        clock: Clock | None = None,
        ids: IdFactory | None = None,
    ) -> None:
        self.models = ModelCatalog(database)
        self.instances = instances
        self._database = database
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._publishers: dict[str, _Publisher] = {}  # by owner

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        create: bool = True,
        clock: Clock | None = None,
        ids: IdFactory | None = None,
    ) -> "OperationStore":
        """Return the store that the settings name, its schema up to date.

        Args:
            settings: where it is.
            create: whether a SQLite database that is not there is made.
            clock: for the times of records.
            ids: for the ids of what is sent.

        Raises:
            SettingsError: the URL cannot be used.
            DatabaseUnavailableError: it is missing and not to be made, locked, unreadable or away.
            StorageFullError: the disk is full.
            StoreError: it was made by a newer version of this program.
        """
        database = Database(settings.database, create=create)
        try:
            ensure_schema(database)
        except BaseException:
            database.close()
            raise
        return cls(database, registry_of(database, settings), clock=clock, ids=ids)

    @staticmethod
    def exists(settings: Settings) -> bool:
        """Return whether there is a database; one that is not a file is taken to be there."""
        url = parse_url(settings.database)
        return not is_sqlite(url) or Path(url.database or "").exists()

    def close(self) -> None:
        """Close its connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- reading ----------------------------------------------------------------------------------

    def list_operations(
        self,
        *,
        state: State | None = None,
        strategy: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[OperationRecord]:
        """Return operations, newest first.

        Args:
            state: only in this state.
            strategy: only of this strategy.
            limit: at most so many.
            before: the id of the last one of the previous page.

        Raises:
            OperationNotFoundError: there is no operation called ``before``.
        """
        query = (
            select_operations().order_by(operations.c.created_at.desc(), operations.c.id.desc()).limit(limit)
        )
        if state is not None:
            query = query.where(operations.c.state == state)
        if strategy is not None:
            query = query.where(operations.c.strategy == strategy)
        if before is not None:
            last = self.get(before)
            query = query.where(
                or_(
                    operations.c.created_at < last.created_at,
                    and_(operations.c.created_at == last.created_at, operations.c.id < last.operation_id),
                )
            )
        with self._database.read() as connection:
            return [operation_record(row) for row in connection.execute(query)]

    def get(self, operation_id: str) -> OperationRecord:
        """Return an operation by its full id.

        Raises:
            OperationNotFoundError: there is none.
        """
        with self._database.look_up() as connection:
            row = connection.execute(OPERATION, {"of_operation": operation_id}).one_or_none()
        if row is None:
            raise no_such_operation(operation_id)
        return operation_record(row)

    def get_all(self, operation_ids: Sequence[str]) -> list[OperationRecord]:
        """Return those that there are of several operations, in no order."""
        with self._database.read() as connection:
            return [
                operation_record(row)
                for first in range(0, len(operation_ids), _AT_ONCE)
                for row in connection.execute(
                    OPERATIONS, {"of_operations": operation_ids[first : first + _AT_ONCE]}
                )
            ]

    def find(self, text: str) -> OperationRecord:
        """Return the one operation whose id is, begins or ends with the text.

        Raises:
            OperationNotFoundError: there is none, or there are several; names some.
        """
        with self._database.read() as connection:
            return find_operation(connection, text)

    def find_request(self, operation_id: str) -> tuple[OperationRecord, TrainingRequested] | None:
        """Return an operation and the request of its first attempt, if there is one."""
        with self._database.look_up() as connection:
            row = connection.execute(OPERATION_AND_REQUEST, {"of_operation": operation_id}).one_or_none()
        if row is None:
            return None
        return operation_record(row), TrainingRequested.model_validate_json(row.request)

    def get_request(self, operation_id: str) -> tuple[OperationRecord, TrainingRequested]:
        """Return an operation by its full id, and the request of its first attempt.

        Raises:
            OperationNotFoundError: there is none.
        """
        found = self.find_request(operation_id)
        if found is None:
            raise no_such_operation(operation_id)
        return found

    def history(self, operation_id: str) -> list[HistoryEntry]:
        """Return what happened to an operation, oldest first."""
        with self._database.read() as connection:
            return [history_entry(row) for row in connection.execute(select_history(operation_id))]

    def is_interrupted(self, operation: OperationRecord) -> bool:
        """Return whether it has not ended, and whoever carried it is gone: it is free to be taken over."""
        if operation.state.terminal:
            return False
        return operation.owner is None or self.instances.is_gone(operation.owner)

    def is_carried(self, operation: OperationRecord) -> bool:
        """Return whether it has not ended, and a process that lives sees to it.

        What goes over the broker is never interrupted; without ``ktrdr serve`` nobody sees to it, though.
        """
        if operation.state.terminal or operation.owner is None:
            return False
        if operation.owner == BROKER_OWNER:
            return self.is_served()
        return self.instances.is_alive(operation.owner)

    def is_served(self) -> bool:
        """Return whether a ``ktrdr serve`` runs, which carries what goes over the broker.

        With SQLite it is seen on its own machine only, as the database is.
        """
        return bool(self.servers())

    def servers(self) -> list[Server]:
        """Return the processes that live and carry what goes over the broker, the oldest first."""
        with self._database.read() as connection:
            recorded = read_servers(connection)
        return [server for server in recorded if self.instances.is_alive(server.instance)]

    def why_waiting(self, operation: OperationRecord) -> str:
        """Return in words what the operation waits for; empty if it runs, is about to, or has ended."""
        is_carried = self.is_carried(operation)
        with self._database.read() as connection:
            return why_waiting(connection, operation, self.now(), is_carried=is_carried)

    def agents(self) -> list[AgentRecord]:
        """Return the host agents that were heard of over the broker, by name.

        Only a ``ktrdr serve`` hears them: while none runs, they are as it last knew them, and seem silent.
        """
        with self._database.read() as connection:
            return read_agents(connection, self.now())

    def unfinished(self, *, of_others_than: Collection[str] = ()) -> list[OperationRecord]:
        """Return every operation that has not ended, oldest first.

        Args:
            of_others_than: leave out what these owners have, which may be thousands.
        """
        query = select_operations().where(operations.c.state.in_(ACTIVE)).order_by(operations.c.created_at)
        if of_others_than:
            owner = operations.c.owner
            query = query.where(or_(owner.is_(None), owner.not_in(of_others_than)))
        with self._database.read() as connection:
            return [operation_record(row) for row in connection.execute(query)]

    def load(self, owner: str) -> Load:
        """Return how much an instance carries that has not ended."""
        with self._database.read() as connection:
            rows = connection.execute(ACTIVE_OF_OWNER, {"of_owner": owner})
            counts = {State(state): int(count) for state, count in rows}
        waiting = counts.get(State.PENDING, 0) + counts.get(State.QUEUED, 0)
        return Load(waiting=waiting, running=sum(counts.values()) - waiting)

    def count_by_state(self) -> dict[State, int]:
        """Return how many operations are in each state."""
        query = select(operations.c.state, func.count()).group_by(operations.c.state)
        with self._database.read() as connection:
            counts = {State(state): int(count) for state, count in connection.execute(query)}
        return {state: counts.get(state, 0) for state in State}

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a transaction that sees one state of the database, for queries of one's own."""
        return self._database.read()

    def looking_up(self) -> AbstractContextManager[Connection]:
        """Return a connection for queries each of which may see another state: cheaper, where one is all."""
        return self._database.look_up()

    def watch_commits(self) -> CommitWatch:
        """Return what tells whether anybody, in any process, has committed."""
        return self._database.watch_commits()

    # --- changing ---------------------------------------------------------------------------------

    def cancel(self, operation_id: str, reason: str) -> OperationRecord:
        """Have an operation stopped, whichever process carries it; one that has ended stays as it is.

        What does not run yet, or has lost its process, is cancelled at once. What runs is told to stop.

        Raises:
            OperationNotFoundError: there is none of that id.
        """
        return self.change(lambda work: cancelling.cancel(work, operation_id, reason, self.instances.is_gone))

    def change(self, action: Callable[[Work], T], *, owner: str | None = None) -> T:
        """Run an action in one write transaction; what it returns is durable.

        Delivery: the action is repeated, from a new reading, if another transaction was faster or in the way,
        but not after anything else; it should have no other effect.

        Args:
            action: reads and writes.
            owner: on whose bus it may answer.
        """
        for _ in range(_CONFLICTS):
            try:
                return self._run_together([action], owner)[0]
            except (ConflictError, IntegrityError) as error:
                conflict = error
        raise DatabaseUnavailableError("Other processes change the same rows again and again.") from conflict

    def change_all(self, actions: Sequence[Callable[[Work], Any]], *, owner: str | None = None) -> list[Any]:
        """Run actions as `change` does; return of each what it returns, or its error.

        They share one transaction. If anything goes wrong in it, it is undone, and each gets its own, so that
        none suffers from another.
        """
        try:
            return self._run_together(actions, owner)
        except (DatabaseUnavailableError, StorageFullError) as error:
            return [error] * len(actions)
        except Exception:
            return [self._outcome(action, owner) for action in actions]

    def publish_for(
        self, owner: str, instance: str, tell: Callable[[list[OutgoingEvent]], object] | None
    ) -> None:
        """Have what is committed here for an owner to publish claimed by an instance, and told to it at once.

        It is told in whichever thread commits; None: no more.
        """
        if tell is None:
            self._publishers.pop(owner, None)
        else:
            self._publishers[owner] = _Publisher(instance, tell)

    def _outcome(self, action: Callable[[Work], Any], owner: str | None) -> Any:
        try:
            return self.change(action, owner=owner)
        except Exception as error:
            return error

    def _run_together(self, actions: Sequence[Callable[[Work], T]], owner: str | None) -> list[T]:
        publishers = dict(self._publishers)
        claimants = {each: publisher.instance for each, publisher in publishers.items()}
        # Several may hold what others wait for: rather than to wait with it, each is done on its own.
        with self._database.write(patient=len(actions) == 1) as connection:
            now = self._clock.now()
            additions = Additions(connection)
            works = [
                Work(additions, now=now, ids=self._ids, owner=owner, publishers=claimants) for _ in actions
            ]
            results = [action(work) for action, work in zip(actions, works, strict=True)]
            additions.written()
        for each, publisher in publishers.items():
            if outgoing := [event for work in works for event in work.outgoing if event.owner == each]:
                publisher.tell(outgoing)
        return results

    def now(self) -> datetime:
        """Return the time under which a change would be recorded now, in UTC."""
        return self._clock.now().astimezone(UTC)


def registry_of(database: Database, settings: Settings) -> Registry:
    """Return who shares a database: processes of one machine a file, of any machines a server."""
    return Instances(settings.instances_dir) if database.path is not None else ServerInstances(database)
