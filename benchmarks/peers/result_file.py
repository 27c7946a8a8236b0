"""Where peers without a durable result store keep their results: SQLite, synced at each commit."""

import sqlite3
import threading
from pathlib import Path


class ResultFile:
    """Results by job, for threads and processes; what `store` has returned from survives a crash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connection().execute("CREATE TABLE IF NOT EXISTS results (job TEXT PRIMARY KEY, result BLOB)")

    def store(self, job: str, result: bytes) -> None:
        self._connection().execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (job, result))

    def get(self, job: str) -> bytes | None:
        row = self._connection().execute("SELECT result FROM results WHERE job = ?", (job,)).fetchone()
        return row[0] if row is not None else None

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = prepare_wal(self._path)
            self._local.connection = connection
        return connection


def prepare_wal(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Connect, and have the file in the mode that is quickest of those that lose nothing."""
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=not any_thread)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection
