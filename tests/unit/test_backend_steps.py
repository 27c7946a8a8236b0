"""The backend logs each step of an operation once, in order, whatever it sees of its states."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ktrdr.backend.states import State
from ktrdr.backend.steps import StepLog
from ktrdr.events import FailureCause
from ktrdr.logs import configure_logging
from ktrdr.logs.overhearing import Overheard, overheard_by
from tests.unit.backend_cases import World, started


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with started(tmp_path) as world:
        yield world


@pytest.fixture
def heard(world: World) -> list[Overheard]:
    """The lines that the step log of the world's backend says from now on."""
    configure_logging("error")
    lines: list[Overheard] = []
    follow = world.backend._steps.follow

    def listened(operation: object) -> None:
        with overheard_by(lines.append):
            follow(operation)  # type: ignore[arg-type]  # whatever it is given

    world.backend._steps.follow = listened  # type: ignore[method-assign]  # handlers have contexts of their own
    return lines


def steps(heard: list[Overheard]) -> list[str]:
    return [line.event for line in heard]


async def test_each_step_of_a_training_is_logged_with_what_it_is_about(
    world: World, heard: list[Overheard]
) -> None:
    run = await world.running()
    await world.agent.finish(run)
    await world.pass_time()
    assert steps(heard) == [
        "[1/4] Recording the training",
        "[2/4] Asking for an agent",
        "[3/4] Waiting for the model",
        "[4/4] Closing the operation",
    ]
    assert {line.fields["operation_id"] for line in heard} == {run.request.operation_id}
    last = heard[-1].fields
    assert (last["attempt"], last["agent"], last["result"]) == (1, "agent-1", "completed")
    assert last["model"] == "momentum/EURUSD_1h_v1"


async def test_a_further_attempt_has_its_own_steps_and_a_failure_is_a_warning(
    world: World, heard: list[Overheard]
) -> None:
    run = await world.running()
    await world.agent.fail(run)
    await world.pass_time(3)
    again = await world.agent.take()
    await world.pass_time()
    await world.agent.fail(again, FailureCause.STRATEGY_ERROR)
    await world.pass_time()
    assert [(line.fields["attempt"], line.event[:5]) for line in heard] == [
        (1, "[1/4]"),
        (1, "[2/4]"),
        (1, "[3/4]"),
        (2, "[2/4]"),
        (2, "[3/4]"),
        (2, "[4/4]"),
    ]
    assert (heard[-1].level, heard[-1].fields["cause"]) == ("warning", "strategy_error")


async def test_what_was_cancelled_before_it_ran_was_not_waited_for(
    world: World, heard: list[Overheard]
) -> None:
    operation_id = await world.submit()
    await world.backend.cancel(operation_id, "because")
    await world.pass_time()
    assert steps(heard)[-2:] == ["[2/4] Asking for an agent", "[4/4] Closing the operation"]


async def test_what_is_seen_late_or_again_is_not_logged_again(world: World) -> None:
    configure_logging("error")
    operation_id = await world.submit()
    earlier = world.store.get(operation_id)
    run = await world.agent.take()
    await world.pass_time()
    later = world.store.get(operation_id)
    heard: list[Overheard] = []
    with overheard_by(heard.append):
        log = StepLog()
        for record in (later, earlier, later):
            log.follow(record)
    assert steps(heard) == ["[3/4] Waiting for the model"]
    assert later.claim_id == run.claim_id


async def test_what_has_ended_is_soon_forgotten_and_what_has_not_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktrdr.backend.steps._REMEMBERED_ENDED", 3)
    configure_logging("error")
    waiting = world.store.get(await world.submit())
    ended = replace(waiting, state=State.CANCELLED, revision=waiting.revision + 1)
    records = [replace(ended, operation_id=f"op-{number}") for number in range(8)]
    log = StepLog()
    log.follow(waiting)
    for record in records:
        log.follow(record)
    heard: list[Overheard] = []
    with overheard_by(heard.append):
        for record in (waiting, *records[-3:]):
            log.follow(record)  # they are remembered: nothing is said again
    assert heard == []
    assert (len(log._last), len(log._ended)) == (1, 3)
    log.follow(ended)
    assert (len(log._last), len(log._ended)) == (0, 3)
