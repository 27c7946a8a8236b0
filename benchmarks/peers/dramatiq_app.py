"""Dramatiq: quorum queues, confirmed mandatory publishes, acknowledged after the result is in SQLite."""

from typing import Any

import dramatiq
from dramatiq.results import Results
from dramatiq.results.backend import Missing, ResultBackend

from benchmarks.peers.environment import broker_url, job, results_path
from benchmarks.peers.quorum_broker import QuorumBroker
from benchmarks.peers.result_file import ResultFile


class SqliteResults(ResultBackend):
    """It comes with Redis and Memcached only, neither of which keeps each result through a power loss."""

    def __init__(self) -> None:
        super().__init__()
        self._file = ResultFile(results_path())

    def _get(self, message_key: str) -> Any:
        found = self._file.get(message_key)
        return self.encoder.decode(found) if found is not None else Missing

    def _store(self, message_key: str, result: Any, ttl: int) -> None:
        self._file.store(message_key, self.encoder.encode(result))


broker = QuorumBroker(url=broker_url(), confirm_delivery=True)
broker.add_middleware(Results(backend=SqliteResults(), store_results=True))


@dramatiq.actor(queue_name="peer.dramatiq", broker=broker)
def noop(strategy: str) -> str:
    return job(strategy)
