"""Which agents are there, what they do, and why an operation waits for them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.presences import Presences
from ktrdr.backend.records import AgentRecord, AgentStatus
from ktrdr.backend.states import State
from ktrdr.bus.memory import MemoryBus
from ktrdr.bus.topology import DEAD_LETTERS, PRESENCE, route
from ktrdr.events import (
    PROTOCOL_VERSION,
    AgentPresence,
    Envelope,
    Event,
    FailureCause,
    TrainingAccepted,
    TrainingFailed,
    TrainingProgress,
    encode,
)
from ktrdr.ids import RandomIds
from tests.unit.backend_cases import Run, World, inline, started

OWN_USER = "backend"


@pytest.fixture
async def world(tmp_path: Path, usual_database_url: str) -> AsyncIterator[World]:
    async with started(tmp_path, database_url=usual_database_url, backend={"owner": BROKER_OWNER}) as world:
        yield world


def _agent(world: World, agent_id: str = "agent-1") -> AgentRecord:
    (found,) = [agent for agent in world.store.agents() if agent.agent_id == agent_id]
    return found


# --- the table


async def test_an_agent_is_known_a_second_after_it_was_heard_of(world: World) -> None:
    assert world.store.agents() == []
    await world.agent.present(
        device="cuda:0", device_name="NVIDIA L4", memory_bytes=24 * 2**30, lanes=("gpu", "any"), slots_total=2
    )
    await world.pass_time(1.1)
    agent = _agent(world)
    assert (agent.agent_id, agent.host, agent.status) == ("agent-1", "machine", AgentStatus.READY)
    assert (agent.device, agent.device_name, agent.memory_bytes) == ("cuda:0", "NVIDIA L4", 24 * 2**30)
    assert (agent.lanes, agent.slots_total, agent.slots_busy) == (("gpu", "any"), 2, 0)
    assert agent.has_gpu
    assert agent.is_understood
    assert agent.first_seen == agent.started_at == agent.last_seen


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, AgentStatus.READY),
        ({"slots_busy": 1}, AgentStatus.BUSY),
        ({"state": "draining"}, AgentStatus.DRAINING),
        ({"state": "stopped"}, AgentStatus.STOPPED),
    ],
)
async def test_the_status_is_what_the_agent_says(
    world: World, fields: dict[str, Any], status: AgentStatus
) -> None:
    await world.agent.present(**fields)
    await world.pass_time(1.1)
    assert _agent(world).status is status
    assert (_agent(world).stopped_at is not None) is (status is AgentStatus.STOPPED)


async def test_who_holds_attempts_and_falls_silent_is_detached_and_who_holds_none_is_silent(
    world: World,
) -> None:
    run = await world.running()
    other = await world.other_agent()
    await world.agent.present(run)
    await other.present()
    await world.pass_time(19)
    assert _agent(world).status is AgentStatus.BUSY
    assert _agent(world, "agent-2").status is AgentStatus.READY
    await world.pass_time(7)
    assert _agent(world).status is AgentStatus.DETACHED
    assert _agent(world).running[0].claim_id == run.claim_id
    assert _agent(world, "agent-2").status is AgentStatus.READY
    await world.pass_time(5)
    assert _agent(world, "agent-2").status is AgentStatus.SILENT


async def test_an_agent_that_says_it_was_detached_shows_as_such(world: World) -> None:
    run = await world.running()
    await world.agent.present(run, running=(run.running.model_copy(update={"detached": True}),))
    await world.pass_time(1.1)
    assert _agent(world).status is AgentStatus.DETACHED
    await world.agent.present(run)
    await world.pass_time(1.1)
    assert _agent(world).status is AgentStatus.BUSY


async def test_who_says_the_same_for_hours_is_not_silent(world: World) -> None:
    await world.agent.present()
    await world.pass_time(1.1)
    first = _agent(world)
    for _ in range(12):
        await world.pass_time(5)
        await world.agent.present()
    await world.pass_time(6)
    agent = _agent(world)
    assert agent.status is AgentStatus.READY
    assert agent.last_seen - first.last_seen > timedelta(seconds=50)
    assert agent.started_at == first.started_at


async def test_what_one_backend_records_late_undoes_nothing_that_another_has(world: World) -> None:
    ready = AgentPresence(
        agent_id="agent-1",
        state="ready",
        device="cpu",
        protocol_version=PROTOCOL_VERSION,
        lanes=("any",),
        slots_total=1,
        slots_busy=0,
    )
    draining = ready.model_copy(update={"state": "draining"})
    prompt, late = (Presences(world.store, clock=world.clock, offload=inline, lease_s=30.0) for _ in range(2))
    said_at = datetime(2020, 1, 1, tzinfo=UTC)  # by its own clock

    def hear(presences: Presences, event: AgentPresence, after_s: float) -> None:
        moment = said_at + timedelta(seconds=after_s)
        presences.take(event, Envelope(event, event_id="e", sender="agent-1@machine", occurred_at=moment))

    hear(prompt, ready, 0)
    hear(late, ready, 0)
    await world.pass_time(1)
    hear(prompt, draining, 1)
    await prompt.flush()
    last_seen = _agent(world).last_seen
    await late.flush()
    assert (_agent(world).status, _agent(world).last_seen) == (AgentStatus.DRAINING, last_seen)
    # A clock that was set back holds nothing up.
    hear(prompt, ready, -3600)
    await prompt.flush()
    assert _agent(world).status is AgentStatus.READY


async def test_an_agent_that_comes_back_has_started_anew_and_was_first_seen_before(world: World) -> None:
    await world.agent.present()
    await world.pass_time(2)
    await world.agent.present(state="stopped")
    await world.pass_time(10)
    await world.agent.present()
    await world.pass_time(1.1)
    agent = _agent(world)
    assert agent.status is AgentStatus.READY
    assert agent.started_at - agent.first_seen > timedelta(seconds=10)


async def test_a_successor_of_the_backend_knows_the_agents_before_it_hears_of_them(world: World) -> None:
    await world.agent.present()
    await world.stop_backend()
    before = _agent(world)
    await world.start_another_backend()
    assert _agent(world) == before
    await world.agent.present(slots_busy=1)
    await world.pass_time(1.1)
    assert _agent(world).status is AgentStatus.BUSY
    assert _agent(world).first_seen == before.first_seen


async def test_who_is_gone_for_long_is_forgotten_and_who_is_there_is_not(world: World) -> None:
    gone, silent = await world.other_agent("gone"), await world.other_agent("silent")
    await gone.present(state="stopped")
    await silent.present()
    await world.agent.present()
    await world.pass_time(2)
    for days, left in ((1.1, ["agent-1", "silent"]), (7, ["agent-1"])):
        await world.stop_backend()
        world.clock._elapsed += days * 86400
        await world.start_another_backend()
        await world.agent.present()
        await world.pass_time(8)
        assert [agent.agent_id for agent in world.store.agents()] == left


async def test_agents_of_a_process_s_own_bus_are_not_listed(tmp_path: Path) -> None:
    async with started(tmp_path) as local:
        await local.agent.present()
        await local.pass_time(5)
        assert local.store.agents() == []


# --- versions


async def test_an_agent_of_another_version_shows_as_such(world: World) -> None:
    await world.agent.present(protocol_version=7)
    await world.pass_time(1.1)
    assert _agent(world).protocol_version == 7
    assert not _agent(world).is_understood


async def test_presence_of_a_version_that_cannot_be_read_is_no_dead_letter(world: World) -> None:
    presence = _presence()
    message = replace(_encoded(presence), type="ktrdr.agent.presence.v3", body=b"\x01")
    for _ in range(3):
        await _publish(world, message, PRESENCE, "")
    await world.pass_time(1.1)
    assert _agent(world).protocol_version == 3
    assert world.broker.queue_depth(DEAD_LETTERS) == 0
    nameless = replace(message, app_id="../hostile name@x")
    await _publish(world, nameless, PRESENCE, "")
    assert world.broker.queue_depth(DEAD_LETTERS) == 1


# --- presence at little cost


async def test_presence_that_says_nothing_new_renews_leases_without_being_decoded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.running()
    await world.agent.present(run)
    await world.pass_time()

    def never(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("ktrdr.backend.subscription.decode", never)
    for _ in range(10):
        await world.pass_time(5)
        await world.agent.present(run)
    await world.pass_time(5)
    assert (world.get(run).state, world.get(run).attempt) == (State.RUNNING, 1)


async def test_presence_that_says_nothing_new_still_stops_what_is_cancelled(world: World) -> None:
    run = await world.running()
    await world.agent.present(run)
    await world.pass_time()
    await world.backend.cancel(run.request.operation_id, "enough")
    await world.pass_time()
    world.agent.told.clear()
    await world.agent.present(run)
    await world.pass_time()
    assert [stop.claim_id for stop in world.agent.stops()] == [run.claim_id]


# --- who speaks


def _presence(agent_id: str = "agent-1") -> AgentPresence:
    return AgentPresence(
        agent_id=agent_id, state="ready", device="cpu", lanes=("any",), slots_total=1, slots_busy=0
    )


def _encoded(event: Event, sender: str = "agent-1@machine") -> Any:
    from datetime import UTC, datetime

    return encode(
        Envelope(event, event_id=RandomIds().event_id(), sender=sender, occurred_at=datetime.now(UTC))
    )


async def _publish(world: World, message: Any, exchange: str, routing_key: str) -> None:
    bus = MemoryBus(world.broker)
    await bus.publish(message, exchange=exchange, routing_key=routing_key, mandatory=True, timeout_s=1)
    await bus.close()
    await world.pass_time()


async def _say(world: World, event: Event, user: str | None) -> None:
    where = route(event)
    await _publish(world, replace(_encoded(event), user_id=user), where.exchange, where.routing_key)


def _events(run: Run) -> list[Event]:
    return [
        TrainingAccepted(**run.token, slot=1, device="cpu", lease_s=30),
        TrainingProgress(**run.token, sequence=1, stage="Training", stage_number=6, stages=8, fraction=0.5),
        TrainingFailed(**run.token, cause=FailureCause.RUNNER_CRASHED, message="it broke"),
        _presence(),
    ]


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[World]:
    """A backend on a broker that vouches for its users."""
    backend = {"owner": BROKER_OWNER, "user": OWN_USER}
    async with started(tmp_path, backend=backend) as world:
        yield world


@pytest.mark.parametrize("user", ["agent-2", "observer", None])
async def test_who_speaks_for_another_agent_is_not_heard(guarded: World, user: str | None) -> None:
    operation_id = await guarded.submit()
    run = guarded.agent.claim(await guarded.agent.request())
    for number, event in enumerate(_events(run), start=1):
        await _say(guarded, event, user)
        assert guarded.broker.queue_depth(DEAD_LETTERS) == number
    assert guarded.get(operation_id).state is State.QUEUED
    assert guarded.store.agents() == []
    bus = MemoryBus(guarded.broker)
    letter = await anext(await bus.consume(DEAD_LETTERS, prefetch=1, consumer_tag="test"))
    assert "agent-1" in str(letter.message.headers["x-ktrdr-reason"])
    await bus.close()


@pytest.mark.parametrize("user", ["agent", "agent-1", OWN_USER])
async def test_who_speaks_for_itself_is_heard(guarded: World, user: str) -> None:
    operation_id = await guarded.submit()
    run = guarded.agent.claim(await guarded.agent.request())
    for event in _events(run):
        await _say(guarded, event, user)
    await guarded.pass_time(1.1)
    assert guarded.broker.queue_depth(DEAD_LETTERS) == 0
    assert "attempt_failed" in guarded.story(operation_id)
    assert len(guarded.store.agents()) == 1


async def test_presence_of_another_user_is_not_taken_for_what_was_heard_before(guarded: World) -> None:
    await _say(guarded, _presence(), "agent-1")
    await _say(guarded, _presence(), "agent-2")
    assert guarded.broker.queue_depth(DEAD_LETTERS) == 1


# --- why an operation waits


async def test_what_is_not_published_says_why(world: World) -> None:
    operation_id = await world.submit(lane="tpu")
    why = world.store.why_waiting(world.get(operation_id))
    assert why.startswith("its request cannot be published: No queue is bound")


async def test_what_pauses_before_a_retry_says_so(world: World) -> None:
    run = await world.running()
    await world.agent.fail(run)
    await world.pass_time(0.2)
    assert world.store.why_waiting(world.get(run)) == "it pauses for 1 s more before attempt 2"


async def test_what_waits_in_a_lane_says_for_whom(world: World) -> None:
    operation_id = await world.submit(require_gpu=True)
    waiting = world.store.why_waiting
    assert waiting(world.get(operation_id)) == "no agent serves lane any"
    await world.agent.present()
    await world.pass_time(1.1)
    assert waiting(world.get(operation_id)) == (
        "no agent of lane any has a GPU, which it requires: agent-1 trains on the CPU"
    )
    await world.agent.present(device="mps", slots_busy=1)
    await world.pass_time(1.1)
    assert waiting(world.get(operation_id)) == "every agent of lane any is busy (1 of 1 slots): agent-1"
    await world.agent.present(device="mps")
    await world.pass_time(1.1)
    assert waiting(world.get(operation_id)) == "an agent of lane any is about to take it"


async def test_what_runs_on_an_agent_that_cannot_be_heard_says_so(world: World) -> None:
    run = await world.running()
    await world.agent.present(run)
    await world.pass_time(2)
    assert world.store.why_waiting(world.get(run)) == ""
    await world.pass_time(25)
    assert "agent-1, which runs it, was last heard of 2" in world.store.why_waiting(world.get(run))


async def test_what_has_ended_waits_for_nothing(world: World) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    assert world.store.why_waiting(world.get(run)) == ""


async def test_what_waits_in_a_process_says_so_and_what_is_left_by_one_says_who_goes_on(
    tmp_path: Path,
) -> None:
    async with started(tmp_path) as local:
        operation_id = await local.submit()
        assert "free slot" in local.store.why_waiting(local.get(operation_id))
        await local.stop_backend()
        assert "ktrdr train" in local.store.why_waiting(local.get(operation_id))
