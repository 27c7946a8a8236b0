"""Dramatiq, with what it leaves to its user done by hand: the operation and its model are recorded."""

import dramatiq

from benchmarks.peers.environment import broker_url, results_path
from benchmarks.peers.model_store import ModelStore
from benchmarks.peers.quorum_broker import QuorumBroker

store = ModelStore(results_path())
broker = QuorumBroker(url=broker_url(), confirm_delivery=True)


@dramatiq.actor(queue_name="peer.dramatiq-model", broker=broker)
def train(operation: str, strategy: str) -> None:
    if store.accept(operation):
        store.persist(operation)


def submit(strategy: str) -> None:
    operation = store.submit(strategy)
    train.send(operation, strategy)
    store.published(operation)
