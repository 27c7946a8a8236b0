"""A training says the same steps wherever it runs; only who says them, and where, differs."""

import asyncio
import json
import re
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from host_agent.steps import AgentStep
from ktrdr.app.embedded import prepare, submission_of, train_embedded
from ktrdr.app.hosting import hosted
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.log_reading import LogRecord, read_log
from ktrdr.backend.service import Backend
from ktrdr.backend.states import State
from ktrdr.backend.steps import BackendStep
from ktrdr.backend.store import OperationStore
from ktrdr.backend.wishes import TrainingWish
from ktrdr.blobs.opening import open_blob_store
from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.clock import SystemClock
from ktrdr.ids import RandomIds
from ktrdr.logs import configure_logging
from ktrdr.settings import Settings
from ktrdr.training.progress import Stage
from tests.unit.backend_cases import eventually, settings_in

REPOSITORY = Path(__file__).parents[2]
WISH = TrainingWish(
    strategy="eurusd_momentum", start="2017-03-01", end="2017-04-30", overrides={"training.epochs": 2}, seed=7
)
STEP = re.compile(r"\[\d+/\d+\] .+")
LAST = "told the backend"


def installation(directory: Path) -> Settings:
    return settings_in(
        directory,
        data_dir=REPOSITORY / "data",
        strategies_dir=REPOSITORY / "strategies",
        device="cpu",
        agent_id="alpha",
        log_level="debug",
    )


async def trained_here(settings: Settings) -> str:
    return (await train_embedded(WISH, settings, stop=asyncio.Event())).operation_id


async def trained_on_a_host(settings: Settings) -> str:
    broker, clock, ids = MemoryBroker(), SystemClock(), RandomIds()
    with closing(open_blob_store(settings)) as blobs, OperationStore.open(settings) as store:
        bus = MemoryBus(broker)
        backend = Backend(
            settings, bus=bus, store=store, blobs=blobs, clock=clock, ids=ids, owner=BROKER_OWNER
        )
        async with backend:
            wish = submission_of(prepare(WISH, settings, blobs), WISH, ids)
            operation = (await backend.submit(wish)).operation
            async with hosted(settings, connect=lambda *_: MemoryBus(broker)) as agent:
                await agent.start()
                assert (await backend.wait(operation.operation_id)).state is State.COMPLETED
                await eventually(
                    lambda: LAST in [line.event for line in read_log(store, operation.operation_id)], LAST
                )
        await bus.close()
    return operation.operation_id


def agents_lines(settings: Settings, operation_id: str) -> list[LogRecord]:
    with OperationStore.open(settings) as store:
        return read_log(store, operation_id)


def steps_of_agent(lines: list[LogRecord]) -> list[tuple[str, str]]:
    return [(line.source, line.event) for line in lines if STEP.fullmatch(line.event)]


def steps_of_backend(said: str) -> list[str]:
    """Return the backend's own steps from what the process has logged, each line with what it is about."""
    titles = {step.step for step in BackendStep}
    lines = [json.loads(line) for line in said.splitlines()]
    steps = [line for line in lines if line["event"] in titles]
    assert len({line["operation_id"] for line in lines if "operation_id" in line}) == 1
    assert {(line["operation_id"] is not None, line["attempt"]) for line in steps} == {(True, 1)}
    of_agent = {step.step for step in (*AgentStep, *Stage)} | {LAST, "result settled", "training"}
    for line in lines:
        if line["event"] in of_agent:
            assert {"operation_id", "attempt", "agent"} <= line.keys(), line
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta()
    return [line["event"] for line in steps]


@pytest.mark.slow
async def test_the_steps_of_a_training_here_and_on_a_host_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "json")
    here, there = installation(tmp_path / "here"), installation(tmp_path / "there")
    lines_here = agents_lines(here, await trained_here(here))
    said_here = capsys.readouterr().err
    lines_there = agents_lines(there, await trained_on_a_host(there))
    said_there = capsys.readouterr().err

    assert (
        steps_of_agent(lines_here)
        == steps_of_agent(lines_there)
        == [
            ("agent", "[1/4] Accepting the training"),
            ("agent", "[2/4] Fetching its data"),
            ("agent", "[3/4] Running the executor"),
            ("executor", "[1/8] Loading data"),
            ("executor", "[2/8] Computing indicators"),
            ("executor", "[3/8] Computing fuzzy memberships"),
            ("executor", "[4/8] Labelling bars"),
            ("executor", "[5/8] Splitting train, validation and test"),
            ("executor", "[6/8] Training"),
            ("executor", "[7/8] Evaluating on the test part"),
            ("executor", "[8/8] Packaging the model"),
            ("agent", "[4/4] Delivering how it ended"),
        ]
    )
    assert (
        steps_of_backend(said_here)
        == steps_of_backend(said_there)
        == [
            "[1/4] Recording the training",
            "[2/4] Asking for an agent",
            "[3/4] Waiting for the model",
            "[4/4] Closing the operation",
        ]
    )
    # Nothing was left out, and the details of each step are there.
    assert sum(line.left_out for line in (*lines_here, *lines_there)) == 0
    for lines in (lines_here, lines_there):
        assert [line.level for line in lines if line.event == "stage done"] == ["debug"] * 8
    assert {line.agent_id for line in lines_here} == {"embedded-1"}
    assert {line.agent_id for line in lines_there} == {"alpha"}
