import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Insert, insert, select, text
from sqlalchemy.exc import IntegrityError, StatementError

import ktrdr.backend.schema
from ktrdr.backend.database import Database
from ktrdr.backend.schema import HEAD, SchemaStatus, ensure_schema, schema_status
from ktrdr.backend.tables import inbox, metadata, operation_history
from ktrdr.errors import DatabaseUnavailableError, SettingsError, StorageFullError, StoreError
from tests.small_disk import fill

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(_url(tmp_path / "ktrdr.db"), busy_timeout_s=0.2)
    ensure_schema(database)
    yield database
    database.close()


def _row(event_id: str, at: datetime = MOMENT) -> Insert:
    return insert(inbox).values(event_id=event_id, operation_id="o", type="t", received_at=at)


def _note(database: Database, event_id: str, at: datetime = MOMENT) -> None:
    with database.write() as connection:
        connection.execute(_row(event_id, at))


def _notes(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(inbox.c.event_id)).scalars())


# --- the schema


def _differences(database: Database) -> object:
    """Return in what the tables differ from those of the code."""
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata)


def test_an_empty_database_gets_exactly_the_tables_of_the_code(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    assert schema_status(database).revision is None
    ensure_schema(database)
    assert schema_status(database) == SchemaStatus(HEAD, ())
    assert _differences(database) == []
    database.close()


def test_the_migrations_make_the_same_of_the_first_version(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with database.upgrading() as connection:
        config = ktrdr.backend.schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    before = schema_status(database)
    assert (before.revision, before.is_current, before.pending[-1]) == ("0001", False, HEAD)
    ensure_schema(database)
    assert schema_status(database) == SchemaStatus(HEAD, ())
    assert _differences(database) == []
    database.close()


def test_the_head_in_the_code_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(ktrdr.backend.schema.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_a_database_that_is_up_to_date_does_not_import_alembic(database: Database) -> None:
    script = (
        "import sys; from ktrdr.backend.database import Database;"
        "from ktrdr.backend.schema import ensure_schema;"
        f"ensure_schema(Database({database.name!r})); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.slow
def test_processes_that_start_at_once_on_a_new_database_all_succeed(tmp_path: Path) -> None:
    script = (
        "import sys; from ktrdr.backend.database import Database;"
        "from ktrdr.backend.schema import ensure_schema;"
        "print('ready', flush=True); sys.stdin.readline();"
        f"d = Database({_url(tmp_path / 'new' / 'ktrdr.db')!r}); ensure_schema(d); d.close()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")


def test_an_upgrade_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    database = Database(_url(tmp_path / "ktrdr.db"))
    with database.write() as connection:
        connection.execute(text("CREATE TABLE operation_history (in_the_way INTEGER)"))
    with pytest.raises(DatabaseUnavailableError, match="already exists"):
        ensure_schema(database)
    with database.read() as connection:
        names = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
    assert names == {"operation_history"}
    database.close()


def test_a_database_of_a_newer_program_is_refused(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="9999") as error:
        ensure_schema(database)
    assert "Upgrade ktrdr" in (error.value.fix or "")


# --- transactions


def test_an_error_undoes_the_whole_transaction(database: Database) -> None:
    def fail_after_writing() -> None:
        with database.write() as connection:
            connection.execute(_row("a"))
            raise LookupError

    with pytest.raises(LookupError):
        fail_after_writing()
    assert _notes(database) == []


def test_a_commit_is_forced_to_the_disk_and_readers_do_not_wait_for_writers(database: Database) -> None:
    _note(database, "a")
    with database.write() as writing:
        writing.execute(_row("b"))
        assert _notes(database) == ["a"]
        assert writing.execute(text("PRAGMA synchronous")).scalar_one() == 2
        assert writing.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert writing.execute(text("PRAGMA foreign_keys")).scalar_one() == 1


def test_writers_in_several_threads_wait_for_each_other(tmp_path: Path) -> None:
    database = Database(_url(tmp_path / "ktrdr.db"))
    ensure_schema(database)

    def write_some(who: int) -> None:
        for number in range(20):
            _note(database, f"{who}-{number}")

    threads = [threading.Thread(target=write_some, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_notes(database)) == 160
    database.close()


def test_moments_come_back_as_aware_utc(database: Database) -> None:
    _note(database, "a", MOMENT.astimezone(timezone(timedelta(hours=5))))
    with database.read() as connection:
        moment = connection.execute(select(inbox.c.received_at)).scalar_one()
    assert moment == MOMENT
    assert moment.tzinfo is UTC


def test_a_moment_without_a_time_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="no time zone"):
        _note(database, "a", datetime(2026, 1, 1))  # noqa: DTZ001 - it is the point


# --- noticing what others commit


def test_a_commit_of_another_process_is_noticed_and_only_once(database: Database) -> None:
    watch = database.watch_commits()
    assert watch.changed()
    assert not watch.changed()
    other = Database(database.name)
    _note(other, "a")
    other.close()
    assert watch.changed()
    assert not watch.changed()
    watch.close()


def test_one_s_own_commit_is_noticed_but_not_a_reading(database: Database) -> None:
    watch = database.watch_commits()
    watch.changed()
    _notes(database)
    assert not watch.changed()
    _note(database, "a")
    assert watch.changed()
    watch.close()


# --- what can be wrong with a database


def test_a_database_that_another_process_holds_is_named_as_locked(database: Database) -> None:
    other = sqlite3.connect(database.name.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailableError, match="locked by another process"):
        _note(database, "a")
    other.execute("ROLLBACK")
    other.close()
    _note(database, "a")


def test_a_thread_that_holds_the_database_too_long_is_no_deadlock(database: Database) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    with pytest.raises(DatabaseUnavailableError, match="locked"):
        _note(database, "a")
    leave.set()
    thread.join()
    _note(database, "a")


def test_a_file_that_is_no_database_is_named_as_damaged(tmp_path: Path) -> None:
    (tmp_path / "ktrdr.db").write_bytes(b"this is not a database, it is a letter to my aunt " * 100)
    database = Database(_url(tmp_path / "ktrdr.db"))
    with pytest.raises(DatabaseUnavailableError, match="is damaged") as error:
        ensure_schema(database)
    assert "restore a backup" in (error.value.fix or "")
    database.close()


def test_a_database_with_a_torn_page_is_named_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ktrdr.db"
    database = Database(_url(path))
    ensure_schema(database)
    for number in range(200):
        _note(database, f"event-{number:04d}-{'x' * 200}")
    database.close()
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = os.urandom(len(content) - 4096 * 3)
    path.write_bytes(content)

    def use() -> None:
        ensure_schema(database)
        _notes(database)

    with pytest.raises(DatabaseUnavailableError, match="is damaged"):
        use()
    database.close()


def test_a_database_that_cannot_be_written_can_be_read(database: Database) -> None:
    _note(database, "a")
    path = database.name.removeprefix("sqlite:///")
    read_only = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert _notes(read_only) == ["a"]
    with pytest.raises(DatabaseUnavailableError, match="cannot be written") as error:
        _note(read_only, "b")
    assert "KTRDR_HOME" in (error.value.fix or "")
    read_only.close()


@pytest.mark.fault
def test_a_full_disk_is_named_and_work_goes_on_when_there_is_space(small_disk: Path) -> None:
    database = Database(_url(small_disk / "ktrdr.db"))
    ensure_schema(database)
    _note(database, "before")
    filler = fill(small_disk)

    def write_much() -> None:
        for number in range(1000):
            _note(database, f"{number:04d}{'x' * 1000}")

    with pytest.raises(StorageFullError, match="disk of the database"):
        write_much()
    kept = _notes(database)
    filler.unlink()
    _note(database, "after")
    assert _notes(database) == sorted([*kept, "after"])
    database.close()


def test_a_missing_database_is_made_only_when_it_may_be(tmp_path: Path) -> None:
    url = _url(tmp_path / "deep" / "down" / "ktrdr.db")
    with pytest.raises(DatabaseUnavailableError, match="no operations database"):
        Database(url, create=False)
    assert list(tmp_path.iterdir()) == []
    Database(url).close()
    assert (tmp_path / "deep" / "down").is_dir()


def test_a_home_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(DatabaseUnavailableError, match="cannot be made") as error:
        Database(_url(tmp_path / "home" / "ktrdr.db"))
    assert "KTRDR_HOME" in (error.value.fix or "")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("no url at all", "cannot be read"),
        ("nosuchengine://host/db", "cannot be used"),
        ("sqlite://", "ends with the process"),
        ("sqlite:///:memory:", "ends with the process"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_wrong_setting(url: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Database(url)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        Database("nosuchengine://user:secret@host/db")
    assert "secret" not in str(error.value)


def test_foreign_keys_hold(database: Database) -> None:
    entry = insert(operation_history).values(
        operation_id="nobody", at=MOMENT, kind="x", attempt=1, message=""
    )
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), database.write() as connection:
        connection.execute(entry)
