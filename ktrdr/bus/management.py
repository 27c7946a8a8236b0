"""What RabbitMQ's management API knows and AMQP does not tell: bindings, alarms, permissions, all names."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx

from ktrdr.errors import AccessRefusedError, BusUnavailableError

_TIMEOUT_S = 10.0
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class ManagedQueue:
    """A queue as the management API has it; its counts are some seconds old."""

    arguments: Mapping[str, object]
    unacknowledged: int
    exclusive: bool
    policies: str = ""
    """Names of the policies that apply to it."""
    policy: Mapping[str, object] = field(default_factory=dict)
    """What they come to."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Patterns of the names that a user may declare, write to and read from."""

    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Arguments that an administrator gives to whatever has a name that matches."""

    name: str
    pattern: str
    applies_to: str
    """``queues``, ``quorum_queues``, ``classic_queues``, ``streams``, ``exchanges`` or ``all``."""
    priority: int
    definition: Mapping[str, object]
    is_operator: bool
    """Whether it is an operator policy, which limits what others say."""


@dataclass(frozen=True, slots=True)
class ManagementView:
    """What there is in one virtual host."""

    exchanges: frozenset[str]
    queues: Mapping[str, ManagedQueue]
    bindings: frozenset[tuple[str, str, str]]
    """Exchange, queue, routing key."""
    alarms: tuple[str, ...] | None
    """In words; None if the user may not see them."""
    permissions: Permissions | None
    """Of the user in question; None if there are none, or they may not be seen."""
    policies: tuple[Policy, ...] | None = None
    """None if the user may not see them."""


async def look_at(url: str, *, vhost: str, user: str, cafile: str | None = None) -> ManagementView:
    """Return what the management API says.

    Args:
        url: ``http(s)://user:password@host:15672``; the user needs the tag ``management``, and for
            policies, alarms and permissions ``policymaker``, ``monitoring`` and ``administrator``.
        vhost: the virtual host.
        user: whose permissions.
        cafile: of the authority that signed the API's certificate, if that is not a public one.

    Raises:
        BusUnavailableError: there is no management API at that address.
        AccessRefusedError: the API does not let this user in.
    """
    parts = urlsplit(url)
    # Without the credentials, which then are in no message of an error.
    base = urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/") + "/api/", "", "")
    )
    credentials = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
    verify = ssl.create_default_context(cafile=cafile)
    async with httpx.AsyncClient(base_url=base, auth=credentials, timeout=_TIMEOUT_S, verify=verify) as http:
        api = _Api(http, base, credentials[0])
        host = quote(vhost, safe="")
        exchanges, queues, bindings, nodes, permissions = await asyncio.gather(
            api.required(f"exchanges/{host}"),
            api.required(f"queues/{host}"),
            api.required(f"bindings/{host}"),
            api.permitted("nodes"),
            api.permitted(f"users/{quote(user, safe='')}/permissions"),
        )
        policies = await asyncio.gather(
            api.permitted(f"policies/{host}"), api.permitted(f"operator-policies/{host}")
        )
    return ManagementView(
        exchanges=frozenset(exchange["name"] for exchange in exchanges),
        queues={queue["name"]: _queue(queue) for queue in queues},
        bindings=frozenset((each["source"], each["destination"], each["routing_key"]) for each in bindings),
        alarms=None if nodes is None else _alarms(nodes),
        permissions=_permissions(permissions or [], vhost),
        policies=_policies(*policies),
    )


class _Api:
    """Asks one API, and says what is wrong with it."""

    def __init__(self, http: httpx.AsyncClient, url: str, user: str) -> None:
        self._http = http
        self._url = url
        self._user = user

    async def required(self, path: str) -> list[dict[str, Any]]:
        found = await self.permitted(path)
        if found is None:
            raise AccessRefusedError(
                f"The management API at {self._url} does not let {self._user} see {path.partition('/')[0]}.",
                fix="Name a user with the tag 'management' or 'administrator', and the right password: "
                "--management http://USER:PASSWORD@HOST:15672",
            )
        return found

    async def permitted(self, path: str) -> list[dict[str, Any]] | None:
        try:
            response = await self._http.get(path)
            if response.status_code in (*_REFUSED, HTTPStatus.NOT_FOUND):
                return None
            response.raise_for_status()
            found = response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise BusUnavailableError(
                f"There is no management API at {self._url}: {str(error) or type(error).__name__}",
                fix="Enable it (rabbitmq-plugins enable rabbitmq_management), or correct the URL.",
            ) from error
        if not isinstance(found, list):
            raise BusUnavailableError(f"What answers at {self._url} is no management API of RabbitMQ.")
        return found


def _queue(queue: Mapping[str, Any]) -> ManagedQueue:
    return ManagedQueue(
        arguments=queue.get("arguments") or {},
        # A queue that was only just declared has no counts yet.
        unacknowledged=int(queue.get("messages_unacknowledged") or 0),
        exclusive=bool(queue.get("exclusive")),
        policies=" and ".join(filter(None, (queue.get("policy"), queue.get("operator_policy")))),
        # Where there is none, some versions give an empty list.
        policy=queue.get("effective_policy_definition") or {},
    )


def _alarms(nodes: list[dict[str, Any]]) -> tuple[str, ...]:
    words = {"mem_alarm": "is out of memory", "disk_free_alarm": "is out of disk space"}
    return tuple(
        f"{node['name']} {what}" for node in nodes for alarm, what in words.items() if node.get(alarm)
    )


def _policies(
    found: list[dict[str, Any]] | None, of_operators: list[dict[str, Any]] | None
) -> tuple[Policy, ...] | None:
    if found is None:
        return None
    return tuple(
        Policy(
            name=each["name"],
            pattern=each["pattern"],
            applies_to=each["apply-to"],
            priority=int(each["priority"]),
            definition=each["definition"],
            is_operator=is_operator,
        )
        for policies, is_operator in ((found, False), (of_operators or [], True))
        for each in policies
    )


def _permissions(found: list[dict[str, Any]], vhost: str) -> Permissions | None:
    for each in found:
        if each["vhost"] == vhost:
            return Permissions(each["configure"], each["write"], each["read"])
    return None
