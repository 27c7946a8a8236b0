"""The peers as the benchmark uses them: a publisher in this process, workers in others."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.environment import BROKER, RESULTS
from benchmarks.peers.result_file import prepare_wal

PUBLISHERS = 8
"""Publishes outstanding at a time."""


@dataclass(frozen=True, slots=True)
class System:
    """One job system, and how it is run here."""

    name: str
    worker: tuple[str, ...]
    """What Python is started with for its workers; tuned to two cores, see the README."""
    connect: Callable[[], Awaitable[Callable[[str], Awaitable[None]]]]
    """Imports the application; what it returns publishes a job and waits for the broker's confirm."""
    count: str
    """Counts the results in its database."""
    guarantees: str
    """What it promises so set up, and does not, in a sentence; the README says how that was found."""


def environment(broker_url: str, results: Path) -> dict[str, str]:
    """What its application is told; also that of the publisher, in this process."""
    return {BROKER: broker_url, RESULTS: str(results)}


async def stored(database: Path, count: str, wanted: int) -> None:
    """Wait until so many results are there for everyone to see."""
    connection = prepare_wal(database)
    try:
        while _count(connection, count) < wanted:  # noqa: ASYNC110 (other processes write it)
            await asyncio.sleep(0.002)
    finally:
        connection.close()


def _count(connection: sqlite3.Connection, query: str) -> int:
    try:
        return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # no table yet


async def _celery() -> Callable[[str], Awaitable[None]]:
    from benchmarks.peers.celery_app import noop

    return _in_threads(noop.delay)


async def _dramatiq() -> Callable[[str], Awaitable[None]]:
    from benchmarks.peers.dramatiq_app import noop

    return _in_threads(noop.send)


async def _dramatiq_model() -> Callable[[str], Awaitable[None]]:
    from benchmarks.peers.dramatiq_model_app import submit

    return _in_threads(submit)


async def _taskiq() -> Callable[[str], Awaitable[None]]:
    from benchmarks.peers.taskiq_app import broker, noop

    await broker.startup()

    async def publish(strategy: str) -> None:
        await noop.kiq(strategy)

    return publish


def _in_threads(publish: Callable[[str], object]) -> Callable[[str], Awaitable[None]]:
    threads = ThreadPoolExecutor(PUBLISHERS)

    async def publish_in_thread(strategy: str) -> None:
        await asyncio.get_running_loop().run_in_executor(threads, publish, strategy)

    return publish_in_thread


_COUNT_RESULTS = "SELECT count(*) FROM results"

SYSTEMS = (
    System(
        "Celery",
        (
            *("-m", "celery", "-A", "benchmarks.peers.celery_app", "worker", "--loglevel=WARNING"),
            *("--pool=prefork", "--concurrency=4", "--without-gossip", "--without-mingle"),
        ),
        _celery,
        "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'",
        "At least once; a result that comes twice overwrites.",
    ),
    System(
        "Dramatiq",
        (
            *("-m", "dramatiq", "benchmarks.peers.dramatiq_app:broker", "--processes=1", "--threads=4"),
            "--skip-logging",
        ),
        _dramatiq,
        _COUNT_RESULTS,
        "At least once; loses a result that cannot be stored.",
    ),
    System(
        "Taskiq",
        (
            *("-m", "taskiq", "worker", "benchmarks.peers.taskiq_app:broker", "--workers=2"),
            *("--max-async-tasks=8", "--ack-type=when_saved", "--log-level=WARNING"),
        ),
        _taskiq,
        _COUNT_RESULTS,
        "At least once; loses a result that cannot be stored, and a job that no queue takes.",
    ),
    System(
        "Dramatiq, operation and model recorded by hand",
        (
            *("-m", "dramatiq", "benchmarks.peers.dramatiq_model_app:broker", "--processes=1", "--threads=4"),
            "--skip-logging",
        ),
        _dramatiq_model,
        "SELECT count(*) FROM operations WHERE state = 'completed'",
        "One model each; still no outbox, no lease, no cancel, no verification, no progress.",
    ),
)

QUEUES = (
    "peer.celery",
    *(f"peer.{name}{kind}" for name in ("dramatiq", "dramatiq-model") for kind in ("", ".DQ", ".XQ")),
    "peer.taskiq",
    "peer.taskiq.dead",
)
"""What they leave on the broker."""
EXCHANGES = ("peer.celery", "peer.taskiq")
"""Likewise."""
