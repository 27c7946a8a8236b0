"""Dramatiq's broker with quorum queues, for which it has no setting."""

from typing import Any

from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.common import xq_name


class QuorumBroker(RabbitmqBroker):
    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}

    def _declare_xq_queue(self, queue_name: str) -> Any:
        arguments = {"x-queue-type": "quorum"}
        return self.channel.queue_declare(queue=xq_name(queue_name), durable=True, arguments=arguments)
