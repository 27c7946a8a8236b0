"""Publish two trainings for host agents, and wait for their models: asynchronously, then in plain calls.

Needs a running `ktrdr serve` and an agent, and the same KTRDR_HOME as the former:

    ktrdr serve --broker amqp://…          # in one terminal
    ktrdr agent --broker amqp://…          # in another
    python examples/publish_and_wait.py    # here
"""

import asyncio
import sys

from ktrdr import ModelConsumer, TrainingPublisher

SHORT = {"training.epochs": 5}


async def one_after_the_other() -> None:
    """Publish two trainings at once; take each model as it is persisted."""
    async with TrainingPublisher() as publisher, ModelConsumer() as consumer:
        published = [await publisher.publish("eurusd_momentum", seed=s, overrides=SHORT) for s in (1, 2)]
        for operation_id in published:
            version = await consumer.model(operation_id, timeout_s=300)
            sys.stdout.write(f"{operation_id} made {version.name}: {version.metrics['accuracy']:.1%}\n")


def in_plain_calls() -> None:
    """Publish one training and wait for it, without an event loop."""
    with TrainingPublisher() as publisher, ModelConsumer() as consumer:
        operation_id = publisher.publish_sync("eurusd_momentum", seed=1, overrides=SHORT)
        version = consumer.model_sync(operation_id, timeout_s=300)
        sys.stdout.write(f"{operation_id} made {version.name}; report: {version.report}\n")


if __name__ == "__main__":
    asyncio.run(one_after_the_other())
    in_plain_calls()
