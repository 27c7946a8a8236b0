"""Accepting trainings: where each runs, and that asking twice makes one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ktrdr.app.backends import Backends
from ktrdr.app.deciding import default_mode
from ktrdr.app.trainings import Trainings
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.wishes import StrategyText, TrainingWish
from ktrdr.drill.market import write_bars, write_strategy
from ktrdr.errors import IdempotencyError, NowhereToTrainError, SettingsError, StrategyError
from ktrdr.ids import RandomIds
from ktrdr.training.execution_mode_selector import Mode, Place
from tests.unit.refuge_cases import Both, both_backends

WISH = TrainingWish("drill", seed=7)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    market = {"data_dir": tmp_path / "data", "strategies_dir": tmp_path / "strategies"}
    for directory in market.values():
        directory.mkdir()
    write_bars(market["data_dir"])
    write_strategy(market["strategies_dir"])
    async with both_backends(tmp_path, **market, device="cpu") as both:
        yield both


def _trainings(both: Both, *, with_hosts: bool = True, **settings: Any) -> Trainings:
    return Trainings(
        both.world.settings.model_copy(update=settings),
        both.world.store,
        blobs=both.world.backend_blobs,
        local=both.local,
        hosts=both.world.backend if with_hosts else None,
        ids=RandomIds(),
    )


async def _present(both: Both, **fields: Any) -> None:
    await both.world.agent.present(**fields)
    await both.world.pass_time(2)


# --- where


async def test_what_is_to_run_on_a_host_goes_over_the_broker(both: Both) -> None:
    await _present(both)
    accepted = await _trainings(both).submit(WISH, mode=Mode.HOST)
    await both.world.pass_time()
    assert both.world.agent.waiting == 1
    assert accepted.created
    assert (accepted.decision.where, accepted.operation.owner) == (Place.HOST, BROKER_OWNER)


async def test_the_decision_is_in_the_operation_and_its_history(both: Both) -> None:
    await _present(both)
    accepted = await _trainings(both).submit(WISH, mode=Mode.HOST)
    record = both.get(accepted.operation.operation_id)
    assert (record.mode, record.place) == (Mode.HOST, Place.HOST)
    assert record.place_reason == "host was asked for; agent-1 serves lane any"
    history = both.world.store.history(record.operation_id)
    assert ("decided", f"host: {record.place_reason}") in [(one.kind, one.message) for one in history]


async def test_without_an_agent_it_falls_back_at_once(both: Both) -> None:
    accepted = await _trainings(both).submit(WISH, mode=Mode.HOST)
    await both.world.pass_time()
    assert both.beside.waiting == 1
    assert (accepted.decision.where, accepted.decision.is_fallback) == (Place.LOCAL, True)
    assert len(both.fell_back(accepted.operation.operation_id)) == 1


async def test_while_the_broker_is_away_it_falls_back_at_once(both: Both) -> None:
    await _present(both)
    await both.line.cut()
    await both.world.pass_time(6)
    accepted = await _trainings(both).submit(WISH, mode=Mode.HOST)
    assert accepted.decision.where is Place.LOCAL
    assert "the broker cannot be reached" in accepted.decision.reason
    run = await both.beside.take()
    await both.world.pass_time()
    assert run.request.operation_id == accepted.operation.operation_id
    assert both.get(run.request.operation_id).state is State.RUNNING


async def test_a_connection_that_was_lost_just_now_is_waited_for(both: Both) -> None:
    await _present(both)
    await both.line.cut()
    submitting = asyncio.create_task(_trainings(both).submit(WISH, mode=Mode.HOST))
    await both.world.pass_time(1)
    assert not submitting.done()
    both.line.mend()
    await both.world.pass_time(2)
    assert (await submitting).decision.where is Place.HOST


async def test_what_is_to_run_here_waits_for_no_broker(both: Both) -> None:
    await both.line.cut()
    assert (await _trainings(both).submit(WISH, mode=Mode.LOCAL)).decision.where is Place.LOCAL


async def test_without_a_broker_everything_runs_here(both: Both) -> None:
    accepted = await _trainings(both, with_hosts=False).submit(WISH, mode=Mode.HOST)
    assert accepted.operation.owner == both.local.instance
    assert "no broker is named" in accepted.decision.reason


async def test_auto_spreads_over_slots_here_and_on_hosts(both: Both) -> None:
    await _present(both)
    trainings = _trainings(both)
    places = [(await trainings.submit(WISH, mode=Mode.AUTO)).decision.where for _ in range(3)]
    assert places == [Place.LOCAL, Place.HOST, Place.LOCAL]


async def test_a_gpu_that_is_nowhere_is_refused_and_nothing_is_recorded(both: Both) -> None:
    with pytest.raises(NowhereToTrainError, match="requires a GPU"):
        await _trainings(both).submit(replace(WISH, require_gpu=True), mode=Mode.AUTO)
    assert both.world.store.list_operations() == []


async def test_a_gpu_on_a_host_is_found(both: Both) -> None:
    await _present(both, device="cuda")
    accepted = await _trainings(both).submit(replace(WISH, require_gpu=True), mode=Mode.AUTO)
    assert accepted.decision.where is Place.HOST
    await both.world.pass_time()
    assert (await both.world.agent.request()).require_gpu


async def test_a_strategy_may_be_sent_along(both: Both) -> None:
    text = (both.world.settings.strategies_dir / "drill.yaml").read_text()
    accepted = await _trainings(both).submit(TrainingWish(StrategyText(text)), mode=Mode.LOCAL)
    assert accepted.operation.strategy == "drill"
    with pytest.raises(StrategyError, match=r"^request:"):
        await _trainings(both).submit(TrainingWish(StrategyText("a: 1", "request")), mode=Mode.LOCAL)


async def test_what_names_a_lane_waits_in_it_and_never_falls_back(both: Both) -> None:
    wish = replace(WISH, lane="fast", names_lane=True)
    trainings = _trainings(both)
    await trainings.set_default_mode(Mode.LOCAL)
    accepted = await trainings.submit(wish, mode=None, idempotency_key="k-1")
    await both.world.pass_time(3 * both.world.settings.accept_deadline_s)
    record = both.get(accepted.operation.operation_id)
    assert (record.owner, record.place, record.state.terminal) == (BROKER_OWNER, None, False)
    assert both.beside.waiting == 0
    assert both.fell_back(record.operation_id) == []
    again = await trainings.submit(wish, mode=None, idempotency_key="k-1")
    assert (again.created, again.decision) == (False, accepted.decision)


async def test_what_names_a_lane_waits_also_where_no_broker_is_named(both: Both) -> None:
    wish = replace(WISH, lane="fast", names_lane=True)
    accepted = await _trainings(both, with_hosts=False).submit(wish, mode=Mode.HOST)
    assert (accepted.operation.owner, accepted.operation.place) == (BROKER_OWNER, None)


async def test_a_lane_and_a_mode_that_is_not_host_are_refused(both: Both) -> None:
    wish = replace(WISH, lane="fast", names_lane=True)
    for mode in (Mode.LOCAL, Mode.AUTO):
        with pytest.raises(SettingsError, match=f"mode {mode} was asked for"):
            await _trainings(both).submit(wish, mode=mode)
    assert both.world.store.list_operations() == []


# --- the default


async def test_the_default_mode_is_host_if_a_broker_is_named_until_it_is_set(both: Both) -> None:
    assert (await _trainings(both).default_mode()).mode is Mode.LOCAL
    assert (await _trainings(both, broker_url="amqp://broker").default_mode()).mode is Mode.HOST
    assert (await _trainings(both, default_mode="auto").default_mode()).mode is Mode.AUTO
    await _trainings(both).set_default_mode(Mode.HOST)
    await _trainings(both).set_default_mode(Mode.AUTO)
    assert (await _trainings(both, default_mode="local").default_mode()).mode is Mode.AUTO


async def test_the_default_mode_that_is_set_at_one_backend_is_that_of_all(both: Both) -> None:
    with OperationStore.open(both.world.settings) as of_another_process:
        for mode in (Mode.AUTO, Mode.LOCAL):
            await _trainings(both).set_default_mode(mode)
            assert default_mode(both.world.settings, of_another_process).mode is mode


async def test_what_names_no_mode_runs_by_the_default_and_says_so(both: Both) -> None:
    trainings = _trainings(both)
    await trainings.set_default_mode(Mode.LOCAL)
    accepted = await trainings.submit(WISH, mode=None)
    assert accepted.decision.reason == "local is the default mode"


async def test_the_default_may_be_set_while_trainings_are_accepted(both: Both) -> None:
    trainings = _trainings(both)
    await trainings.set_default_mode(Mode.LOCAL)
    setting = [trainings.set_default_mode(mode) for mode in (Mode.AUTO, Mode.HOST, Mode.LOCAL)]
    accepted = await asyncio.gather(*setting, *(trainings.submit(WISH, mode=None) for _ in range(3)))
    assert all(one.created for one in accepted[len(setting) :] if one is not None)


# --- asking twice


async def test_under_the_same_key_two_clients_get_the_same_operation(both: Both) -> None:
    trainings = _trainings(both)
    first, second = await asyncio.gather(
        *(trainings.submit(WISH, mode=Mode.LOCAL, idempotency_key="k-1") for _ in range(2))
    )
    assert first.operation.operation_id == second.operation.operation_id
    assert sorted([first.created, second.created]) == [False, True]
    assert first.decision == second.decision
    again = await trainings.submit(WISH, mode=Mode.LOCAL, idempotency_key="k-1")
    assert (again.operation.operation_id, again.created) == (first.operation.operation_id, False)
    assert len(both.world.store.list_operations()) == 1


async def test_a_key_that_is_used_for_another_request_is_refused(both: Both) -> None:
    trainings = _trainings(both)
    await trainings.submit(WISH, mode=Mode.LOCAL, idempotency_key="k-1")
    with pytest.raises(IdempotencyError, match="Use a new key"):
        await trainings.submit(replace(WISH, seed=8), mode=Mode.LOCAL, idempotency_key="k-1")


async def test_without_a_key_each_request_makes_an_operation(both: Both) -> None:
    trainings = _trainings(both)
    made = [(await trainings.submit(WISH, mode=Mode.LOCAL)).operation.operation_id for _ in range(2)]
    assert len(set(made)) == 2


# --- both backends as one


async def test_an_operation_is_watched_and_cancelled_where_it_is_carried(both: Both) -> None:
    await _present(both)
    trainings = _trainings(both)
    backends = Backends(both.world.store, both.local, both.world.backend)
    for mode, agent in ((Mode.LOCAL, both.beside), (Mode.HOST, both.world.agent)):
        accepted = await trainings.submit(WISH, mode=mode)
        await both.world.pass_time()
        run = await agent.take()
        await both.world.pass_time()
        operation_id = accepted.operation.operation_id
        record = await anext(backends.watch(operation_id))
        assert (record.state, record.agent_id) == (State.RUNNING, agent.agent_id)
        await backends.cancel(operation_id, "enough")
        await both.world.pass_time()
        assert [stop.claim_id for stop in agent.stops()] == [run.claim_id] or agent.stops()
