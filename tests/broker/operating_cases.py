"""An operator at a terminal: the commands, on a prefix of its own of a real broker."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.bus.rabbitmq_arguments import wire_name
from ktrdr.bus.topology import BACKEND_EVENTS, EVENTS, shared_topology
from ktrdr.cli.main import app
from ktrdr.events.message import Message
from tests.broker.node import PrivateNode
from tests.e2e.waiting import eventually


@dataclass(frozen=True)
class Operator:
    """Runs commands in this process, on names that nobody else uses."""

    node: PrivateNode
    prefix: str

    def run(self, *arguments: str, status: int = 0, typed: str | None = None) -> Result:
        """Run ``ktrdr`` with these arguments; it must end with that status, and never with a traceback."""
        ran = CliRunner().invoke(app, list(arguments), input=typed)
        assert ran.exit_code == status, ran.output
        assert ran.exception is None or isinstance(ran.exception, SystemExit)
        return ran

    def ask(self, *arguments: str, status: int = 0) -> Any:
        """Run a command, and return what it says as JSON."""
        return json.loads(self.run(*arguments, "--json", status=status).stdout)

    @property
    def management(self) -> tuple[str, str]:
        """The option that names the management API."""
        return "--management", self.node.management_url.replace("://", "://guest:guest@")

    def wire(self, name: str) -> str:
        """What an exchange or queue is called on the broker."""
        return wire_name(name, self.prefix)

    def names(self) -> set[str]:
        """Names of all exchanges and queues of this prefix."""
        management = self.node.management
        found = [*management.exchanges(), *management.queues()]
        return {each["name"] for each in found if each["name"].startswith(f"{self.prefix}.")}

    def bus(self) -> RabbitMQBus:
        """A connection, as backend and agents have it; whoever asks closes it."""
        return RabbitMQBus(self.node.amqp_url(), name="host-agent@machine", prefix=self.prefix)

    async def bury(self, *messages: Message, reason: str = "cannot be read") -> None:
        """Have the backend reject messages that agents have published."""
        bus = self.bus()
        await bus.declare(shared_topology())
        for message in messages:
            await bus.publish(
                message,
                exchange=EVENTS,
                routing_key="training.op-1.failed",
                mandatory=True,
                timeout_s=60.0,
            )
            delivery = await bus.get(BACKEND_EVENTS)
            assert delivery is not None
            await delivery.reject(reason)
        await bus.close()


def wait_for_alarm(node: PrivateNode, *, on: bool) -> None:
    """Wait until the management API tells of a memory alarm, or of none; it lags by seconds."""
    eventually(
        # Of a node that has just started it tells nothing yet.
        lambda: node.management.request("GET", "nodes")[0].get("mem_alarm", False) is on,
        within_s=60.0,
        otherwise=f"the management API says that there is {'an' if on else 'no'} alarm",
    )


@contextmanager
def operating(node: PrivateNode, patch: pytest.MonkeyPatch) -> Iterator[Operator]:
    """Be an operator; what was created is deleted afterwards."""
    # A test before may have had one.
    wait_for_alarm(node, on=False)
    operator = Operator(node, f"o{secrets.token_hex(4)}")
    patch.setenv("KTRDR_BROKER_URL", node.amqp_url())
    patch.setenv("KTRDR_BROKER_PREFIX", operator.prefix)
    try:
        yield operator
    finally:
        for name in operator.names():
            node.management.delete_queue(name)
            node.management.delete_exchange(name)
