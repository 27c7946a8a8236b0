"""What a careful user of a job queue would write for models: operations in SQLite, versions on disk."""

import hashlib
import os
import sqlite3
import threading
import uuid
from pathlib import Path

from benchmarks.peers.result_file import prepare_wal

_FILES = ("model.safetensors", "metadata.json", "strategy.yaml", "evaluation.parquet")
_FILE_BYTES = 512


class ModelStore:
    """Operations and model versions; each step is safe on the disk when its method returns."""

    def __init__(self, database: Path) -> None:
        self._path = database
        self._models = database.with_suffix(".models")
        self._models.mkdir(exist_ok=True)
        self._local = threading.local()
        self._connection().execute(
            "CREATE TABLE IF NOT EXISTS operations "
            "(id TEXT PRIMARY KEY, state TEXT, request TEXT, worker TEXT, version INTEGER UNIQUE)"
        )

    def submit(self, request: str) -> str:
        """Record an operation before it is published."""
        operation = uuid.uuid4().hex
        self._change("INSERT INTO operations VALUES (?, 'pending', ?, NULL, NULL)", operation, request)
        return operation

    def published(self, operation: str) -> None:
        """Record that the broker has it."""
        self._change("UPDATE operations SET state = 'queued' WHERE id = ? AND state = 'pending'", operation)

    def accept(self, operation: str) -> bool:
        """Record who runs it; False if it is done already."""
        sql = "UPDATE operations SET state = 'running', worker = ? WHERE id = ? AND state <> 'completed'"
        return self._change(sql, str(os.getpid()), operation) == 1

    def persist(self, operation: str) -> None:
        """Write the model's files, and give them their version in one transaction, unless there is one."""
        staged = self._models / f".{operation}"
        staged.mkdir()
        files = {name: hashlib.sha256(name.encode()).digest() * (_FILE_BYTES // 32) for name in _FILES}
        sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\\n" for name, data in files.items())
        for name, data in {**files, "SHA256SUMS": sums.encode()}.items():
            _write(staged / name, data)
        _sync(staged)
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            (newest,) = connection.execute("SELECT coalesce(max(version), 0) FROM operations").fetchone()
            done = connection.execute(
                "UPDATE operations SET state = 'completed', version = ? "
                "WHERE id = ? AND state <> 'completed'",
                (newest + 1, operation),
            )
            if done.rowcount:
                staged.rename(self._models / f"v{newest + 1}")
                _sync(self._models)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _change(self, statement: str, *values: str) -> int:
        return self._connection().execute(statement, values).rowcount

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = prepare_wal(self._path)
        return connection


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
