"""The runner process as the agent uses it: always one to run a job in, whatever became of the last."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from host_agent.endings import Cancelled, Ending
from host_agent.frames import Cancel, Ended, LogLine, Progressed, Ready, Start
from host_agent.runner_child import RunnerChild, RunnerOptions
from host_agent.waiting import first_of
from ktrdr.clock import Clock
from ktrdr.errors import RunnerCrashedError
from ktrdr.logs.binding import context_of_no_operation
from ktrdr.training.job import TrainingJob
from ktrdr.training.progress import Progress

_STARTUP_LIMIT_S = 180.0
"""From a cold disk, with the drivers of several GPUs, imports may take a minute."""

_log = structlog.get_logger()


class Runner(Protocol):
    """What runs jobs for a slot, one at a time."""

    def warm(self) -> None:
        """Begin to get ready, without waiting for it."""

    async def ready(self) -> Ready:
        """Wait until jobs can be run, and return on what device.

        Raises:
            RunnerCrashedError: it cannot be started; the next call tries again.
        """

    async def run(
        self,
        job: TrainingJob,
        *,
        run_id: str,
        bundle: Path,
        cancel: asyncio.Event,
        on_progress: Callable[[Progress], None],
        on_log: Callable[[LogLine], None],
    ) -> Ending:
        """Run a job and return how it ended.

        Args:
            job: what to train; on the runner's device, whatever the job says.
            run_id: tells runs apart.
            bundle: where the packed bundle is, once this has returned `Trained`.
            cancel: when set, the run ends soon, the hard way if need be.
            on_progress: is told the newest progress, every 50 ms on average at most.
            on_log: is given the runner's lines of the log.

        Raises:
            RunnerCrashedError: it ended without a word; the next call starts a new one.
        """

    async def close(self) -> None:
        """End it."""


class RunnerProcess:
    """A `Runner` in an interpreter of its own, which is kept from job to job and replaced when it dies."""

    def __init__(
        self, options: RunnerOptions, *, max_bundle_bytes: int, cancel_grace_s: float, clock: Clock
    ) -> None:
        self._options = options
        self._max_bundle_bytes = max_bundle_bytes
        self._cancel_grace_s = cancel_grace_s
        self._clock = clock
        self._starting: asyncio.Task[Ready | RunnerCrashedError] | None = None
        self._child: RunnerChild | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the interpreter, if there is one."""
        return self._child.pid if self._child is not None and self._child.is_alive else None

    def warm(self) -> None:
        """Start the interpreter, so that its imports overlap with what the caller does meanwhile."""
        has_died = (
            self._starting is not None
            and self._starting.done()
            and isinstance(self._starting.result(), Ready)
            and (self._child is None or not self._child.is_alive)
        )
        if self._starting is None or has_died:
            # For its first job, and all that follow.
            self._starting = asyncio.create_task(
                self._start(), name="start runner", context=context_of_no_operation()
            )

    async def ready(self) -> Ready:
        """Wait until the interpreter has imported everything; see `Runner.ready`."""
        if (
            self._starting is not None
            and self._starting.done()
            and not isinstance(self._starting.result(), Ready)
        ):
            self._starting = None  # That failed some time ago; what hindered it may be gone.
        self.warm()
        assert self._starting is not None
        outcome = await asyncio.shield(self._starting)
        if isinstance(outcome, RunnerCrashedError):
            raise outcome
        return outcome

    async def run(
        self,
        job: TrainingJob,
        *,
        run_id: str,
        bundle: Path,
        cancel: asyncio.Event,
        on_progress: Callable[[Progress], None],
        on_log: Callable[[LogLine], None],
    ) -> Ending:
        """Run a job; see `Runner.run`. One that ignores its cancellation for the grace time is killed."""
        await first_of(self.ready(), cancel.wait())
        if cancel.is_set():
            return Cancelled()
        device = (await self.ready()).device
        assert self._child is not None
        child, job = self._child, replace(job, device=device)
        child.send(Start(run_id=run_id, job=job, bundle=bundle, max_bundle_bytes=self._max_bundle_bytes))
        enforcing = asyncio.create_task(self._enforce(cancel, run_id, child), name=f"enforce {run_id}")
        epoch = 0
        try:
            while True:
                match await child.receive():
                    case Progressed(run_id=its) as frame if its == run_id:
                        epoch = frame.epoch
                        on_progress(frame.progress())
                    case Ended(run_id=its, ending=ending) if its == run_id:
                        return ending
                    case LogLine() as line:
                        on_log(line)
                    case _:
                        pass
        except RunnerCrashedError:
            if cancel.is_set():
                return Cancelled(epoch=epoch)
            raise
        except BaseException:
            # Nobody would hear how this run ends.
            await child.kill()
            raise
        finally:
            enforcing.cancel()
            await asyncio.gather(enforcing, return_exceptions=True)

    async def close(self) -> None:
        """End the process; whatever it does is lost."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
            self._starting = None
        if self._child is not None:
            await self._child.close()
            self._child = None

    async def _start(self) -> Ready | RunnerCrashedError:
        if self._child is not None:
            await self._child.kill()
        try:
            self._child = child = await RunnerChild.spawn(self._options)
        except OSError as error:
            return RunnerCrashedError(f"No runner process could be started: {error}.")
        try:
            async with asyncio.timeout(_STARTUP_LIMIT_S):
                while not isinstance(frame := await child.receive(), Ready):
                    _log.debug("from the starting runner", frame=frame)
        except TimeoutError:
            await child.kill()
            return RunnerCrashedError(f"The runner process was not ready after {_STARTUP_LIMIT_S:.0f} s.")
        except RunnerCrashedError as error:
            return error
        _log.debug("runner ready", pid=child.pid, device=frame.device, seconds=round(frame.import_seconds, 2))
        return frame

    async def _enforce(self, cancel: asyncio.Event, run_id: str, child: RunnerChild) -> None:
        await cancel.wait()
        child.send(Cancel(run_id=run_id))
        await self._clock.sleep(self._cancel_grace_s)
        _log.warning("runner ignored its cancellation", pid=child.pid, after_s=self._cancel_grace_s)
        await child.kill()
