"""A request and its acceptance by hand: raw aio-pika and sqlite3, with the guarantees that ours has.

The requester records the request before it publishes it, and that it went out, after the confirm. The
acceptor writes its claim to the disk, publishes the acceptance, and acknowledges after the confirm. The
requester records the acceptance before it acknowledges it. As a program this is the acceptor.
"""

import asyncio
import sqlite3
import sys
import uuid
from pathlib import Path

import aio_pika

from benchmarks.broker import READY
from benchmarks.peers.result_file import prepare_wal
from benchmarks.raw_amqp import RawPublisher
from host_agent.durable import write_durably
from ktrdr.events.message import Message

_TIMEOUT_S = 10.0


class PlainRequester:
    """Sends requests, and knows when each has been accepted."""

    def __init__(self, publisher: RawPublisher, database: Path, requests: str, answers: str) -> None:
        self._publisher = publisher
        self._requests, self._answers = requests, answers
        self._database: sqlite3.Connection = prepare_wal(database, any_thread=True)
        self._database.execute(
            "CREATE TABLE jobs (id TEXT PRIMARY KEY, request BLOB, sent INT, accepted INT)"
        )
        self._accepted: dict[str, asyncio.Event] = {}
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        channel = await self._publisher.connection.channel()
        await channel.set_qos(prefetch_count=16)
        queue = await channel.get_queue(self._answers)
        await queue.consume(self._hear)

    async def request(self, body: bytes) -> None:
        """Return once the job has been accepted, and that is recorded."""
        job = str(uuid.uuid4())
        self._accepted[job] = asyncio.Event()
        await self._write("INSERT INTO jobs VALUES (?, ?, 0, 0)", job, body)
        await self._publisher.publish(
            _message(job, body), exchange="", routing_key=self._requests, timeout_s=_TIMEOUT_S
        )
        await self._write("UPDATE jobs SET sent = 1 WHERE id = ?", job)
        await self._accepted[job].wait()
        del self._accepted[job]

    async def _hear(self, delivery: aio_pika.abc.AbstractIncomingMessage) -> None:
        job = str(delivery.correlation_id)
        await self._write("UPDATE jobs SET accepted = 1 WHERE id = ?", job)
        await delivery.ack()
        self._accepted[job].set()

    async def _write(self, statement: str, *values: object) -> None:
        async with self._writing:
            await asyncio.to_thread(self._database.execute, statement, values)


def _message(job: str, body: bytes) -> Message:
    return Message(body, message_id=str(uuid.uuid4()), type="plain", correlation_id=job)


async def _accept(url: str, directory: Path, requests: str, answers: str) -> None:
    async with RawPublisher(url) as publisher, await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue(requests)
        sys.stdout.write(f"{READY}\n")
        async with queue.iterator() as deliveries:
            async for delivery in deliveries:
                job = str(delivery.correlation_id)
                await asyncio.to_thread(write_durably, directory / job, delivery.body)
                await publisher.publish(
                    _message(job, b"accepted"), exchange="", routing_key=answers, timeout_s=_TIMEOUT_S
                )
                await delivery.ack()


if __name__ == "__main__":
    url, directory, requests, answers = sys.argv[1:]
    asyncio.run(_accept(url, Path(directory), requests, answers))
