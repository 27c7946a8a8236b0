"""Transactions that share a sync of the disk are as safe from each other as if they did not."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from ktrdr.backend.database import Database
from ktrdr.backend.schema import ensure_schema
from ktrdr.backend.tables import inbox
from ktrdr.errors import DatabaseUnavailableError
from tests.contract.virtual_clock import VirtualClock


class Counted(Database):
    """Counts commits, and can be held up in one."""

    def __init__(self, url: str, **options: Any) -> None:
        self.begun = 0
        self.gate: threading.Event | None = None
        self.waits = threading.Event()
        super().__init__(url, **options)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        self.begun += 1
        with super().write() as connection:
            yield connection
            if self.gate is not None:
                self.waits.set()
                assert self.gate.wait(20)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Counted]:
    database = Counted(f"sqlite:///{tmp_path / 'ktrdr.db'}", busy_timeout_s=5.0)
    ensure_schema(database)
    database.begun = 0
    yield database
    database.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as threads:
        yield threads


def _note(name: str) -> Callable[[Connection], str]:
    def action(connection: Connection) -> str:
        row = {"event_id": name, "operation_id": "o", "type": "t", "received_at": VirtualClock().now()}
        connection.execute(insert(inbox), row)
        return name

    return action


def _count(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(inbox)).scalar_one()


def _together(
    database: Counted, threads: ThreadPoolExecutor, actions: list[Callable[[Connection], Any]]
) -> list[Future[Any]]:
    """Run actions that all wait while one is being committed, and so come in one transaction."""
    database.gate = threading.Event()
    first = threads.submit(database.transact, _note("first"))
    assert database.waits.wait(20)
    futures = [threads.submit(database.transact, action) for action in actions]
    group = database._group
    while len(group._waiting) < len(actions):
        threading.Event().wait(0.001)
    gate, database.gate = database.gate, None
    gate.set()
    first.result(20)
    return futures


def test_actions_that_wait_at_the_same_moment_share_one_commit(
    database: Counted, threads: ThreadPoolExecutor
) -> None:
    futures = _together(database, threads, [_note(f"e-{n}") for n in range(30)])
    assert [future.result(20) for future in futures] == [f"e-{n}" for n in range(30)]
    assert database.begun == 2
    assert _count(database) == 31


def test_an_action_alone_has_its_own(database: Counted) -> None:
    assert database.transact(_note("a"), alone=True) == "a"
    assert database.transact(_note("b")) == "b"
    assert database.begun == 2


def test_a_failure_is_that_of_its_own_action_only(database: Counted, threads: ThreadPoolExecutor) -> None:
    def broken(connection: Connection) -> None:
        _note("half-done")(connection)
        raise ZeroDivisionError("a defect")

    futures = _together(database, threads, [_note("a"), broken, _note("b"), _note("first"), _note("c")])
    assert futures[0].result(20) == "a"
    with pytest.raises(ZeroDivisionError):
        futures[1].result(20)
    assert futures[2].result(20) == "b"
    with pytest.raises(IntegrityError):
        futures[3].result(20)
    assert futures[4].result(20) == "c"
    with database.read() as connection:
        assert set(connection.execute(select(inbox.c.event_id)).scalars()) == {"first", "a", "b", "c"}


def test_an_action_that_fails_alone_fails_and_undoes_what_it_did(database: Counted) -> None:
    def broken(connection: Connection) -> None:
        _note("half-done")(connection)
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        database.transact(broken)
    assert database.begun == 1
    assert _count(database) == 0


def test_more_actions_than_fit_in_one_transaction_are_each_run_once(
    database: Counted, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
) -> None:
    monkeypatch.setattr("ktrdr.backend.group_commit._MOST", 4)
    futures = _together(database, threads, [_note(f"e-{n}") for n in range(30)])
    assert {future.result(20) for future in futures} == {f"e-{n}" for n in range(30)}
    assert _count(database) == 31


def test_who_waits_too_long_gives_up_and_its_action_is_never_run(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    database = Counted(f"sqlite:///{tmp_path / 'ktrdr.db'}", busy_timeout_s=0.2)
    ensure_schema(database)
    database.gate = threading.Event()
    first = threads.submit(database.transact, _note("first"))
    assert database.waits.wait(20)
    with pytest.raises(DatabaseUnavailableError, match="locked"):
        database.transact(_note("late"))
    gate, database.gate = database.gate, None
    gate.set()
    first.result(20)
    database.transact(_note("after"))
    assert _count(database) == 2
    database.close()


def test_many_threads_lose_nothing_and_do_nothing_twice(
    database: Counted, threads: ThreadPoolExecutor
) -> None:
    futures = [threads.submit(database.transact, _note(f"e-{n}")) for n in range(400)]
    assert {future.result(60) for future in futures} == {f"e-{n}" for n in range(400)}
    assert _count(database) == 400
    assert database.begun <= 400
