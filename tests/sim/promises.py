"""What must hold at every moment, and at the end: the promises, asked of database, disk and broker."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.bus.memory import MemoryBroker
from ktrdr.bus.topology import BACKEND_EVENTS, BACKEND_RETURNED, DEAD_LETTERS, LANES, lane_queue
from ktrdr.models.directory import ModelDirectory
from ktrdr.settings import Settings
from tests.sim.runner import files_of

_ONCE_FOR_AN_ATTEMPT = frozenset({HistoryKind.ACCEPTED, HistoryKind.MODEL_PERSISTED})
"""Of several claims to an attempt each may say how it has failed."""
_QUEUES = (BACKEND_EVENTS, BACKEND_RETURNED, *(lane_queue(lane) for lane in LANES))


class Promises:
    """Looks at an installation from outside.

    Args:
        store: its database.
        settings: where its files are.
        broker: its queues.
    """

    def __init__(self, store: OperationStore, settings: Settings, broker: MemoryBroker) -> None:
        self.accepted: set[str] = set()
        """Operations whose submission was answered."""
        self.cancelled: set[str] = set()
        """Those whose cancellation was answered in time."""
        self.poison: set[str] = set()
        """Messages that nobody can read."""
        self.broken: list[str] = []
        """What somebody has seen that must not be."""
        self.progress_seen = 0
        self._store = store
        self._settings = settings
        self._broker = broker
        self._models = ModelDirectory(settings.models_dir)
        self._ends: dict[str, State] = {}

    def check(self) -> None:
        """Check what holds at every moment."""
        assert not self.broken, self.broken
        operations = {operation.operation_id: operation for operation in self._operations()}
        assert self.accepted <= operations.keys(), f"lost: {self.accepted - operations.keys()}"
        for operation in operations.values():
            ended = self._ends.get(operation.operation_id)
            assert ended in (None, operation.state), f"{operation.operation_id} came back from {ended}"
            if operation.state.terminal:
                self._ends[operation.operation_id] = operation.state
            assert operation.attempt <= operation.max_attempts, operation
        for operation_id in self.cancelled:
            state = operations[operation_id].state
            assert state in (State.CANCELLING, State.CANCELLED), (
                f"{operation_id} was cancelled, but is {state}"
            )
        models = self._store.models.list_models(limit=1000)
        completed = [each.operation_id for each in operations.values() if each.state is State.COMPLETED]
        assert sorted(model.operation_id for model in models) == sorted(completed), "models and operations"
        assert sorted(model.version for model in models) == list(range(1, len(models) + 1)), "versions"

    async def follow(self, watch: AsyncGenerator[OperationRecord, None]) -> None:
        """Check what a watcher is shown: nothing goes back."""
        last: OperationRecord | None = None
        async with aclosing(watch) as records:
            async for record in records:
                if last is not None:
                    assert record.revision >= last.revision, f"{last} was followed by {record}"
                    _check_progress(last, record)
                if record.progress is not None:
                    self.progress_seen += 1
                last = record
        assert last is not None
        assert last.state.terminal

    def all_have_ended(self) -> str | None:
        """Return what has not ended; None: everything has."""
        waiting = [
            f"{op.operation_id} {op.state} ({op.message})"
            for op in self._operations()
            if not op.state.terminal
        ]
        return f"not ended: {', '.join(waiting)}" if waiting else None

    def is_at_rest(self) -> str | None:
        """Return what is left that should not be; None: nothing."""
        queues = {name: depth for name in _QUEUES if (depth := self._broker.queue_depth(name))}
        if queues:
            return f"in the queues: {queues}"
        if claims := [str(folder) for folder in self._settings.agents_dir.glob("*/claims/*")]:
            return f"claims: {claims}"
        if staged := list((self._settings.models_dir / ".staging").glob("*")):
            return f"staged: {staged}"
        with self._store.reading() as connection:
            unsent = connection.exec_driver_sql(
                "SELECT count(*) FROM outbox WHERE sent_at IS NULL"
            ).scalar_one()
        return f"{unsent} events in the outbox" if unsent else None

    def check_at_rest(self, calm: set[str]) -> None:
        """Check what holds when everything has ended.

        Args:
            calm: operations that were submitted after all trouble.
        """
        self.check()
        for operation in self._operations():
            if operation.operation_id in calm:
                assert (operation.state, operation.attempt) == (State.COMPLETED, 1), operation
            if operation.state is State.FAILED:
                assert operation.cause is not None
                is_final = not operation.cause.retryable
                assert is_final or operation.attempt == operation.max_attempts, operation
            if operation.state is State.COMPLETED:
                self._check_model(operation)
            self._check_story(operation)
        assert self._dead_letters() == len(self.poison), (
            f"{self._dead_letters()} dead, {len(self.poison)} poison"
        )
        found = {path.name for path in self._settings.home.parent.iterdir()}
        assert found == {self._settings.home.name, self._settings.models_dir.name}, found

    def ends(self) -> Counter[str]:
        """Return how many operations ended how; those that have not, count as what they are."""
        return Counter(str(operation.state) for operation in self._operations())

    def histories(self) -> list[str]:
        """Return what happened to each operation, for people."""
        return [
            f"{operation.operation_id} {entry.at:%H:%M:%S.%f} "
            f"attempt {entry.attempt} {entry.kind}: {entry.message}"
            for operation in self._operations()
            for entry in self._store.history(operation.operation_id)
        ]

    def _check_model(self, operation: OperationRecord) -> None:
        (model,) = [
            each for each in self._store.models.list_models(limit=1000) if each.name == operation.model
        ]
        assert self._models.verify(model.name, model.files) == []
        for name, content in files_of(operation.seed).items():
            assert (self._models.path(model.name) / name).read_bytes() == content, f"{model.name}/{name}"

    def _check_story(self, operation: OperationRecord) -> None:
        """Check that what came twice, happened once."""
        kinds = Counter(
            (entry.kind, entry.attempt)
            for entry in self._store.history(operation.operation_id)
            if entry.kind in _ONCE_FOR_AN_ATTEMPT
        )
        assert not [each for each, count in kinds.items() if count > 1], kinds

    def _dead_letters(self) -> int:
        return self._broker.queue_depth(DEAD_LETTERS)

    def _operations(self) -> list[OperationRecord]:
        return self._store.list_operations(limit=1000)


def _check_progress(before: OperationRecord, after: OperationRecord) -> None:
    if before.progress is None or after.progress is None:
        return
    if before.progress.attempt == after.progress.attempt:
        assert after.progress.fraction >= before.progress.fraction, (
            f"{before.progress}, then {after.progress}"
        )
