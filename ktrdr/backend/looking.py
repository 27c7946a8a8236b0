"""What people look at, as commands show it: the same for who has the database and for who asks a server."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ktrdr.backend.records import AgentRecord, HistoryEntry, OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.errors import OperationNotFoundError


@dataclass(frozen=True, slots=True)
class ListedOperation:
    """One operation in a list."""

    record: OperationRecord
    is_interrupted: bool
    """Whether nobody carries it, and whoever works next goes on with it."""


@dataclass(frozen=True, slots=True)
class RecordedStory:
    """One operation with everything that happened to it."""

    record: OperationRecord
    history: tuple[HistoryEntry, ...]
    is_interrupted: bool
    waits_for: str | None
    """In words; None if it runs, is about to, or has ended."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The host agents, and what they hold."""

    agents: tuple[AgentRecord, ...]
    operations: Mapping[str, OperationRecord]
    """Those that agents hold and that are known here, by id."""
    is_served: bool
    """Whether anybody hears the agents now."""
    now: datetime
    """By the clock of the database."""


def list_operations(
    store: OperationStore, *, state: State | None, strategy: str | None, limit: int, before: str | None
) -> list[ListedOperation]:
    """Return operations, newest first; see `OperationStore.list_operations`. Blocks."""
    records = store.list_operations(state=state, strategy=strategy, limit=limit, before=before)
    return [ListedOperation(record, store.is_interrupted(record)) for record in records]


def story_of(store: OperationStore, name: str | None) -> RecordedStory:
    """Return the operation whose id is, begins or ends with that; None: the newest. Blocks.

    Raises:
        OperationNotFoundError: there is none, or there are several.
    """
    newest_first = store.list_operations(limit=1) if name is None else [store.find(name)]
    if not newest_first:
        raise OperationNotFoundError("There are no operations yet.", fix="Start one: ktrdr train STRATEGY")
    record = newest_first[0]
    return RecordedStory(
        record,
        tuple(store.history(record.operation_id)),
        store.is_interrupted(record),
        store.why_waiting(record) or None,
    )


def fleet_of(store: OperationStore) -> Fleet:
    """Return every agent that was ever heard of. Blocks."""
    agents = tuple(store.agents())
    held = sorted({attempt.operation_id for agent in agents for attempt in agent.running})
    operations = {record.operation_id: record for record in store.get_all(held)}
    return Fleet(agents, operations, store.is_served(), store.now())
