"""Celery: a quorum queue, confirmed publishes, acknowledged after the result is in the database."""

from celery import Celery

from benchmarks.peers.environment import broker_url, job, results_path
from benchmarks.peers.result_file import prepare_wal

prepare_wal(results_path()).close()  # the mode stays with the file; SQLite's default then syncs each commit
app = Celery("peer", broker=broker_url(), backend=f"db+sqlite:///{results_path()}")
app.conf.update(
    task_default_queue="peer.celery",
    task_default_queue_type="quorum",
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    task_ignore_result=False,
    database_engine_options={"connect_args": {"timeout": 30}},
    broker_connection_retry_on_startup=True,
)


@app.task(name="peer.noop")  # type: ignore[untyped-decorator]
def noop(strategy: str) -> str:
    return job(strategy)
