"""Real trainings in real runner processes, told to stop or killed at every kind of moment."""

import asyncio
import dataclasses
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psutil
import pytest

from host_agent.agent import HostAgent
from host_agent.directory import AgentDirectory
from ktrdr.backend.preparation import PreparedTraining, prepare_training
from ktrdr.events import (
    FailureCause,
    ModelReady,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
    TrainingProgress,
    TrainingRequested,
)
from tests.e2e.command import command_line
from tests.unit.agent_cases import World, eventually
from tests.unit.agent_fixtures import around, directory
from tests.unit.conftest import REPOSITORY

__all__ = ["around", "directory"]  # fixtures

pytestmark = pytest.mark.slow

LONG = 100_000
"""Epochs that no test waits for."""


@pytest.fixture
def sample(around: World) -> PreparedTraining:
    """The sample strategy, which trains for hours."""
    return prepare_training(
        REPOSITORY / "strategies" / "eurusd_momentum.yaml",
        strategies_dir=REPOSITORY / "strategies",
        data_dir=REPOSITORY / "data",
        blobs=around.blobs,
        overrides={"training.epochs": LONG, "training.early_stopping": False},
    )


async def ask(around: World, sample: PreparedTraining, **overrides: object) -> TrainingRequested:
    strategy = sample.strategy
    if overrides:
        strategy = strategy.model_copy(update={"overrides": {**strategy.overrides, **overrides}})
    return await around.backend.ask(strategy=strategy, datasets=sample.datasets)


@asynccontextmanager
async def training_agent(
    around: World, directory: AgentDirectory, **changes: object
) -> AsyncIterator[HostAgent]:
    agent = around.agent(directory, options=dataclasses.replace(around.options, **changes))
    await agent.start()
    try:
        yield agent
    finally:
        await agent.stop()


def runners_of_this_process() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "host_agent.runner" in command_line(child)]


def runner_of_this_process() -> psutil.Process:
    [runner] = runners_of_this_process()
    return runner


async def test_a_training_ends_by_itself_at_whatever_moment_it_is_cancelled(
    around: World, directory: AgentDirectory, sample: PreparedTraining
) -> None:
    rng = random.Random(1)
    # Nobody is killed in the time of a test, and none of the trainings reaches its end.
    async with training_agent(around, directory, cancel_grace_s=3600.0):
        for number in range(1, 13):
            request = await ask(around, sample)
            await around.backend.event(TrainingAccepted, number)
            # From before the first step to the middle of an epoch.
            await asyncio.sleep(rng.choice([0, 0.02, 0.1, rng.random()]))
            await around.backend.cancel(request)
            await around.backend.event(TrainingCancelled, number)
    assert not around.backend.events(ModelReady)


async def test_a_cancel_does_not_wait_for_a_runner_that_is_still_starting(
    around: World, directory: AgentDirectory, sample: PreparedTraining
) -> None:
    # The device must be known for the acceptance, so it is the second job that finds a cold runner.
    async with training_agent(around, directory) as agent:
        request = await ask(around, sample)
        await around.backend.event(TrainingProgress)
        runner_of_this_process().kill()
        failed = await around.backend.event(TrainingFailed)
        assert failed.cause is FailureCause.RUNNER_CRASHED
        request = await ask(around, sample)
        await eventually(runners_of_this_process)
        runner_of_this_process().send_signal(signal.SIGSTOP)  # long before it has imported torch
        await around.backend.event(TrainingAccepted, 2)
        await around.backend.cancel(request)
        await around.backend.event(TrainingCancelled)
        assert agent.running == 0


async def test_a_runner_that_ignores_its_cancellation_is_killed_and_replaced(
    around: World, directory: AgentDirectory, sample: PreparedTraining
) -> None:
    async with training_agent(around, directory, cancel_grace_s=0.3):
        request = await ask(around, sample)
        await around.backend.event(TrainingProgress)
        runner = runner_of_this_process()
        runner.send_signal(signal.SIGSTOP)
        await around.backend.cancel(request)
        await around.backend.event(TrainingCancelled)
        assert not runner.is_running()
        await ask(around, sample, **{"training.epochs": 1})
        await eventually(lambda: around.backend.events(ModelReady), patience_s=60)


async def test_a_runner_leaves_it_to_the_agent_what_a_signal_to_all_processes_means(
    around: World, directory: AgentDirectory, sample: PreparedTraining
) -> None:
    async with training_agent(around, directory):
        await ask(around, sample)
        await around.backend.event(TrainingProgress)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            runner_of_this_process().send_signal(number)
        heard = len(around.backend.events(TrainingProgress))
        await around.backend.event(TrainingProgress, heard + 3)
        assert not around.backend.events(TrainingFailed)


async def test_no_runner_outlives_its_agent(
    around: World, directory: AgentDirectory, sample: PreparedTraining
) -> None:
    async with training_agent(around, directory):
        await ask(around, sample)
        await around.backend.event(TrainingProgress)
        runner = runner_of_this_process()
    assert not runner.is_running()


@pytest.fixture(autouse=True)
def no_runner_is_left() -> Iterator[None]:
    yield
    # Other tests of this process may have a broker of theirs beside it.
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "host_agent.runner" in command_line(child)], os.getpid()
