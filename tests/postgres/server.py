"""A private PostgreSQL: one that the tests start, and nobody else sees."""

import os
import secrets
import signal
import time
from pathlib import Path
from typing import Self

from tests.broker.guardian import Guardian
from tests.broker.ports import free_ports
from tests.postgres.errors import PostgresFailedError
from tests.postgres.programs import find_programs

_READY_WITHIN_S = 60.0
_POLL_S = 0.01
_READY = "database system is ready to accept connections"
_PORT_TAKEN = "could not bind"
# The processes of one that was killed end by themselves, a moment later.
_NOT_GONE = "is still in use"
# A test may kill the server, but pulls no plug: what the system has was not lost.
_FORGETFUL = {"fsync": "off", "full_page_writes": "off"}
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "autovacuum": "off",
    "jit": "off",
    "deadlock_timeout": "100ms",
    # Nothing outside of the directory.
    "dynamic_shared_memory_type": "mmap",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PrivatePostgres:
    """A PostgreSQL on a random port of 127.0.0.1, with all that it writes in a temporary directory.

    Nothing outside of that is touched, and nothing is left: not after `stop`, nor after the death of this
    process by any cause. Who connects has to show a password. A context manager that starts and stops.
    """

    def __init__(self, *, durable: bool = False) -> None:
        """Prepare a server.

        Args:
            durable: whether what is committed also survives a failure of power, which takes longer.

        Raises:
            PostgresUnavailableError: There is no PostgreSQL on this machine.
        """
        self._programs = find_programs()
        self._settings = _SETTINGS if durable else {**_SETTINGS, **_FORGETFUL}
        # SIGQUIT: end at once, but leave no shared memory.
        self._guardian = Guardian("postgres", user=self._programs.user, last_signal=signal.SIGQUIT)
        self.directory = self._guardian.directory
        """Where everything of it is."""
        self._log = self.directory / "postgres.log"
        self._password = secrets.token_urlsafe(12)
        self._pid: int | None = None
        (self._port,) = free_ports(1)
        self._has_started = False

    def __enter__(self) -> Self:
        try:
            self._make_cluster()
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where to connect to, as a user who may do everything."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start the server, and return when it is ready.

        Raises:
            PostgresFailedError: It did not become ready.
        """
        end = time.monotonic() + _READY_WITHIN_S
        while True:
            said_before = self._log.stat().st_size
            self._pid = self._guardian.start(self._command(), self._environment(), self._log)
            if self._becomes_ready(said_before):
                self._has_started = True
                return
            said = self._said_since(said_before)
            self.kill()
            # Somebody was faster at the port. A server that was up already must come back where it was.
            port_taken = _PORT_TAKEN in said and not self._has_started
            if not (port_taken or _NOT_GONE in said) or time.monotonic() > end:
                raise PostgresFailedError(f"PostgreSQL did not start: {said[-4000:]}")
            if port_taken:
                (self._port,) = free_ports(1)

    def kill(self) -> None:
        """Kill the server as ``kill -9`` does, and return when it is gone. Its data stay."""
        if self._pid is not None:
            self._guardian.end(self._pid, signal.SIGKILL)
            self._pid = None

    def stop(self) -> None:
        """End the server, and remove what it has written."""
        self._guardian.close()
        self._pid = None

    def _make_cluster(self) -> None:
        password_file = self.directory / "password"
        password_file.write_text(self._password)
        if self._programs.user is not None:
            password_file.chmod(0o644)  # in a directory that is the user's alone
        command: list[str | Path] = [
            self._programs.initdb,
            f"--pgdata={self.directory / 'data'}",
            f"--pwfile={password_file}",
            "--username=postgres",
            # As good as any on this machine alone, and the quickest that asks for one.
            "--auth=password",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        pid = self._guardian.start(command, self._environment(), self._log)
        end = time.monotonic() + _READY_WITHIN_S
        while (code := self._guardian.exit_code(pid)) is None and time.monotonic() < end:
            time.sleep(_POLL_S)
        if code != 0:
            raise PostgresFailedError(f"initdb did not make a cluster: {self._said_since(0)[-4000:]}")

    def _command(self) -> list[str | Path]:
        settings = {**self._settings, "port": str(self._port)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [self._programs.postgres, "-D", self.directory / "data", *options]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(self.directory)}

    def _becomes_ready(self, said_before: int) -> bool:
        assert self._pid is not None
        end = time.monotonic() + _READY_WITHIN_S
        while _READY not in self._said_since(said_before):
            if self._guardian.exit_code(self._pid) is not None or time.monotonic() > end:
                return False
            time.sleep(_POLL_S)
        return True

    def _said_since(self, position: int) -> str:
        with self._log.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")
