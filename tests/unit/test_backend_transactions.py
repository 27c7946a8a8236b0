"""Transactions that share a sync of the disk are as safe from each other as if they did not."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from ktrdr.backend.audit import audit_entries, noting
from ktrdr.backend.database import Database
from ktrdr.backend.instances import Instances
from ktrdr.backend.schema import ensure_schema
from ktrdr.backend.statements import INSERT_HISTORY
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import audit_log, inbox
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.work import Work
from ktrdr.errors import DatabaseUnavailableError, StoreError
from tests.contract.virtual_clock import VirtualClock
from tests.unit.backend_cases import eventually

_Action = Callable[[Work], Any]


class Counted(Database):
    """Counts transactions, and can be held up in one before its commit."""

    def __init__(self, url: str, **options: Any) -> None:
        self.begun = 0
        self.gate: threading.Event | None = None
        self.waits = threading.Event()
        super().__init__(url, **options)

    @contextmanager
    def write(self, *, patient: bool = True) -> Iterator[Connection]:
        self.begun += 1
        with super().write(patient=patient) as connection:
            yield connection
            if self.gate is not None:
                self.waits.set()
                assert self.gate.wait(60)


class World:
    """A database, and who writes to it."""

    def __init__(self, directory: Path, url: str) -> None:
        self.database = Counted(url, busy_timeout_s=0.2)
        ensure_schema(self.database)
        self.database.begun = 0
        self.store = OperationStore(self.database, Instances(directory / "instances"))
        self.clock = VirtualClock()
        self.transactions = Transactions(self.store, "here", clock=self.clock, offload=asyncio.to_thread)

    def change(self, action: _Action) -> asyncio.Task[Any]:
        """Begin a change, which is in the order of the calls."""
        return asyncio.create_task(self.transactions.change(action))

    async def together(self, *actions: _Action) -> list[asyncio.Task[Any]]:
        """Begin changes that all wait while another is being committed."""
        first = await self._held_up()
        return await self._behind(first, [self.change(action) for action in actions])

    async def together_with(
        self, action: Callable[[Work, Sequence[str]], Sequence[str]], items: Sequence[str], one: _Action
    ) -> list[asyncio.Task[Any]]:
        """Begin likewise one change, and then another that is made for several items at once."""
        first = await self._held_up()
        each = [asyncio.create_task(self.transactions.change_together(action, item)) for item in items]
        return await self._behind(first, [self.change(one), *each])

    async def _held_up(self) -> asyncio.Task[Any]:
        self.database.gate = threading.Event()
        first = self.change(_note("first"))
        await asyncio.to_thread(self.database.waits.wait, 60)
        return first

    async def _behind(
        self, first: asyncio.Task[Any], tasks: list[asyncio.Task[Any]]
    ) -> list[asyncio.Task[Any]]:
        await eventually(lambda: len(self.transactions._waiting) == len(tasks), "all to wait")
        gate, self.database.gate = self.database.gate, None
        gate.set()
        await first
        return tasks

    def noted(self) -> list[str]:
        with self.database.read() as connection:
            return list(connection.execute(select(inbox.c.event_id).order_by(inbox.c.event_id)).scalars())


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    world = World(tmp_path, database_url)
    yield world
    world.store.close()


def _note(name: str) -> Callable[[Work], str]:
    def action(work: Work) -> str:
        row = {"event_id": name, "operation_id": "o", "type": "t", "received_at": work.now}
        work.connection.execute(insert(inbox), row)
        return name

    return action


def _half_done(work: Work) -> None:
    _note("half-done")(work)
    raise ZeroDivisionError("a defect")


async def test_changes_that_wait_at_the_same_moment_share_one_commit(world: World) -> None:
    names = [f"e-{n}" for n in range(10, 40)]
    tasks = await world.together(*map(_note, names))
    assert await asyncio.gather(*tasks) == names
    assert world.database.begun == 2
    assert world.noted() == [*names, "first"]


async def test_a_failure_is_that_of_its_own_change_only(world: World) -> None:
    tasks = await world.together(_note("a"), _half_done, _note("b"), _note("first"), _note("c"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0], results[2], results[4]] == ["a", "b", "c"]
    assert isinstance(results[1], ZeroDivisionError)
    # An id that is taken may be another process's: it is tried again, but not for ever.
    assert isinstance(results[3], DatabaseUnavailableError)
    assert isinstance(results[3].__cause__, IntegrityError)
    assert world.noted() == ["a", "b", "c", "first"]


def _audited(who: str) -> Callable[[Work], None]:
    return noting(who, "tried", "something", "done")


async def test_a_row_that_cannot_be_added_is_the_failure_of_its_own_change_only(world: World) -> None:
    def of_nothing(work: Work) -> None:
        row = {"operation_id": "op-none", "at": work.now, "kind": "failed", "attempt": 1, "agent_id": None}
        work.insert(INSERT_HISTORY, {**row, "message": "there is no such operation"})

    tasks = await world.together(_audited("a"), of_nothing, _audited("b"), _note("c"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0], results[2], results[3]] == [None, None, "c"]
    assert isinstance(results[1], DatabaseUnavailableError)
    assert isinstance(results[1].__cause__, IntegrityError)
    assert [entry.who for entry in audit_entries(world.store, limit=10)] == ["b", "a"]
    assert world.noted() == ["c", "first"]


async def test_what_was_added_before_is_found_in_the_same_transaction(world: World) -> None:
    def how_many(work: Work) -> int:
        _audited("me")(work)
        return work.connection.execute(select(func.count()).select_from(audit_log)).scalar_one()

    tasks = await world.together(_audited("a"), how_many, _audited("b"), how_many)
    assert await asyncio.gather(*tasks) == [None, 2, None, 4]
    assert world.database.begun == 2


async def test_what_is_added_is_undone_with_the_rest(world: World) -> None:
    def fails(work: Work) -> None:
        _audited("me")(work)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await world.transactions.change(fails)
    assert audit_entries(world.store, limit=10) == []


async def test_a_change_that_fails_undoes_what_it_did(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        await world.transactions.change(_half_done)
    assert world.noted() == []


async def test_more_changes_than_fit_in_one_transaction_are_each_made_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.transactions._MOST", 4)
    names = [f"e-{n}" for n in range(10, 40)]
    await asyncio.gather(*await world.together(*map(_note, names)))
    assert world.database.begun == 1 + 8
    assert world.noted() == [*names, "first"]


async def test_a_database_that_is_locked_is_an_error_for_all_who_wait_and_goes_on_afterwards(
    world: World, database_url: str
) -> None:
    other = Database(database_url)
    with suppress(ZeroDivisionError), other.write() as connection:
        for name in ("a", "b"):
            connection.execute(
                insert(inbox).values(event_id=name, operation_id="o", type="t", received_at=world.store.now())
            )
        tasks = [world.change(_note(name)) for name in ("a", "b")]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        raise ZeroDivisionError
    assert [type(result) for result in results] == [DatabaseUnavailableError] * 2
    assert "locked" in str(results[0])
    assert await world.transactions.change(_note("after")) == "after"
    assert world.noted() == ["after"]
    other.close()


async def test_who_does_not_wait_any_more_changes_nothing_and_holds_up_nobody(world: World) -> None:
    begin = world.together(_note("a"), _note("b"))
    tasks = await _cancelling_the_first_of(begin, world)
    assert await tasks[1] == "b"
    assert world.noted() == ["b", "first"]


async def test_what_can_wait_shares_the_transaction_of_what_cannot(world: World) -> None:
    patient = asyncio.create_task(world.transactions.change(_note("patient"), within_s=0.02))
    await asyncio.sleep(0)
    assert await world.transactions.change(_note("hurried")) == "hurried"
    assert await patient == "patient"
    assert world.database.begun == 1


async def test_what_can_wait_does_not_wait_for_ever(world: World) -> None:
    patient = asyncio.create_task(world.transactions.change(_note("patient"), within_s=0.02))
    await world.clock.advance(0.01)
    assert world.database.begun == 0
    await world.clock.advance(0.01)
    assert await patient == "patient"


async def test_what_is_done_together_is_one_call_for_all_who_wait(world: World) -> None:
    calls: list[list[str]] = []

    def add(work: Work, names: Sequence[str]) -> list[str]:
        calls.append(list(names))
        return [_note(name)(work) for name in names]

    alone, *tasks = await world.together_with(add, ("a", "b", "c"), _note("alone"))
    assert await asyncio.gather(alone, *tasks) == ["alone", "a", "b", "c"]
    assert calls == [["a", "b", "c"]]
    assert world.database.begun == 2


async def test_of_what_is_done_together_a_failure_is_that_of_its_own_item_only(world: World) -> None:
    def add(work: Work, names: Sequence[str]) -> list[str]:
        for name in names:
            (_half_done if name == "b" else _note(name))(work)
        return list(names)

    tasks = await world.together_with(add, ("a", "b", "first", "c"), _note("alone"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [results[0], results[1], results[4]] == ["alone", "a", "c"]
    assert isinstance(results[2], ZeroDivisionError)
    assert isinstance(results[3], DatabaseUnavailableError)
    assert world.noted() == ["a", "alone", "c", "first"]


async def test_what_is_abandoned_is_not_begun(world: World) -> None:
    tasks = [world.change(_note(name)) for name in ("a", "b")]
    await asyncio.sleep(0)  # both are waiting, and nothing has begun
    world.transactions.abandon()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert world.noted() == []


async def test_an_error_outside_of_any_change_reaches_everybody_who_waits(tmp_path: Path) -> None:
    async def away(_function: Callable[[], Any]) -> Any:
        raise StoreError("There are no threads.")

    world = World(tmp_path, f"sqlite:///{tmp_path / 'ktrdr.db'}")
    world.transactions = Transactions(world.store, "here", clock=VirtualClock(), offload=away)
    tasks = [world.change(_note(name)) for name in ("a", "b")]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(result) for result in results] == ["There are no threads."] * 2
    world.store.close()


async def test_many_at_once_lose_nothing_and_do_nothing_twice(world: World) -> None:
    names = [f"e-{n}" for n in range(100, 500)]
    tasks = [world.change(_note(name)) for name in names]
    assert await asyncio.gather(*tasks) == names
    with world.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(inbox)).scalar_one() == 400


async def _cancelling_the_first_of(
    begin: Coroutine[Any, Any, list[asyncio.Task[Any]]], world: World
) -> list[asyncio.Task[Any]]:
    """Cancel the first of the changes that wait before the others get their turn."""
    beginning = asyncio.create_task(begin)
    await eventually(lambda: len(world.transactions._waiting) == 2, "both to wait")
    world.transactions._waiting[0].outcome.cancel()
    return await beginning
