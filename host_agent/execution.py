"""Carrying an attempt out: fetch its data, run it, and say how it ended, whatever happens."""

import asyncio
import logging

import structlog

from host_agent.attempt_log import AttemptLog
from host_agent.attempts import Attempt, Stop
from host_agent.complaint import Complaint
from host_agent.endings import Cancelled, Ending, Failed, Trained
from host_agent.failures import ending_of
from host_agent.frames import LogLine
from host_agent.journal import ClaimFolder
from host_agent.progress_feed import ProgressFeed
from host_agent.progress_log import ProgressLog
from host_agent.runner_process import Runner
from host_agent.shared import Shared
from host_agent.steps import AgentStep
from host_agent.waiting import Backoff, first_of
from ktrdr.errors import BlobError, KtrdrError, RunnerCrashedError
from ktrdr.events.causes import FailureCause
from ktrdr.events.training import TrainingRequested
from ktrdr.logs.overhearing import overheard_by
from ktrdr.training.job import Dataset, TrainingJob
from ktrdr.training.progress import Progress

_DATA_PATIENCE_S = 300.0

_log = structlog.get_logger()


async def carry_out(
    request: TrainingRequested,
    attempt: Attempt,
    folder: ClaimFolder,
    runner: Runner,
    shared: Shared,
    log: AttemptLog,
) -> Ending:
    """Run an attempt in a runner, and return how it ended; it is never an exception."""
    feed = ProgressFeed(shared.link, attempt.claim, agent_id=shared.agent_id, clock=shared.clock)
    progress_log = ProgressLog(shared.clock)

    def on_progress(progress: Progress) -> None:
        feed.put(progress)
        progress_log.put(progress)

    def on_log(line: LogLine) -> None:
        log.relay(line)
        with overheard_by(None):  # It is relayed as what it is.
            _show(line)

    try:
        with shared.datasets.in_use(request.datasets):
            _log.info(AgentStep.FETCH.step, datasets=len(request.datasets))
            fetching = asyncio.create_task(_fetch(request, shared))
            await first_of(fetching, attempt.stopping.wait())
            if attempt.stopping.is_set():
                return Cancelled()
            _log.info(AgentStep.RUN.step)
            return await runner.run(
                _job(request, fetching.result(), shared.options.threads),
                run_id=attempt.claim.claim_id,
                bundle=folder.bundle,
                cancel=attempt.stopping,
                on_progress=on_progress,
                on_log=on_log,
            )
    except RunnerCrashedError as error:
        runner.warm()
        _log.warning("runner crashed", reason=str(error))
        return ending_of(error)
    except KtrdrError as error:
        _log.warning("attempt failed", reason=str(error))
        return ending_of(error)
    except Exception as error:
        _log.exception("attempt failed by a defect")
        return ending_of(error)
    finally:
        # Where it was when it was stopped is not worth any delay.
        await feed.close(flush=not attempt.stopping.is_set())


async def _fetch(request: TrainingRequested, shared: Shared) -> tuple[Dataset, ...]:
    """Fetch the data; a store that is away is waited for, since it may be the backend, being restarted."""
    give_up_at = shared.clock.monotonic() + _DATA_PATIENCE_S
    pauses = Backoff(0.5, 15.0, shared.rng)
    complaint = Complaint("training data cannot be fetched yet", shared.clock)
    while True:
        try:
            return await shared.datasets.fetch(request.datasets)
        except BlobError as error:
            if not error.retryable or shared.clock.monotonic() >= give_up_at:
                raise
            complaint.repeat(reason=str(error))
        await shared.clock.sleep(pauses.next())


def as_asked(attempt: Attempt, ending: Ending) -> Ending:
    """Return the ending in the light of why the attempt was to stop, if it was."""
    match attempt.stop, ending:
        case Stop.CANCELLED, Trained(manifest=manifest):
            return Cancelled(epoch=manifest.epochs_trained)
        case Stop.SHUTDOWN, Cancelled(epoch=epoch):
            return Failed(
                cause=FailureCause.AGENT_SHUTDOWN,
                message="The agent was told to stop before the training was done.",
                epoch=epoch,
            )
        case _:
            return ending


def _job(request: TrainingRequested, datasets: tuple[Dataset, ...], threads: int) -> TrainingJob:
    return TrainingJob(
        operation_id=request.operation_id,
        attempt=request.attempt,
        strategy_name=request.strategy.name,
        strategy_yaml=request.strategy.yaml,
        datasets=datasets,
        seed=request.seed,
        overrides=request.strategy.overrides,
        threads=threads,
    )


def _show(line: LogLine) -> None:
    """Log a runner's line as if it were the agent's own."""
    level = logging.getLevelNamesMapping().get(line.level.upper(), logging.INFO)
    _log.log(level, line.event, **line.fields)
