"""RabbitMQ's management HTTP API, as far as tests need it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

_TIMEOUT_S = 60.0
_NOT_FOUND = 404


class Management:
    """Looks at a broker and changes it from outside, in milliseconds; needs the management plugin."""

    def __init__(self, url: str, user: str = "guest", password: str = "guest") -> None:
        self.url = url
        self._http = httpx.Client(base_url=f"{url}/api", auth=(user, password), timeout=_TIMEOUT_S)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    # --- what there is ----------------------------------------------------------------------------

    def connections(self) -> list[dict[str, Any]]:
        """Return the client connections; a new one appears within a second."""
        return self._list("connections")

    def queues(self, vhost: str = "/") -> list[dict[str, Any]]:
        """Return the queues; their counts lag, so assert nothing on them."""
        return self._list("queues", vhost)

    def exchanges(self, vhost: str = "/") -> list[dict[str, Any]]:
        """Return the exchanges."""
        return self._list("exchanges", vhost)

    def bindings(self, vhost: str = "/") -> list[dict[str, Any]]:
        """Return the bindings."""
        return self._list("bindings", vhost)

    def consumers(self, vhost: str = "/") -> list[dict[str, Any]]:
        """Return the consumers of all queues."""
        return self._list("consumers", vhost)

    # --- what can be done to it -------------------------------------------------------------------

    def close_connection(self, name: str, reason: str = "closed by a test") -> None:
        """Close a connection from the broker's side, by its ``name`` in `connections`."""
        self.request("DELETE", "connections", name, headers={"X-Reason": reason})

    def delete_queue(self, name: str, vhost: str = "/") -> None:
        """Delete a queue with what it holds; it may be gone already."""
        self.request("DELETE", "queues", vhost, name)

    def delete_exchange(self, name: str, vhost: str = "/") -> None:
        """Delete an exchange; it may be gone already."""
        self.request("DELETE", "exchanges", vhost, name)

    def add_vhost(self, name: str) -> None:
        """Add a virtual host, on which the own user may do everything."""
        self.request("PUT", "vhosts", name)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that it holds; it may be gone already."""
        self.request("DELETE", "vhosts", name)

    def add_user(self, name: str, password: str, *, tags: str = "") -> None:
        """Add a user, who may do nothing yet, or change one."""
        self.request("PUT", "users", name, json={"password": password, "tags": tags})

    def delete_user(self, name: str) -> None:
        """Delete a user, whose connections are closed; they may be gone already."""
        self.request("DELETE", "users", name)

    def set_permissions(
        self, user: str, *, configure: str = "", write: str = "", read: str = "", vhost: str = "/"
    ) -> None:
        """Allow a user what matches these patterns, and nothing else."""
        body = {"configure": configure, "write": write, "read": read}
        self.request("PUT", "permissions", vhost, user, json=body)

    def set_topic_permissions(
        self, user: str, exchange: str, *, write: str = "", read: str = "", vhost: str = "/"
    ) -> None:
        """Allow a user the routing keys that match these patterns on a topic exchange, and no others."""
        body = {"exchange": exchange, "write": write, "read": read}
        self.request("PUT", "topic-permissions", vhost, user, json=body)

    def set_policy(self, name: str, pattern: str, definition: Mapping[str, object], vhost: str = "/") -> None:
        """Give every queue that matches more arguments."""
        body = {"pattern": pattern, "definition": dict(definition), "apply-to": "queues"}
        self.request("PUT", "policies", vhost, name, json=body)

    def import_definitions(self, definitions: Mapping[str, Any]) -> None:
        """Import users, permissions, queues and so on, as from a definitions file."""
        self.request("POST", "definitions", json=dict(definitions))

    # --- anything else ----------------------------------------------------------------------------

    def request(self, method: str, *path: str, **arguments: Any) -> Any:
        """Send any request, the path given in unquoted parts, and return the parsed answer, if any.

        Raises:
            httpx.HTTPStatusError: It was refused. To delete what is not there is no error.
        """
        response = self._http.request(method, "/".join(quote(part, safe="") for part in path), **arguments)
        if method == "DELETE" and response.status_code == _NOT_FOUND:
            return None
        response.raise_for_status()
        return response.json() if response.content else None

    def _list(self, *path: str) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self.request("GET", *path)
        return answer
