"""What several backends do to the same rows at the same moment."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ktrdr.backend import attempts, results
from ktrdr.backend.attempts import RetryPolicy
from ktrdr.backend.conflicts import ConflictError
from ktrdr.backend.database import Database
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.outbox import Outbox
from ktrdr.backend.persistence import ModelPersister, VerifiedModel
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.statements import LOCKED_OPERATION
from ktrdr.backend.states import State, Trigger
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.backend.transactions import Transactions
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.memory import MemoryBroker
from ktrdr.clock import SystemClock
from ktrdr.errors import DatabaseUnavailableError
from ktrdr.events import ModelReady, TrainingRequested
from ktrdr.ids import RandomIds
from ktrdr.models.directory import ModelDirectory, StagedModel
from ktrdr.settings import Settings
from tests.unit.backend_cases import Run, ScriptedAgent, settings_in, wish

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("postgres")]

WITHIN_S = 60.0


@pytest.fixture
def settings(tmp_path: Path, postgres_url: str) -> Settings:
    return settings_in(tmp_path, database_url=postgres_url)


@pytest.fixture
def stores(settings: Settings) -> Iterator[list[OperationStore]]:
    opened = [OperationStore.open(settings) for _ in range(2)]
    yield opened
    for store in opened:
        store.close()


def _submit(store: OperationStore, settings: Settings) -> OperationRecord:
    return Submitter(settings, store).submit(wish()).operation


def _model(store: OperationStore, operation: OperationRecord) -> ModelReady:
    found = store.find_request(operation.operation_id)
    assert found is not None
    clock = SystemClock()
    run = Run(found[1], f"claim-{RandomIds().token()}", "agent-1")
    return ScriptedAgent(MemoryBroker(clock), clock).model(run)


def _persister(
    store: OperationStore, settings: Settings, directory: type[ModelDirectory] = ModelDirectory
) -> ModelPersister:
    return ModelPersister(
        store,
        directory(settings.models_dir),
        DirectoryBlobStore(settings.blobs_dir),
        owner=BROKER_OWNER,
        instance=RandomIds().token(),
        retries=RetryPolicy(1.0),
        limit_bytes=2**30,
        render_report=None,
    )


def _wait_until_somebody_waits(store: OperationStore) -> None:
    query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    end = time.monotonic() + WITHIN_S
    while True:
        with store.reading() as connection:
            if connection.execute(query).scalar_one() > 0:
                return
        assert time.monotonic() < end, "nobody waits"


def test_models_that_several_register_at_once_get_numbers_of_their_own(
    stores: list[OperationStore], settings: Settings
) -> None:
    meeting = threading.Barrier(2)

    def register(store: OperationStore) -> None:
        persister = _persister(store, settings)
        operations = [_submit(store, settings) for _ in range(5)]
        found = [persister.examine(_model(store, each), RandomIds().event_id()) for each in operations]
        meeting.wait(WITHIN_S)
        for verified in found:
            assert isinstance(verified, VerifiedModel)
            registered = persister.register(verified)
            assert registered is not None
            assert registered.state is State.COMPLETED

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(register, stores))
    models = stores[0].models.list_models()
    assert sorted(model.version for model in models) == list(range(1, 11))
    directory = ModelDirectory(settings.models_dir)
    assert all(directory.verify(model.name, model.files) == [] for model in models)
    assert not list(directory.root.glob(".replaced/*"))
    assert (directory.root / "momentum" / "EURUSD_1h_latest").readlink() == Path("EURUSD_1h_v10")


def test_who_waits_for_another_to_register_the_model_sees_it_then(
    stores: list[OperationStore], settings: Settings
) -> None:
    first, second = stores
    operation = _submit(first, settings)
    event = _model(first, operation)
    is_registering = threading.Event()

    class Slow(ModelDirectory):
        """Takes until another waits for the same operation."""

        def publish(self, staged: StagedModel, name: str) -> Path:
            is_registering.set()
            _wait_until_somebody_waits(second)
            return super().publish(staged, name)

    persister = _persister(first, settings, Slow)
    verified = persister.examine(event, RandomIds().event_id())
    assert isinstance(verified, VerifiedModel)
    with ThreadPoolExecutor(1) as threads:
        registering = threads.submit(persister.register, verified)
        assert is_registering.wait(WITHIN_S)
        seen = second.change(lambda work: results.decline(work, event), owner=BROKER_OWNER)
        registering.result()
    assert seen is not None
    assert (seen.state, seen.model) == (State.COMPLETED, "momentum/EURUSD_1h_v1")


def test_an_attempt_is_not_given_up_while_another_has_its_operation(
    stores: list[OperationStore], settings: Settings, postgres_url: str
) -> None:
    store, other = stores
    operation = _submit(store, settings)
    granted: dict[str, Any] = {"claim_id": "claim-1", "agent_id": "agent-1", "device": "cpu", "lease_s": 1.0}

    def accept(work: Any) -> None:
        work.move(work.operation(operation.operation_id), Trigger.ACCEPTED, **granted)

    store.change(accept)
    expire = partial(
        attempts.lease_expired,
        operation_id=operation.operation_id,
        attempt=1,
        claim_id="claim-1",
        lease_s=1.0,
        retries=RetryPolicy(1.0),
    )
    database = Database(postgres_url)
    with database.write() as connection:
        connection.execute(LOCKED_OPERATION, {"of_operation": operation.operation_id})
        assert other.change(expire, owner=BROKER_OWNER) is None
    expired = other.change(expire, owner=BROKER_OWNER)
    assert expired is not None
    assert (expired.state, expired.attempt) == (State.QUEUED, 2)
    again = store.change(expire, owner=BROKER_OWNER)
    assert again == expired
    database.close()


def test_who_does_several_things_at_once_does_not_wait_with_them_for_others(
    postgres_url: str, stores: list[OperationStore], settings: Settings
) -> None:
    rows = {"of_operation": _submit(stores[0], settings).operation_id}
    database = Database(postgres_url, busy_timeout_s=0.3)
    with database.write() as connection:
        connection.execute(LOCKED_OPERATION, rows)
        with pytest.raises(ConflictError), database.write(patient=False) as another:
            another.execute(LOCKED_OPERATION, rows)
        with pytest.raises(DatabaseUnavailableError, match="have been locked"), database.write() as another:
            another.execute(LOCKED_OPERATION, rows)
    database.close()


def test_groups_that_meet_on_the_same_operations_in_another_order_are_all_done(
    stores: list[OperationStore], settings: Settings
) -> None:
    ids = [_submit(stores[0], settings).operation_id for _ in range(2)]
    meeting = threading.Barrier(2)

    def touching(order: list[str]) -> list[Any]:
        met: list[bool] = []

        def action(work: Any, operation_id: str) -> OperationRecord:
            operation = work.operation(operation_id)
            if not met:
                met.append(True)
                meeting.wait(WITHIN_S)
            changed: OperationRecord = work.change(operation, message="touched")
            return changed

        actions = [partial(action, operation_id=operation_id) for operation_id in order]
        return stores[order is ids].change_all(actions, owner=BROKER_OWNER)

    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(touching, [ids, ids[::-1]]))
    assert all(isinstance(each, OperationRecord) for outcome in done for each in outcome)
    assert [stores[0].get(operation_id).revision for operation_id in ids] == [2, 2]


def test_what_two_claim_at_once_is_published_by_one_of_them(
    stores: list[OperationStore], settings: Settings
) -> None:
    for _ in range(20):
        _submit(stores[0], settings)
    meeting = threading.Barrier(2)

    def claim(index: int) -> set[str]:
        transactions = Transactions(stores[index], BROKER_OWNER, clock=SystemClock(), offload=_never)
        outbox = Outbox(stores[index], BROKER_OWNER, f"instance-{index}", RetryPolicy(1.0), transactions)
        meeting.wait(WITHIN_S)
        ours = outbox.unsent(lambda waiting: True, at_most=64).outgoing
        assert all(isinstance(outgoing.event, TrainingRequested) for outgoing in ours)
        return {outgoing.event_id for outgoing in ours}

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(claim, range(2))
    assert not one & other
    assert len(one | other) == 20


async def _never(function: Any) -> Any:
    raise AssertionError("nothing is changed here")
