"""Taskiq: a quorum queue, confirmed publishes, acknowledged after the result is in SQLite."""

import asyncio
from typing import Any

from taskiq import AsyncResultBackend, TaskiqResult
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.exchange import Exchange
from taskiq_aio_pika.queue import Queue, QueueType

from benchmarks.peers.environment import broker_url, job, results_path
from benchmarks.peers.result_file import ResultFile


class SqliteResults(AsyncResultBackend[Any]):
    """Its durable result stores are separate packages for servers; this one is as durable, and nearer."""

    def __init__(self) -> None:
        self._file = ResultFile(results_path())

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        await asyncio.to_thread(self._file.store, task_id, result.model_dump_json().encode())

    async def is_result_ready(self, task_id: str) -> bool:
        return await asyncio.to_thread(self._file.get, task_id) is not None

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        found = await asyncio.to_thread(self._file.get, task_id)
        assert found is not None
        return TaskiqResult.model_validate_json(found)


broker = AioPikaBroker(
    broker_url(),
    qos=32,
    exchange=Exchange(name="peer.taskiq"),
    task_queues=[Queue(name="peer.taskiq", type=QueueType.QUORUM)],
    dead_letter_queue=Queue(name="peer.taskiq.dead", type=QueueType.QUORUM),
).with_result_backend(SqliteResults())


@broker.task(task_name="peer.noop")
async def noop(strategy: str) -> str:
    return job(strategy)
