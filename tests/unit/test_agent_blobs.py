"""Large models on their way to a backend elsewhere: sent once, told again, or refused for good."""

import dataclasses
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from host_agent.agent import HostAgent
from host_agent.directory import AgentDirectory
from ktrdr.blobs.http import HttpBlobStore
from ktrdr.events import FailureCause, ModelReady, TrainingFailed
from tests.blob_server import MIB, TOKEN, Served, blob_server
from tests.cutting_proxy import CuttingProxy
from tests.unit.agent_cases import Model, QuickClock, ScriptedRunner, World, eventually
from tests.unit.agent_fixtures import around, directory, runner

__all__ = ["around", "directory", "runner"]  # fixtures

MODEL = random.Random(3).randbytes(3 * MIB)


@asynccontextmanager
async def agent_at(
    around: World, directory: AgentDirectory, runner: ScriptedRunner, url: str
) -> AsyncIterator[HostAgent]:
    """Run an agent that sends its models there."""
    store = HttpBlobStore(url, TOKEN, give_up_after_s=0.2)
    around.blobs = store  # type: ignore[assignment]  # a store as the backend's, for who only puts and fetches
    agent = around.agent(directory, runner)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.stop()
        store.close()


def has_model(server: Served) -> bool:
    return server.store.exists(hashlib.sha256(MODEL).hexdigest())


async def test_a_model_that_is_told_again_is_not_sent_again(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.clock = QuickClock(factor=200)
    around.backend.answers = False
    with blob_server(around.backend.blobs.root) as server:
        proxy = CuttingProxy(server.port)
        with proxy.running() as url:
            async with agent_at(around, directory, runner, url):
                runner.finish(Model(MODEL))
                await around.backend.ask()
                await eventually(lambda: len(around.backend.events(ModelReady)) >= 3)
                assert has_model(server)
                assert proxy.up < len(MODEL) + MIB
                await around.backend.persisted(around.backend.events(ModelReady)[0])
                await eventually(lambda: not list(directory.claims.iterdir()))


async def test_a_model_that_is_told_again_is_sent_again_if_it_is_not_there_any_more(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.clock = QuickClock(factor=200)
    around.backend.answers = False
    with blob_server(around.backend.blobs.root) as server:
        async with agent_at(around, directory, runner, server.url):
            runner.finish(Model(MODEL))
            await around.backend.ask()
            ready = await around.backend.event(ModelReady)
            assert ready.blob is not None
            server.store.delete(ready.blob.sha256)
            await eventually(lambda: has_model(server))
            await around.backend.persisted(ready)
            await eventually(lambda: not list(directory.claims.iterdir()))


@pytest.mark.fault
async def test_a_backend_that_is_away_gets_the_model_when_it_is_back(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    async with AsyncExitStack() as later:
        with blob_server(around.backend.blobs.root) as server:
            await later.enter_async_context(agent_at(around, directory, runner, server.url))
            await around.backend.ask()
            await eventually(lambda: runner.active)
        runner.finish(Model(MODEL))
        await eventually(lambda: list(directory.claims.glob("*/ending.json")))
        assert not around.backend.events(ModelReady)
        with blob_server(around.backend.blobs.root, port=server.port) as server:
            ready = await around.backend.event(ModelReady)
            assert ready.blob is not None
            assert server.store.get(ready.blob, 2**30) == MODEL
            await eventually(lambda: not list(directory.claims.iterdir()))
    assert not around.backend.events(TrainingFailed)


async def test_a_model_that_the_backend_finds_too_large_is_a_failure_that_says_so(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    around.options = dataclasses.replace(around.options, inline_limit_bytes=MIB)
    with blob_server(around.backend.blobs.root, max_blob_bytes=2 * MIB) as server:
        async with agent_at(around, directory, runner, server.url):
            runner.finish(Model(MODEL))
            await around.backend.ask()
            failed = await around.backend.event(TrainingFailed)
            assert failed.cause is FailureCause.RESULT_REJECTED
            assert "the limit is 2,097,152" in failed.message
            assert "KTRDR_MAX_MODEL_BYTES" in failed.message
            await eventually(lambda: not list(directory.claims.iterdir()))
