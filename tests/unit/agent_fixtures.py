"""Fixtures of an agent's tests; a test module imports those that it uses."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from host_agent.agent import HostAgent
from host_agent.directory import AgentDirectory, open_directory
from tests.unit.agent_cases import ScriptedRunner, World, world

__all__ = ["agent", "around", "directory", "runner"]


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[World]:
    """A broker and a listening backend."""
    async with world(tmp_path) as around:
        yield around


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[AgentDirectory]:
    """The directory of the agent ``agent``."""
    with open_directory(tmp_path / "agents", "agent") as directory:
        yield directory


@pytest.fixture
def runner() -> ScriptedRunner:
    """A runner that does as the test says."""
    return ScriptedRunner()


@pytest.fixture
async def agent(around: World, directory: AgentDirectory, runner: ScriptedRunner) -> AsyncIterator[HostAgent]:
    """A running agent of one slot."""
    agent = around.agent(directory, runner)
    await agent.start()
    yield agent
    await agent.stop()
    assert runner.closed
