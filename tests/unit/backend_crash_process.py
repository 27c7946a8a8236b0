"""A process with a backend that kills itself (SIGKILL) at a named point; run by `test_backend_crashes.py`.

Usage: backend_crash_process.py DIRECTORY POINT
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from ktrdr.bus.memory import MemoryBroker, MemoryBus
from ktrdr.bus.topology import BACKEND_EVENTS
from ktrdr.clock import SystemClock
from ktrdr.events import ModelReady, TrainingRequested
from ktrdr.events.message import Message
from ktrdr.models.directory import ModelDirectory, StagedModel
from tests.unit.backend_cases import ScriptedAgent, model_files, real_backend, settings_in, wish

POINTS = (
    "submitted",
    "before publish",
    "after publish",
    "granted",
    "model staged",
    "before rename",
    "after rename",
    "before ack",
    "after ack",
)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class DyingBus:
    """Dies around the publishing of a request, or the acknowledgement of a model."""

    def __init__(self, bus: MemoryBus, point: str) -> None:
        self._bus = bus
        self._point = point

    async def publish(self, message: Message, **where: Any) -> None:
        is_request = message.type == TrainingRequested.type_name()
        if is_request and self._point == "before publish":
            die()
        await self._bus.publish(message, **where)
        if is_request and self._point == "after publish":
            die()

    async def consume(self, queue: str, **options: Any) -> Any:
        consumer = await self._bus.consume(queue, **options)
        return DyingConsumer(consumer, self._point) if queue == BACKEND_EVENTS else consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


class DyingConsumer:
    def __init__(self, consumer: Any, point: str) -> None:
        self._consumer = consumer
        self._point = point

    def __aiter__(self) -> "DyingConsumer":
        return self

    async def __anext__(self) -> Any:
        return DyingDelivery(await anext(self._consumer), self._point)

    async def cancel(self) -> None:
        await self._consumer.cancel()


class DyingDelivery:
    def __init__(self, delivery: Any, point: str) -> None:
        self._delivery = delivery
        self._point = point

    async def ack(self) -> None:
        is_model = self._delivery.message.type == ModelReady.type_name()
        if is_model and self._point == "before ack":
            die()
        await self._delivery.ack()
        if is_model and self._point == "after ack":
            die()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delivery, name)


class DyingDirectory(ModelDirectory):
    """Dies while a model is written."""

    def __init__(self, root: Path, point: str) -> None:
        super().__init__(root)
        self._point = point

    def stage(self, files: Any, *, owner: str) -> StagedModel:
        staged = super().stage(files, owner=owner)
        if self._point == "model staged":
            die()
        return staged

    def publish(self, staged: StagedModel, name: str) -> Path:
        if self._point == "before rename":
            die()
        path = super().publish(staged, name)
        if self._point == "after rename":
            die()
        return path


async def main(directory: Path, point: str) -> None:
    settings = settings_in(directory)
    broker = MemoryBroker(SystemClock())
    backend, _store = real_backend(
        settings,
        broker,
        bus=DyingBus(MemoryBus(broker), point),
        models=DyingDirectory(settings.models_dir, point),
    )
    agent = ScriptedAgent(broker, SystemClock())
    await agent.start()
    await backend.start()
    submission = await backend.submit(wish(fingerprint="same"))
    if point == "submitted":
        die()
    run = await agent.take()
    if point == "granted":
        async for record in backend.watch(submission.operation.operation_id):
            if record.claim_id == run.claim_id:
                die()
    await agent.say(agent.model(run, model_files(bytes(100_000))))
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
