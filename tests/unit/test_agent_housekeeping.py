"""What an agent that runs removes from its own directory, and when."""

import asyncio
import dataclasses
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.datasets import DatasetCache
from host_agent.directory import AgentDirectory
from host_agent.housekeeping import Housekeeper
from host_agent.journal import Claim, Journal
from ktrdr.blobs.directory import DirectoryBlobStore
from tests.contract.virtual_clock import VirtualClock
from tests.unit.agent_cases import ScriptedRunner, World, eventually
from tests.unit.agent_fixtures import around, directory, runner

__all__ = ["around", "directory", "runner"]  # fixtures

DAY = timedelta(days=1)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def housekeeper(tmp_path: Path, directory: AgentDirectory, clock: VirtualClock) -> Housekeeper:
    return Housekeeper(
        datasets=DatasetCache(
            DirectoryBlobStore(tmp_path / "blobs"),
            directory.datasets,
            limit_bytes=1000,
            kept=7 * DAY,
            clock=clock,
        ),
        set_aside=directory.set_aside,
        kept=90 * DAY,
        clock=clock,
    )


def leave(path: Path, clock: VirtualClock, *, before: timedelta) -> Path:
    """Leave something there that is so old."""
    path.write_bytes(b"123")
    then = (clock.now() - before).timestamp()
    os.utime(path, (then, then))
    return path


async def test_what_is_old_goes_at_the_start_and_then_each_day(
    housekeeper: Housekeeper, directory: AgentDirectory, clock: VirtualClock
) -> None:
    claim = Claim(operation_id="op-1", attempt=1, claim_id="claim-1")
    claimed = Journal(directory).open(claim)
    leave(claimed.bundle, clock, before=1000 * DAY)
    old = [
        leave(directory.set_aside / "old", clock, before=91 * DAY),
        leave(directory.datasets / "old", clock, before=8 * DAY),
    ]
    young = [
        leave(directory.set_aside / "young", clock, before=89.5 * DAY),
        leave(directory.datasets / "young", clock, before=6.5 * DAY),
    ]
    running = asyncio.create_task(housekeeper.run())
    await eventually(lambda: clock.sleepers == 1)
    assert [path.exists() for path in (*old, *young)] == [False, False, True, True]
    await clock.advance(DAY.total_seconds())
    await eventually(lambda: not any(path.exists() for path in young))
    assert claimed.bundle.exists()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_directory_that_cannot_be_tidied_now_is_tidied_the_next_day(
    housekeeper: Housekeeper, directory: AgentDirectory, clock: VirtualClock
) -> None:
    away = directory.datasets.rename(directory.path / "away")
    running = asyncio.create_task(housekeeper.run())
    await eventually(lambda: clock.sleepers == 1)
    away.rename(directory.datasets)
    old = leave(directory.datasets / "old", clock, before=8 * DAY)
    await clock.advance(DAY.total_seconds())
    await eventually(lambda: not old.exists())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_agent_keeps_house_as_its_options_say(
    around: World, directory: AgentDirectory, runner: ScriptedRunner
) -> None:
    options = dataclasses.replace(around.options, set_aside_kept=90 * DAY)
    paths = [directory.set_aside / name for name in ("old", "young")]
    for path, days in zip(paths, (91, 89), strict=True):
        path.write_bytes(b"")
        then = time.time() - days * DAY.total_seconds()
        os.utime(path, (then, then))
    agent = around.agent(directory, runner, options=options)
    await agent.start()
    await eventually(lambda: not paths[0].exists())
    await agent.stop()
    assert paths[1].exists()
