"""Takes and acknowledges what an exchange carries, with aio-pika by hand; a program of its own."""

import asyncio
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.broker import READY


async def main(url: str, exchange: str) -> None:
    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=50)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange)
        await queue.consume(_take)
        sys.stdout.write(f"{READY}\n")
        await asyncio.Event().wait()


async def _take(delivery: AbstractIncomingMessage) -> None:
    await delivery.ack()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
