"""Copies of a SQLite database: made while it is in use, checked, and put back in one step."""

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from pydantic import TypeAdapter

from ktrdr.backend.schema import known_revisions
from ktrdr.backend.sqlite import sqlite_error
from ktrdr.errors import DatabaseUnavailableError, StoreError
from ktrdr.events.references import FileDigest

_BUSY_TIMEOUT_S = 10.0
_FILES = TypeAdapter(dict[str, FileDigest])


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was found to be whole."""

    path: Path
    size_bytes: int
    revision: str
    """Of its schema."""
    operations: int
    models: Mapping[str, Mapping[str, FileDigest]]
    """The files of each version, by the name of the version."""


def back_up(database: Path, target: Path, *, overwrite: bool = False) -> Backup:
    """Copy a database as it is at one moment; others may read and write it meanwhile.

    The copy is one file, checked and on the disk before it has its name.

    Raises:
        StoreError: the target exists and is not to be overwritten.
        DatabaseUnavailableError: the database is damaged or cannot be read, or the target not be written.
        StorageFullError: the disk of the target is full.
    """
    if target.exists() and (not overwrite or target.samefile(database)):
        raise StoreError(f"{target} exists.", fix="Name another file, or say --overwrite.")
    with _copied(database, target) as part:
        found = inspect_backup(part)
    return replace(found, path=target)


def inspect_backup(path: Path) -> Backup:
    """Return what a copy holds, after every page of it was checked.

    Raises:
        StoreError: it is none, or was made by a newer version of this program.
        DatabaseUnavailableError: it is missing or damaged.
    """
    if not path.is_file():
        raise DatabaseUnavailableError(f"There is no file {path}.", fix="Name a file of `ktrdr db backup`.")
    with _errors_of(path), closing(_open(path, "ro")) as copy:
        problems = [str(row[0]) for row in copy.execute("PRAGMA integrity_check(3)")]
        if problems != ["ok"]:
            raise DatabaseUnavailableError(
                f"{path} is damaged: {'; '.join(problems)}.", fix="Use another backup."
            )
        tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        revisions = (
            copy.execute("SELECT version_num FROM alembic_version").fetchall()
            if tables >= {"alembic_version", "operations", "models"}
            else []
        )
        if len(revisions) != 1:
            raise StoreError(f"{path} is no database of ktrdr.", fix="Name a file of `ktrdr db backup`.")
        (revision,) = revisions[0]
        if revision not in known_revisions():
            raise StoreError(
                f"{path} has the schema '{revision}', which this version of ktrdr does not know.",
                fix="Upgrade ktrdr first.",
            )
        (operations,) = copy.execute("SELECT count(*) FROM operations").fetchone()
        rows = copy.execute("SELECT path, files FROM models ORDER BY path").fetchall()
    models = {name: _FILES.validate_json(files) for name, files in rows}
    return Backup(path, path.stat().st_size, revision, operations, models)


def restore(backup: Path, database: Path, *, now: datetime) -> tuple[Backup, Path | None]:
    """Put what a copy holds in the place of what a database holds, in one transaction.

    Nobody may be carrying operations meanwhile; who reads sees the one or the other.

    Returns:
        What was put there, and the file in which the database is kept as it was before, if there was one.

    Raises:
        StoreError: the file is no copy of a database that this program knows.
        DatabaseUnavailableError: the file is missing or damaged, or the database locked or not to be written.
        StorageFullError: the disk is full; the database is as it was.
    """
    found = inspect_backup(backup)
    if database.exists() and backup.samefile(database):
        raise StoreError(f"{backup} is the database itself.", fix="Name a file of `ktrdr db backup`.")
    database.parent.mkdir(parents=True, exist_ok=True)
    kept = _keep(database, now) if database.exists() else None
    with _errors_of(database), closing(_open(database, "rwc")) as live, closing(_open(backup, "ro")) as copy:
        copy.backup(live)
    _sync(database)
    _sync(database.parent)
    return found, kept


def _keep(database: Path, now: datetime) -> Path:
    """Keep what is there under another name; what is damaged cannot be copied, and goes as it is."""
    kept = database.with_name(f"{database.name}.before-{now:%Y%m%dT%H%M%S.%fZ}")
    if _is_sound(database):
        with _copied(database, kept):
            return kept
    for suffix in ("", "-wal", "-shm"):
        part = database.with_name(database.name + suffix)
        if part.exists():
            part.replace(kept.with_name(kept.name + suffix))
    return kept


def _is_sound(database: Path) -> bool:
    try:
        with closing(_open(database, "rw")) as live:
            (found,) = live.execute("PRAGMA quick_check(1)").fetchone()
        return str(found) == "ok"
    except sqlite3.Error as error:
        if error.sqlite_errorname.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return False
        raise sqlite_error(error, str(database), database, _BUSY_TIMEOUT_S) from error


@contextmanager
def _copied(database: Path, target: Path) -> Iterator[Path]:
    """Copy a database, and give the copy its name when nothing speaks against it; yield it before."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.touch()
    except OSError as error:
        raise _not_written(target, error) from error
    try:
        with _errors_of(part), closing(_open(part, "rwc")) as copy:
            with _errors_of(database), closing(_open(database, "rw")) as live:
                live.backup(copy)
            # One file is what one can carry away: no log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        shutil.copymode(database, part)
        yield part
        _sync(part)
        part.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise _not_written(target, error) from error
    finally:
        part.unlink(missing_ok=True)


def _not_written(target: Path, error: OSError) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"{target} cannot be written: {error.strerror}.", fix="Name a file in a directory that is yours."
    )


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}", uri=True, timeout=_BUSY_TIMEOUT_S
    )


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise sqlite_error(error, str(path), path, _BUSY_TIMEOUT_S) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
