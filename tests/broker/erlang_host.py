"""What the nodes of one private broker share: a directory, a home with a cookie, and a name server."""

import os
import secrets
import signal
import socket
import time
from pathlib import Path

from tests.broker.errors import BrokerFailedError
from tests.broker.guardian import Guardian
from tests.broker.ports import free_ports
from tests.broker.programs import find_programs

_EPMD_WITHIN_S = 60.0
_POLL_S = 0.01


class ErlangHost:
    """A temporary directory and an epmd of its own, out of sight of every other Erlang on the machine.

    epmd would otherwise be started by the first node as a daemon, and outlive it.
    """

    def __init__(self) -> None:
        self.programs = find_programs()
        self.guardian = Guardian()
        self.directory: Path = self.guardian.directory
        (self.epmd_port,) = free_ports(1)
        home = self.directory / "home"
        home.mkdir()
        cookie = home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        """All that processes on this host see of the world."""
        self._start_epmd()

    def close(self) -> None:
        """Kill everything here and remove the directory."""
        self.guardian.close()

    def _start_epmd(self) -> None:
        log = self.directory / "epmd.log"
        command: list[str | Path] = [
            self.programs.epmd,
            "-port",
            str(self.epmd_port),
            "-address",
            "127.0.0.1",
        ]
        pid = self.guardian.start(command, self.environment, log)
        end = time.monotonic() + _EPMD_WITHIN_S
        while not _answers(self.epmd_port):
            if self.guardian.exit_code(pid) is not None or time.monotonic() > end:
                self.guardian.end(pid, signal.SIGKILL)
                said = log.read_text()
                self.close()
                raise BrokerFailedError(f"epmd did not start: {said}")
            time.sleep(_POLL_S)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
