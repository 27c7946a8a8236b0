"""`kill -9` at each point: an accepted request ends in exactly one model, nothing half-written is left."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.bus.memory import MemoryBroker
from ktrdr.clock import SystemClock
from ktrdr.events import FailureCause
from ktrdr.models.directory import ModelDirectory
from tests.unit import backend_crash_process
from tests.unit.backend_cases import Run, ScriptedAgent, model_files, real_backend, settings_in, wish

ROOT = Path(__file__).parents[2]


def _die_at(directory: Path, point: str) -> str:
    """Have a process die at that point and return the operation that it had accepted."""
    dead = subprocess.run(
        [sys.executable, backend_crash_process.__file__, str(directory), point],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    with OperationStore.open(settings_in(directory)) as store:
        newest = store.list_operations(limit=1)[0]
    return newest.operation_id


@pytest.mark.fault
@pytest.mark.parametrize("point", backend_crash_process.POINTS)
async def test_a_backend_that_is_killed_loses_nothing_and_makes_nothing_twice(
    tmp_path: Path, point: str
) -> None:
    operation_id = await asyncio.to_thread(_die_at, tmp_path, point)
    settings = settings_in(tmp_path)
    broker = MemoryBroker(SystemClock())
    backend, store = real_backend(settings, broker)
    agent = ScriptedAgent(broker, SystemClock(), "agent-that-adopts")
    left = store.get(operation_id)
    await agent.start()
    async with backend:
        submission = await backend.submit(wish(fingerprint="same"))
        assert submission.resumed is not left.state.terminal
        if not left.state.terminal:
            assert submission.operation.operation_id == operation_id
        found = store.find_request(operation_id)
        assert found is not None
        dead = Run(found[1], left.claim_id or "", "agent-1")
        if not left.claim_id:
            run = await agent.take()
            assert run.request.attempt == 1
            await agent.finish(run)
        elif point == "granted":
            # The agent that adopts the dead one's claim says so.
            await agent.fail(dead, FailureCause.AGENT_RESTARTED)
            run = await agent.take()
            assert run.request.attempt == 2
            await agent.finish(run)
        else:
            # The result is in the spool of the dead agent; who adopts it sends it again.
            await agent.say(agent.model(dead, model_files(bytes(100_000))))
        async with asyncio.timeout(60):
            ended = await backend.wait(operation_id)

    assert (ended.state, ended.model) == (State.COMPLETED, "momentum/EURUSD_1h_v1")
    (model,) = store.models.list_models()
    directory = ModelDirectory(settings.models_dir)
    assert directory.verify(model.name, model.files) == []
    assert sorted(path.name for path in (settings.models_dir / "momentum").iterdir()) == [
        "EURUSD_1h_latest",
        "EURUSD_1h_v1",
    ]
    assert list((settings.models_dir / ".staging").iterdir()) == []
    assert not (settings.models_dir / ".replaced").exists()
    assert [str(entry.kind) for entry in store.history(operation_id)].count("model_persisted") == 1
    await agent.stop()
    store.close()


@pytest.mark.fault
async def test_a_living_process_goes_on_with_what_a_killed_one_ran(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    broker = MemoryBroker(SystemClock())
    backend, store = real_backend(settings, broker)
    agent = ScriptedAgent(broker, SystemClock(), "agent-of-the-living")
    await agent.start()
    async with backend:
        operation_id = await asyncio.to_thread(_die_at, tmp_path, "granted")
        async with asyncio.timeout(60):
            run = await agent.take()
            assert (run.request.operation_id, run.request.attempt) == (operation_id, 2)
            await agent.finish(run)
            assert (await backend.wait(operation_id)).state is State.COMPLETED
    await agent.stop()
    store.close()


@pytest.mark.fault
async def test_a_cancel_of_what_a_killed_process_ran_needs_no_other(tmp_path: Path) -> None:
    operation_id = await asyncio.to_thread(_die_at, tmp_path, "granted")
    with OperationStore.open(settings_in(tmp_path)) as store:
        assert store.get(operation_id).state is State.RUNNING
        assert store.is_interrupted(store.get(operation_id))
        assert store.cancel(operation_id, "enough").state is State.CANCELLED
