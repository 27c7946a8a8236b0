"""`ktrdr dead` by way of a server, whose broker is a real one: the same as where the broker is at hand."""

import asyncio
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from ktrdr.backend.tokens import Role
from ktrdr.bus.topology import BACKEND_EVENTS, DEAD_LETTERS
from ktrdr.events import Envelope, encode
from ktrdr.events.message import Message
from tests.broker.node import PrivateNode
from tests.broker.operating_cases import Operator, operating
from tests.unit.api_cases import Api
from tests.unit.events_cases import example
from tests.unit.served_cases import Said, ServedApi, ktrdr, served_in_thread

pytestmark = pytest.mark.broker

SAID_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOWHERE = "amqp://127.0.0.1:9/"
LETTERS = (
    encode(Envelope(example("ktrdr.training.failed"), "0192-1", "host-a@machine", SAID_AT)),
    encode(Envelope(example("ktrdr.training.model_ready"), "0192-2", "host-a@machine", SAID_AT)),
    Message(b"\x1b[2J\x00\xff" * 200, "\x1b]0;owned\x07", "evil.v1", headers={"summary": "\x1b[2J\u202e"}),
)
COMMANDS = (
    "list",
    "list --json",
    "list --reason nonsense",
    "list --reason READ --limit 2 --json",
    "show 0192-1",
    "show 2 --json",
    "show sha256-",
    "show sha256- --json",
    "show 0192",
    "show zzz --json",
    "show ../audit",
    "show ..",
    "redrive",
    "redrive 0192-1 zzz --json",
    "discard 0192-1",
    "redrive 0192-1 sha256- --json",
    "redrive --all --reason read",
    "discard 0192-2 --yes",
    "discard --all --yes --json",
    "redrive --all",
)


@pytest.fixture(scope="module")
def operator(any_private_node: PrivateNode) -> Iterator[Operator]:
    with pytest.MonkeyPatch.context() as patch, operating(any_private_node, patch) as someone:
        yield someone


@pytest.fixture(scope="module")
def served(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    broker = {"broker_url": SecretStr(operator.node.amqp_url()), "broker_prefix": operator.prefix}
    with served_in_thread(tmp_path_factory.mktemp("served") / "there", **broker) as there:
        yield there


@pytest.fixture(autouse=True)
def dead_letters(operator: Operator) -> None:
    """There are always the same."""
    asyncio.run(operator.bury())
    asyncio.run(taken(operator))
    asyncio.run(operator.bury(*LETTERS))


async def taken(operator: Operator) -> dict[str, list[str]]:
    """Take what is dead and what is back where it died, and return the ids."""
    bus, found = operator.bus(), {}
    for queue in (DEAD_LETTERS, BACKEND_EVENTS):
        found[queue] = []
        while (delivery := await bus.get(queue)) is not None:
            found[queue].append(delivery.message.message_id)
            await delivery.ack()
    await bus.close()
    return {queue: sorted(ids) for queue, ids in found.items()}


def test_every_command_says_and_does_the_same(operator: Operator, served: ServedApi, tmp_path: Path) -> None:
    there = {**served.variables(tmp_path / "elsewhere", Role.ADMIN), "KTRDR_BROKER_URL": NOWHERE}
    for command in COMMANDS:
        # A quorum queue may take what was looked at back behind what was not.
        changes = command.startswith(("redrive", "discard")) or "--limit" in command
        outcomes: list[tuple[Said, dict[str, list[str]]]] = []
        for variables in (served.variables(), there):
            said = ktrdr("dead", *command.split(), variables=variables).without_times()
            outcomes.append((said, asyncio.run(taken(operator)) if changes else {}))
            if changes:
                asyncio.run(operator.bury(*LETTERS))
        assert outcomes[0] == outcomes[1], command
    noted = [
        (entry.action.rpartition("/")[2], entry.subject, entry.outcome) for entry in served.api.audited()
    ]
    assert ("redrive", "0192-1, zzz", "no-such-dead-letter") in noted
    assert ("discard", "0192-2: 1 discarded", "done") in noted


def test_who_is_no_admin_neither_looks_nor_changes(
    operator: Operator, served: ServedApi, tmp_path: Path
) -> None:
    variables = served.variables(tmp_path, Role.OPERATOR)
    for command in ("list", "show 0192-1", "redrive --all", "discard --all --yes"):
        refused = ktrdr("dead", *command.split(), variables=variables)
        assert (refused.status, "takes the role admin" in refused.stderr) == (1, True)
    assert len(asyncio.run(taken(operator))[DEAD_LETTERS]) == len(LETTERS)


def test_one_whose_answer_is_lost_is_put_back_once(
    operator: Operator, served: ServedApi, tmp_path: Path
) -> None:
    served.to_lose[0] = 1
    said = ktrdr("dead", "redrive", "0192-1", variables=served.variables(tmp_path, Role.ADMIN))
    assert said.status == 1
    assert "It may have been done. fix: See which are left: ktrdr dead list" in " ".join(said.stderr.split())
    assert asyncio.run(taken(operator))[BACKEND_EVENTS] == ["0192-1"]


def test_a_broker_for_this_machine_is_not_named_beside_a_server(
    operator: Operator, served: ServedApi, tmp_path: Path
) -> None:
    variables = served.variables(tmp_path, Role.ADMIN)
    for option in (("--broker", operator.node.amqp_url()), ("--prefix", operator.prefix)):
        said = ktrdr("dead", "list", *option, variables=variables)
        assert (said.status, "has its own" in said.stderr) == (1, True)


async def test_a_user_who_lacks_the_permission_is_told_how_to_get_it(
    operator: Operator, tmp_path: Path
) -> None:
    former, password = f"backend-{operator.prefix}", secrets.token_hex(8)
    management = operator.node.management
    management.add_user(former, password)
    mine = rf"^{operator.prefix}\."
    management.set_permissions(former, configure=f"{mine}.*$", write=f"{mine}.*$", read=f"{mine}backend.*$")
    try:
        url = SecretStr(operator.node.amqp_url(user=former, password=password))
        api = Api.make(tmp_path / "there", broker_url=url, broker_prefix=operator.prefix)
        with api.store:
            async with api.client(role=Role.ADMIN) as admin:
                answer = await admin.get("/api/v1/dead-letters")
                assert (answer.status_code, answer.json()["code"]) == (500, "broker-refuses")
                assert "ktrdr broker definitions" in answer.json()["fix"]
                # It may read them, but not write to where they go back to, by way of the default exchange.
                management.set_permissions(
                    former, configure=f"{mine}.*$", write=f"{mine}.*$", read=f"{mine}.*$"
                )
                answer = await admin.post("/api/v1/dead-letters/redrive", json={"ids": ["0192-1"]})
                assert answer.status_code == 200, answer.text
                (outcome,) = answer.json()["outcomes"]
                assert outcome["fate"] == "kept"
                assert "ktrdr broker definitions" in outcome["problem"]
                kept = (await admin.get("/api/v1/dead-letters")).json()["letters"]
                assert len(kept) == len(LETTERS)
    finally:
        management.delete_user(former)
