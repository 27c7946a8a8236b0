"""Everything at work: a broker with the shipped definitions, a backend and an agent, each as its user."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ktrdr.bus.definitions import definitions_json
from tests.broker.node import PrivateNode
from tests.e2e.command import Command
from tests.e2e.installation import MOMENTUM, Installation, epochs
from tests.e2e.test_http_api import url_of

AGENT = "box-1"


@dataclass(frozen=True)
class World:
    """A virtual host of a broker, and the installation of the backend."""

    node: PrivateNode
    vhost: str
    installation: Installation
    server: str
    """Where the backend listens for HTTP."""
    agent: Command
    operation_id: str
    """A training that is completed."""

    def url(self, user: str) -> str:
        """Where a user of the shipped definitions connects to."""
        return self.node.amqp_url(user=user, password=_password(user), vhost=self.vhost)

    def add_agents_user(self, name: str) -> None:
        """Give an agent a user of its own, as the operator's page says."""
        text = definitions_json(vhost=self.vhost, agents=[name], passwords={name: _password(name)})
        only_users = {key: value for key, value in json.loads(text).items() if "permissions" in key}
        users = [user for user in json.loads(text)["users"] if user["name"] == name]
        self.node.management.import_definitions({**only_users, "users": users})

    @property
    def management_url(self) -> str:
        """The management API, for the administrator of the definitions."""
        return self.node.management_url.replace("://", f"://admin:{_password('admin')}@")


@contextmanager
def working(node: PrivateNode, root: Path) -> Iterator[World]:
    """Have a backend and an agent at work, and one training done."""
    vhost = f"world-{secrets.token_hex(4)}"
    users = ("backend", "agent", "observer", "admin")
    passwords = {user: _password(user) for user in users}
    definitions = definitions_json(vhost=vhost, administrator="admin", passwords=passwords)
    node.management.import_definitions(json.loads(definitions))
    node.management.set_permissions("guest", configure=".*", write=".*", read=".*", vhost=vhost)
    url = {user: node.amqp_url(user=user, password=_password(user), vhost=vhost) for user in users}
    try:
        with Installation(root) as installation:
            agents_own = {
                "KTRDR_HOME": str(root / "agent"),
                "KTRDR_BLOB_STORE": str(installation.home / "blobs"),
            }
            installation.variables |= {**agents_own, "KTRDR_BROKER_URL": url["agent"]}
            agent = installation.start("agent", "--name", AGENT)
            for variable in agents_own:
                del installation.variables[variable]
            installation.variables |= {
                "KTRDR_BROKER_URL": url["backend"],
                "KTRDR_STRATEGIES_DIR": str(MOMENTUM.parent),
            }
            server = url_of(installation.start("serve"))
            agent.until_said("listening")
            trained = installation.train(*epochs(2), "--lane", "any", "--json").succeed().json()
            yield World(node, vhost, installation, server, agent, trained["operation_id"])
    finally:
        node.management.delete_vhost(vhost)
        for user in users:
            node.management.delete_user(user)


def _password(user: str) -> str:
    return f"password-of-{user}"
