"""Looking at dead letters, putting them back, throwing them away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ktrdr.bus.dead_letter_box import DeadLetter, DeadLetterBox, Fate, LetterChoice
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.topology import (
    BACKEND_EVENTS,
    CONTROL,
    DEAD,
    DEAD_LETTERS,
    EVENTS,
    REQUESTS,
    agent_topology,
    lane_queue,
    shared_topology,
)
from ktrdr.errors import BusError, BusUnavailableError, PublishTimeoutError
from ktrdr.events.message import Message

LIMIT = 100


class Operator:
    """A connection with a box, and what the others do."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.bus = MemoryBus(broker)
        self.box = DeadLetterBox(self.bus, timeout_s=1.0)

    async def bury(self, *ids: str, reason: str = "cannot be read", **properties: object) -> None:
        """Have a consumer of a lane reject messages of these ids."""
        for each in ids:
            message = Message(each.encode(), each, "test.v1", headers={"summary": f"message {each}"})
            message = replace(message, **properties)  # type: ignore[arg-type]  # whoever calls names fields
            await self.publish(message, REQUESTS, "any")
            delivery = await self.bus.get(lane_queue("any"))
            assert delivery is not None
            await delivery.reject(reason)

    async def publish(self, message: Message, exchange: str, key: str) -> None:
        await self.bus.publish(message, exchange=exchange, routing_key=key, mandatory=True, timeout_s=1.0)

    async def ids(self) -> list[str]:
        return [letter.id for letter in await self.box.look(LIMIT)]

    def depth(self, queue: str = DEAD_LETTERS) -> int:
        return self.broker.queue_depth(queue)


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    operator = Operator(MemoryBroker())
    await operator.bus.declare(shared_topology())
    yield operator
    await operator.bus.close()


async def test_looking_takes_nothing_away_and_keeps_the_order(operator: Operator) -> None:
    await operator.bury("a", "b", "c")
    for _ in range(3):
        assert await operator.ids() == ["a", "b", "c"]
    assert [letter.id for letter in await operator.box.look(2)] == ["a", "b"]
    assert await operator.ids() == ["a", "b", "c"]
    assert operator.depth() == 3


async def test_a_letter_says_why_and_where_it_died(operator: Operator) -> None:
    await operator.bury("a", reason="The content type is 'x', not 'application/msgpack'.")
    (letter,) = await operator.box.look(LIMIT)
    assert letter.reason == "The content type is 'x', not 'application/msgpack'."
    assert letter.from_queue == "ktrdr.lane.any"


async def test_redriven_it_is_where_it_died_as_it_was(operator: Operator) -> None:
    await operator.bury(
        "a", "b", correlation_id="op-1", headers={"summary": "s", "attempt": 2, "x-death": "?"}
    )
    outcomes = await operator.box.redrive(LetterChoice(ids=["a"]), LIMIT)
    assert [(outcome.letter.id, outcome.fate) for outcome in outcomes] == [("a", Fate.REDRIVEN)]
    assert await operator.ids() == ["b"]
    delivery = await operator.bus.get(lane_queue("any"))
    assert delivery is not None
    assert delivery.message == Message(
        b"a", "a", "test.v1", correlation_id="op-1", headers={"summary": "s", "attempt": 2}
    )


async def test_one_that_dies_again_at_once_is_redriven_once(operator: Operator) -> None:
    await operator.bury("a", "b")

    async def reject_both() -> None:
        consumer = await operator.bus.consume(lane_queue("any"), prefetch=1, consumer_tag="x")
        for _ in range(2):
            await (await anext(consumer)).reject("still not readable")

    rejecting = asyncio.create_task(reject_both())
    outcomes = await operator.box.redrive(LetterChoice(), LIMIT)
    await rejecting
    assert [outcome.fate for outcome in outcomes] == [Fate.REDRIVEN] * 2
    assert [letter.reason for letter in await operator.box.look(LIMIT)] == ["still not readable"] * 2


async def test_discarded_it_is_nowhere(operator: Operator) -> None:
    await operator.bury("a", "b", "c")
    outcomes = await operator.box.discard(LetterChoice(ids=["c", "a"]), LIMIT)
    assert [(outcome.letter.id, outcome.fate) for outcome in outcomes] == [
        ("a", Fate.DISCARDED),
        ("c", Fate.DISCARDED),
    ]
    assert await operator.ids() == ["b"]
    assert operator.depth(lane_queue("any")) == 0


async def test_letters_are_chosen_by_what_their_reason_says(operator: Operator) -> None:
    await operator.bury("a", reason="The broker gave up")
    await operator.bury("b", reason="Unknown event")
    assert [o.letter.id for o in await operator.box.redrive(LetterChoice(reason="unknown"), LIMIT)] == ["b"]
    assert await operator.ids() == ["a"]


async def test_an_id_may_be_shortened_as_long_as_it_means_one(operator: Operator) -> None:
    await operator.bury("0192-aaa-1", "0192-bbb-1", "0192-bbb-2")
    assert [o.letter.id for o in await operator.box.redrive(LetterChoice(ids=["0192-a"]), LIMIT)] == [
        "0192-aaa-1"
    ]
    with pytest.raises(BusError, match="'0192-b' may be 0192-bbb-1, 0192-bbb-2"):
        await operator.box.redrive(LetterChoice(ids=["0192-b"]), LIMIT)
    with pytest.raises(BusError, match="no dead letter ''"):
        await operator.box.discard(LetterChoice(ids=[""]), LIMIT)
    assert await operator.ids() == ["0192-bbb-1", "0192-bbb-2"]


async def test_one_wrong_id_leaves_all_as_they_are(operator: Operator) -> None:
    await operator.bury("a", "b")
    with pytest.raises(BusError, match="There is no dead letter 'zzz'"):
        await operator.box.discard(LetterChoice(ids=["a", "zzz"]), LIMIT)
    assert await operator.ids() == ["a", "b"]


async def test_two_of_the_same_id_go_together(operator: Operator) -> None:
    await operator.bury("a", "b", "a")
    assert len(await operator.box.redrive(LetterChoice(ids=["a"]), LIMIT)) == 2
    assert await operator.ids() == ["b"]
    assert operator.depth(lane_queue("any")) == 2


@pytest.mark.parametrize("message_id", ["", "\x1b[31m", "two words", "x" * 129, "-rf"])
async def test_a_message_id_that_cannot_be_typed_is_replaced_by_a_hash(
    operator: Operator, message_id: str
) -> None:
    await operator.bury("a", message_id=message_id)
    (name,) = await operator.ids()
    assert name == "sha256-ca978112ca1b"
    (outcome,) = await operator.box.redrive(LetterChoice(ids=[name]), LIMIT)
    assert outcome.fate is Fate.REDRIVEN
    delivery = await operator.bus.get(lane_queue("any"))
    assert delivery is not None
    assert delivery.message.message_id == message_id


async def test_one_whose_queue_is_gone_is_kept_and_the_others_go(operator: Operator) -> None:
    agent = MemoryBus(operator.broker)
    await agent.declare(agent_topology("host-a"))
    await operator.publish(Message(b"", "order", "test.v1"), CONTROL, "training.op-1.cancel_requested")
    delivery = await agent.get("ktrdr.control.host-a")
    assert delivery is not None
    await delivery.reject("not for agents")
    await agent.close()
    await operator.bury("a")
    gone, went = await operator.box.redrive(LetterChoice(), LIMIT)
    assert (gone.letter.id, gone.fate) == ("order", Fate.KEPT)
    assert gone.problem == "there is no queue 'ktrdr.control.host-a' any more"
    assert went.fate is Fate.REDRIVEN
    assert await operator.ids() == ["order"]


async def test_one_that_does_not_say_where_it_died_is_kept(operator: Operator) -> None:
    await operator.publish(Message(b"", "stray", "test.v1"), DEAD, "anything")
    (outcome,) = await operator.box.redrive(LetterChoice(), LIMIT)
    assert outcome.fate is Fate.KEPT
    assert outcome.problem == "it does not say in which queue it died"
    assert await operator.ids() == ["stray"]
    assert [o.fate for o in await operator.box.discard(LetterChoice(), LIMIT)] == [Fate.DISCARDED]


async def test_two_operators_at_once_move_each_letter_once(operator: Operator) -> None:
    names = [f"m{number}" for number in range(20)]
    await operator.bury(*names)
    other = Operator(operator.broker)
    one, two = await asyncio.gather(
        operator.box.redrive(LetterChoice(), LIMIT), other.box.redrive(LetterChoice(), LIMIT)
    )
    assert sorted(outcome.letter.id for outcome in (*one, *two)) == sorted(names)
    assert operator.depth() == 0
    assert operator.depth(lane_queue("any")) == 20
    await other.bus.close()


class Interrupted(MemoryBus):
    """A connection whose publishes end in an error once the broker has the message."""

    error: BusError

    async def publish(
        self, message: Message, *, exchange: str, routing_key: str, mandatory: bool, timeout_s: float
    ) -> None:
        await super().publish(
            message, exchange=exchange, routing_key=routing_key, mandatory=mandatory, timeout_s=timeout_s
        )
        raise self.error


async def test_a_letter_whose_confirm_did_not_come_is_in_both_queues(operator: Operator) -> None:
    await operator.bury("a", "b")
    bus = Interrupted(operator.broker)
    bus.error = PublishTimeoutError("No confirm came within 1 s.")
    outcomes = await DeadLetterBox(bus, timeout_s=1.0).redrive(LetterChoice(), LIMIT)
    assert [(outcome.fate, outcome.problem) for outcome in outcomes] == [
        (Fate.KEPT, "No confirm came within 1 s.")
    ] * 2
    assert await operator.ids() == ["a", "b"]
    assert operator.depth(lane_queue("any")) == 2
    await bus.close()


async def test_a_lost_connection_ends_it_and_loses_nothing(operator: Operator) -> None:
    await operator.bury("a", "b")
    bus = Interrupted(operator.broker)
    bus.error = BusUnavailableError()
    with pytest.raises(BusUnavailableError):
        await DeadLetterBox(bus, timeout_s=1.0).redrive(LetterChoice(), LIMIT)
    await bus.close()
    assert await operator.ids() == ["a", "b"]


async def test_what_is_over_the_limit_is_not_looked_at(operator: Operator) -> None:
    await operator.bury("a", "b", "c")
    assert [o.letter.id for o in await operator.box.discard(LetterChoice(), 2)] == ["a", "b"]
    assert await operator.ids() == ["c"]


def test_an_event_of_the_backend_is_revived_without_the_story_of_its_death() -> None:
    message = Message(
        b"", "a", "t", headers={"x-ktrdr-reason": "r", "x-ktrdr-from-queue": BACKEND_EVENTS, "n": 1}
    )
    assert DeadLetter(message).revived() == Message(b"", "a", "t", headers={"n": 1})
    assert EVENTS not in DeadLetter(message).revived().headers
