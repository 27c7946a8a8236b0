"""The operations database on PostgreSQL: what is different from SQLite, and what can be wrong with it."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, insert, make_url, select, text, update

from ktrdr.backend.database import Database
from ktrdr.backend.schema import ensure_schema, schema_status
from ktrdr.backend.server_instances import ServerInstances
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import inbox
from ktrdr.backend.work import Work
from ktrdr.errors import DatabaseUnavailableError, SettingsError, StoreError
from tests.broker.ports import free_ports
from tests.e2e.waiting import eventually
from tests.postgres.server import PrivatePostgres
from tests.unit.backend_cases import settings_in

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("postgres")]

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
WITHIN_S = 60.0


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url, busy_timeout_s=0.3)
    yield database
    database.close()


def _note(connection: Connection, event_id: str, kind: str = "t") -> None:
    connection.execute(
        insert(inbox).values(event_id=event_id, operation_id="o", type=kind, received_at=MOMENT)
    )


def _notes(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(inbox.c.event_id).order_by(inbox.c.event_id)).scalars())


# --- the schema


def test_who_starts_at_once_on_an_empty_database_all_succeed(empty_postgres_url: str) -> None:
    databases = [Database(empty_postgres_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ensure_schema, databases))
    assert schema_status(databases[0]).is_current
    for database in databases:
        database.close()


def test_an_upgrade_that_fails_leaves_nothing_behind(empty_postgres_url: str) -> None:
    database = Database(empty_postgres_url)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE operation_history (in_the_way INTEGER)"))
    with pytest.raises(StoreError, match="already exists"):
        ensure_schema(database)
    with database.read() as connection:
        query = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert set(connection.execute(query).scalars()) == {"operation_history"}
    database.close()


# --- transactions


def test_a_reading_sees_one_state_and_cannot_write(database: Database) -> None:
    with database.read() as reading:
        assert reading.execute(select(inbox.c.event_id)).all() == []
        with database.write() as writing:
            _note(writing, "a")
        assert reading.execute(select(inbox.c.event_id)).all() == []
    assert _notes(database) == ["a"]
    with pytest.raises(DatabaseUnavailableError, match="cannot be written"), database.read() as reading:
        _note(reading, "b")


def test_of_two_that_wait_for_each_other_one_is_repeated(
    database: Database, postgres_url: str, tmp_path: Path
) -> None:
    meeting, tries = threading.Barrier(2), list[str]()

    def touching(first: str, second: str) -> Callable[[Work], None]:
        def action(work: Work) -> None:
            tries.append(first)
            work.connection.execute(update(inbox).where(inbox.c.event_id == first).values(type=first))
            if tries.count(first) == 1:
                meeting.wait(WITHIN_S)
            work.connection.execute(update(inbox).where(inbox.c.event_id == second).values(type=first))

        return action

    with OperationStore.open(settings_in(tmp_path, database_url=postgres_url)) as store:
        for name in ("a", "b"):
            store.change(lambda work, name=name: _note(work.connection, name))  # type: ignore[misc]
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(store.change, [touching("a", "b"), touching("b", "a")]))
    with database.read() as connection:
        kinds = list(connection.execute(select(inbox.c.type)).scalars())
    # What is repeated may be faster than the other that wakes, and wait for it once more.
    assert len(tries) > 2
    assert kinds in (["a", "a"], ["b", "b"])


def test_text_that_postgresql_has_no_place_for_is_kept_as_near_as_it_can_be(database: Database) -> None:
    with database.write() as connection:
        _note(connection, "a\0b", "naïve ✓")
        assert connection.execute(select(inbox.c.type)).scalar_one() == "naïve ✓"
    assert _notes(database) == ["a\ufffdb"]


def test_a_commit_of_another_is_noticed_and_only_once_but_no_reading(
    database: Database, postgres_url: str
) -> None:
    watch = database.watch_commits()
    assert watch.changed()
    assert not watch.changed()
    _notes(database)
    other = Database(postgres_url)
    with other.write() as connection:
        _note(connection, "a")
        assert not watch.changed()
    assert watch.changed()
    assert not watch.changed()
    watch.close()
    other.close()


# --- who is alive


@pytest.mark.fault
def test_a_process_is_alive_on_every_machine_until_it_is_killed(
    database: Database, postgres_url: str
) -> None:
    script = (
        "import sys; from ktrdr.backend.database import Database;"
        "from ktrdr.backend.server_instances import ServerInstances;"
        f"lock = ServerInstances(Database({postgres_url!r})).register('broker');"
        "print('there', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        instances = ServerInstances(database)
        assert instances.is_alive("broker")
        assert not instances.is_alive("another")
        with pytest.raises(StoreError, match="is the instance broker"):
            instances.register("broker")
        process.kill()
        process.wait()
    lock = instances.register("broker")
    assert instances.is_alive("broker")
    lock.release()
    # The server sees a little later that a connection is closed.
    eventually(
        lambda: not instances.is_alive("broker"), within_s=WITHIN_S, otherwise="it is alive after its end"
    )


def test_nobody_counts_as_gone_right_after_the_server_was_started(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = ServerInstances(database)
    monkeypatch.setattr("ktrdr.backend.server_instances.RESTART_GRACE_S", 1e9)
    assert not instances.is_gone("unknown")
    monkeypatch.setattr("ktrdr.backend.server_instances.RESTART_GRACE_S", 0.0)
    assert instances.is_gone("unknown")


@pytest.mark.fault
def test_connections_that_the_server_has_ended_meanwhile_are_made_anew(
    database: Database, postgres_url: str
) -> None:
    def use_three_at_once(name: str) -> None:
        with database.write() as writing, database.read() as reading, database.look_up() as looking_up:
            _note(writing, name)
            for connection in (reading, looking_up):
                connection.execute(select(inbox.c.event_id)).all()

    use_three_at_once("before")
    with psycopg.connect(postgres_url, autocommit=True) as other:
        theirs = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert len(other.execute(f"SELECT pg_terminate_backend(pid) {theirs}").fetchall()) == 3
        eventually(
            lambda: not other.execute(f"SELECT pid {theirs}").fetchall(),
            within_s=WITHIN_S,
            otherwise="the server goes on with them",
        )
    use_three_at_once("after")
    assert _notes(database) == ["after", "before"]


def test_a_server_that_is_killed_and_comes_back_is_used_again(tmp_path: Path) -> None:
    with PrivatePostgres() as server:
        settings = settings_in(tmp_path, database_url=server.url)
        with OperationStore.open(settings) as store:
            lock = store.instances.register("me")
            store.change(lambda work: _note(work.connection, "before"))
            server.kill()
            with pytest.raises(DatabaseUnavailableError, match="does not answer"):
                store.change(lambda work: _note(work.connection, "lost"))
            with pytest.raises(DatabaseUnavailableError):
                lock.renew()
            server.start()
            store.change(lambda work: _note(work.connection, "after"))
            assert not store.instances.is_alive("me")
            lock.renew()
            assert store.instances.is_alive("me")
            lock.release()
        database = Database(server.url)
        assert _notes(database) == ["after", "before"]
        database.close()


# --- what can be wrong with it


def _opening(url: str) -> StoreError:
    database = Database(url)
    with pytest.raises(DatabaseUnavailableError) as error:
        ensure_schema(database)
    database.close()
    return error.value


def test_a_wrong_password_is_told_and_not_shown(postgres_url: str) -> None:
    error = _opening(make_url(postgres_url).set(password="s3cret").render_as_string(hide_password=False))
    assert "refuses this user or its password" in error.message
    assert "s3cret" not in f"{error} {error.__cause__}"
    error = _opening(postgres_url.replace("@", "x@") + "?application_name=it&password=s3cret")
    assert "s3cret" not in str(error)


def test_a_database_that_is_not_there_is_told(postgres_url: str) -> None:
    error = _opening(make_url(postgres_url).set(database="nowhere").render_as_string(hide_password=False))
    assert "There is no database" in error.message
    assert "createdb" in (error.fix or "")


def test_a_server_that_is_away_is_told(postgres_url: str) -> None:
    (port,) = free_ports(1)
    error = _opening(make_url(postgres_url).set(port=port).render_as_string(hide_password=False))
    assert "does not answer" in error.message
    assert str(make_url(postgres_url).password) not in str(error)


def test_a_user_who_may_not_make_tables_is_told_what_to_do(empty_postgres_url: str) -> None:
    with psycopg.connect(empty_postgres_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE ktrdr_test_weak LOGIN PASSWORD 'weak'")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    weak = make_url(empty_postgres_url).set(username="ktrdr_test_weak", password="weak")
    try:
        error = _opening(weak.render_as_string(hide_password=False))
    finally:
        with psycopg.connect(empty_postgres_url, autocommit=True) as connection:
            connection.execute("DROP ROLE ktrdr_test_weak")
    assert "may not do that" in error.message
    assert "ktrdr db upgrade" in (error.fix or "")


def test_a_database_of_a_newer_program_is_refused(empty_postgres_url: str) -> None:
    database = Database(empty_postgres_url)
    ensure_schema(database)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="9999"):
        ensure_schema(database)
    database.close()


def test_rows_that_another_holds_too_long_are_an_error_and_no_hang(
    database: Database, postgres_url: str
) -> None:
    other = Database(postgres_url)
    with other.write() as holding:
        _note(holding, "a")
        with (
            pytest.raises(DatabaseUnavailableError, match="locked by another transaction"),
            database.write() as waiting,
        ):
            _note(waiting, "a")
    other.close()


def test_a_url_of_another_engine_or_with_a_secret_option_shows_no_secret() -> None:
    with pytest.raises(SettingsError, match="not supported") as error:
        Database("mysql://user:s3cret@host/ktrdr")
    assert "s3cret" not in str(error.value)
    assert "s3cret" not in Database("postgresql://user@host/ktrdr?password=s3cret").name


def test_settings_do_not_show_the_password(postgres_url: str, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, database_url=postgres_url)
    assert str(make_url(postgres_url).password) not in repr(settings)
    assert settings.database == postgres_url
