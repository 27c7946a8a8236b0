"""A private RabbitMQ: one that the tests start, and nobody else sees."""

import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

from tests.broker.certificates import Certificates
from tests.broker.erlang_host import ErlangHost
from tests.broker.errors import BrokerFailedError
from tests.broker.management import Management
from tests.broker.node_config import ADMINISTRATOR, NodeConfig, Ports, variables

_READY_WITHIN_S = 90.0
_SHUTDOWN_WITHIN_S = 60.0
_COMMAND_WITHIN_S = 60.0
_SETTLED_WITHIN_S = 30.0
_START_ATTEMPTS = 3
_POLL_S = 0.02

_READY = "Server startup complete"
_PORT_TAKEN = ("eaddrinuse", "dist_port_already_used")

_ALARM = "vm_memory_monitor:set_vm_memory_high_watermark(0.0)"
_EACH_CONNECTION_KNOWS = (
    "rabbit_alarm:get_alarms(),"
    " [catch rabbit_reader:info(Pid, [state]) || Pid <- rabbit_networking:local_connections()]"
)
_NO_ALARM = "vm_memory_monitor:set_vm_memory_high_watermark(0.6)"
_WRITE_DOWN_QUEUES = "[dets:sync(Table) || Table <- dets:all()]"


class PrivateNode:
    """A RabbitMQ node on random ports of 127.0.0.1, with all that it writes in a temporary directory.

    Nothing outside of that is touched, and nothing is left: not after `stop`, nor after the death of this
    process by any cause. A context manager that starts and stops.

    Everything here blocks. In a coroutine, put what takes seconds (`start`, `restart`, `shutdown`, `ctl`)
    into `asyncio.to_thread`.
    """

    def __init__(
        self, config: NodeConfig | None = None, *, name: str = "rabbit", host: ErlangHost | None = None
    ) -> None:
        """Prepare a node.

        Args:
            config: What differs from the defaults.
            name: What comes before ``@localhost`` in the node's name.
            host: Where it lives together with other nodes, and which outlives it; otherwise one of its own.

        Raises:
            BrokerUnavailableError: There is no RabbitMQ on this machine.
        """
        self.name = f"{name}@localhost"
        self.config = config or NodeConfig()
        self._own_host = host is None
        self._host = host or ErlangHost()
        self._directory = self._host.directory / name
        self._directory.mkdir()
        self._certificates = Certificates.make(self._directory) if self.config.tls else None
        self.log = self._directory / "node.log"
        """What the node has said, over all its starts."""
        self.log.touch()
        self._ports = Ports.free()
        self._pid: int | None = None
        self._has_started = False
        self._management: Management | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- life and death ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the node, and return when it is ready: about 4 s on an idle machine.

        Raises:
            BrokerFailedError: It did not become ready.
        """
        for attempt in range(_START_ATTEMPTS):
            said_before = self.log.stat().st_size
            self._launch()
            if self._becomes_ready(said_before):
                self._has_started = True
                return
            said = self._said_since(said_before)
            self.kill()
            # Somebody was faster at the port. A node that was up already must come back where it was.
            port_taken = any(words in said for words in _PORT_TAKEN)
            if self._has_started or not port_taken or attempt == _START_ATTEMPTS - 1:
                raise BrokerFailedError(f"RabbitMQ did not start: {said[-4000:]}")
            self._ports = Ports.free()

    def kill(self, *, settled: bool = True) -> None:
        """Kill the node as ``kill -9`` does, and return when it is gone: some 50 ms. Its data stay.

        Args:
            settled: Let it write down first which quorum queues it has. RabbitMQ 3.10 does so within some
                500 ms by itself, and a queue declared since then never has a leader again: whoever uses it
                waits for ever.
        """
        if settled and self.is_running:
            with suppress(BrokerFailedError):
                self.evaluate(_WRITE_DOWN_QUEUES, within_s=_SETTLED_WITHIN_S)
        if self._pid is not None:
            self._host.guardian.end(self._pid, signal.SIGKILL)
            self._pid = None

    def shutdown(self) -> None:
        """Let the node end by itself, in order: about 6 s. Its data stay.

        Raises:
            BrokerFailedError: It had to be killed.
        """
        if self._pid is not None:
            code = self._host.guardian.end(self._pid, signal.SIGTERM, within_s=_SHUTDOWN_WITHIN_S)
            self._pid = None
            if code != 0:
                raise BrokerFailedError(f"RabbitMQ ended with {code}: {self._said_since(0)[-4000:]}")

    def restart(self) -> None:
        """Kill the node, if it runs, and start it on the same ports with the same data."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Kill the node; remove what it has written, and everything else, unless the host is another's."""
        if self._management is not None:
            self._management.close()
            self._management = None
        if self._own_host:
            self._host.close()
            self._pid = None
        else:
            self.kill()

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._pid is not None and self._host.guardian.exit_code(self._pid) is None

    # --- where it is ------------------------------------------------------------------------------

    @property
    def amqp_port(self) -> int:
        """The port of AMQP without TLS."""
        return self._ports.amqp

    @property
    def stream_port(self) -> int:
        """The port of the stream protocol."""
        return self._ports.stream

    def amqp_url(
        self,
        *,
        user: str = ADMINISTRATOR,
        password: str | None = None,
        vhost: str = "/",
        port: int | None = None,
    ) -> str:
        """Return a URL to connect to.

        Args:
            user: The administrator by default.
            password: The user's name by default.
            vhost: The virtual host.
            port: Another port, such as that of a proxy in between.
        """
        return self._url("amqp", user, password, vhost, port or self._ports.amqp)

    def amqps_url(self, *, user: str = ADMINISTRATOR, password: str | None = None, vhost: str = "/") -> str:
        """Return a URL for TLS, where that is configured; a client must trust `authority`."""
        return self._url("amqps", user, password, vhost, self._ports.amqps)

    @property
    def authority(self) -> Path:
        """The certificate of whoever has signed the node's own."""
        assert self._certificates is not None, "The node is not configured for TLS"
        return self._certificates.authority

    @property
    def management_url(self) -> str:
        """Where the management UI and API are."""
        return f"http://127.0.0.1:{self._ports.management}"

    # --- control ----------------------------------------------------------------------------------

    @property
    def management(self) -> Management:
        """The management API, as administrator."""
        if self._management is None or self._management.url != self.management_url:
            self._management = Management(self.management_url, ADMINISTRATOR, ADMINISTRATOR)
        return self._management

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` and return what it says: a second or more, so prefer `management`.

        Raises:
            BrokerFailedError: It failed.
        """
        return self._run([str(self._host.programs.ctl), "--node", self.name, *arguments])

    def evaluate(self, expression: str, *, within_s: float = _COMMAND_WITHIN_S) -> str:
        """Evaluate an Erlang expression in the node and return the term: 10 ms with ``erl_call``.

        Raises:
            BrokerFailedError: It failed, or took longer.
        """
        if self._host.programs.erl_call is None:
            ctl = [str(self._host.programs.ctl), "--node", self.name, "eval", f"{expression}."]
            return self._run(ctl, within_s=within_s).strip()
        command = [str(self._host.programs.erl_call), "-n", self.name, "-e"]
        said = self._run(command, given=f"{expression}.\n", within_s=within_s)
        if not said.startswith("{ok,"):
            raise BrokerFailedError(f"{expression} failed: {said}")
        return said.strip().removeprefix("{ok,").removesuffix("}").strip()

    def set_memory_alarm(self, on: bool) -> None:
        """Raise the memory alarm, which blocks whoever publishes, or end it, as a restart does too.

        When this returns every connection of the node has been told.
        """
        # Who answers a question has read what was sent to it before.
        self.evaluate(f"{_ALARM if on else _NO_ALARM}, {_EACH_CONNECTION_KNOWS}")

    # --- inside -----------------------------------------------------------------------------------

    def _launch(self) -> None:
        self.config.write(self._directory, self._ports, self._certificates)
        self._pid = self._host.guardian.start([self._host.programs.server], self._environment(), self.log)

    def _environment(self) -> dict[str, str]:
        return {**self._host.environment, **variables(self.name, self._directory, self._ports)}

    def _becomes_ready(self, said_before: int) -> bool:
        end = time.monotonic() + _READY_WITHIN_S
        while _READY not in self._said_since(said_before):
            if not self.is_running or time.monotonic() > end:
                return False
            time.sleep(_POLL_S)
        return True

    def _said_since(self, position: int) -> str:
        with self.log.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")

    def _run(self, command: list[str], given: str = "", within_s: float = _COMMAND_WITHIN_S) -> str:
        try:
            done = subprocess.run(
                command,
                input=given,
                env=self._environment(),
                cwd=self._directory,
                capture_output=True,
                text=True,
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerFailedError(f"{' '.join(command)} did not end within {within_s:g} s") from error
        if done.returncode != 0:
            raise BrokerFailedError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    @staticmethod
    def _url(scheme: str, user: str, password: str | None, vhost: str, port: int) -> str:
        who = f"{quote(user, safe='')}:{quote(user if password is None else password, safe='')}"
        return f"{scheme}://{who}@127.0.0.1:{port}/{quote(vhost, safe='')}"
