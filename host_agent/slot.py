"""A slot: takes one request at a time, runs it, and hands its ending over."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

import structlog

from host_agent.attempts import Attempt, Attempts, Stop
from host_agent.datasets import DatasetCache
from host_agent.endings import Cancelled, Ending, Failed, Trained
from host_agent.failures import ending_of
from host_agent.frames import LogLine
from host_agent.intake import Intake, Settled, give_back, read_request
from host_agent.journal import Announcement, Claim, ClaimFolder, Journal
from host_agent.link import Link
from host_agent.options import AgentOptions
from host_agent.presence import UNKNOWN_DEVICE, Presence
from host_agent.progress_feed import ProgressFeed
from host_agent.runner_process import Runner
from host_agent.spool import Spool
from host_agent.waiting import Backoff, first_of, wait_until
from ktrdr.bus.port import Bus, Delivery
from ktrdr.clock import Clock
from ktrdr.errors import BusError, BusUnavailableError, KtrdrError, RunnerCrashedError
from ktrdr.events.causes import FailureCause
from ktrdr.events.training import TrainingAccepted, TrainingRequested
from ktrdr.ids import IdFactory
from ktrdr.training.job import Dataset, TrainingJob

_NOT_MINE_PAUSE_S = 1.0
"""Between giving a request back and taking one again, so that another agent gets it."""
_ACCEPT_TRIES = 4

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Shared:
    """What the slots of an agent have in common."""

    agent_id: str
    bus: Bus
    link: Link
    journal: Journal
    spool: Spool
    attempts: Attempts
    datasets: DatasetCache
    presence: Presence
    listening: asyncio.Event
    """Set while orders reach the agent: nothing is begun that could not be stopped."""
    draining: asyncio.Event
    """Set when no new work is to be taken."""
    options: AgentOptions
    clock: Clock
    ids: IdFactory


class Slot:
    """Runs attempts one after the other, each in the slot's runner."""

    def __init__(self, number: int, runner: Runner, shared: Shared) -> None:
        self._number = number
        self._runner = runner
        self._shared = shared
        self._intake = Intake(
            shared.bus, lanes=shared.options.lanes, consumer_name=f"{shared.agent_id}/slot-{number}"
        )

    async def run(self) -> None:
        """Serve requests until the agent drains."""
        shared = self._shared
        pauses = Backoff(0.1, 5.0)
        if shared.options.prewarm:
            await first_of(self._find_device(), shared.draining.wait())
        while not shared.draining.is_set():
            await first_of(shared.listening.wait(), shared.draining.wait())
            pause_s = 0.0
            try:
                delivery = await self._intake.next(shared.draining)
            except BusError as error:
                _log.debug("no lane to consume", slot=self._number, reason=str(error))
                delivery = None
            if delivery is None:
                pause_s = pauses.next()
            else:
                pauses.reset()
                if await self._serve(delivery) is Settled.GIVEN_BACK:
                    pause_s = _NOT_MINE_PAUSE_S
            if pause_s:
                await wait_until(shared.draining, shared.clock, pause_s)

    async def _serve(self, delivery: Delivery) -> Settled | None:
        """Do what a delivery asks for; if that is not for this slot, return what became of it."""
        request = await read_request(delivery)
        if isinstance(request, Settled):
            return request
        with structlog.contextvars.bound_contextvars(
            operation_id=request.operation_id, attempt=request.attempt, agent=self._shared.agent_id
        ):
            await self._find_device()
            if request.require_gpu and self._device() in ("cpu", UNKNOWN_DEVICE):
                _log.warning("request needs a GPU, which this agent has not", device=self._device())
                return await give_back(delivery)
            return await self._attempt(delivery, request)

    async def _attempt(self, delivery: Delivery, request: TrainingRequested) -> Settled | None:
        shared = self._shared
        claim = Claim(
            operation_id=request.operation_id,
            attempt=request.attempt,
            claim_id=shared.ids.token(),
            claimed_at=shared.clock.now(),
        )
        folder, obstacle = await self._open(claim)
        attempt = Attempt(claim, is_running=True)
        # From now on it can be told to stop; so what comes after the agent has begun to drain is not begun.
        is_ours = not shared.draining.is_set()
        if is_ours:
            shared.attempts.add(attempt)
            is_ours = await self._accept(claim)
        if not is_ours:
            shared.attempts.remove(claim.claim_id)
            await asyncio.to_thread(folder.remove)
            return await give_back(delivery)
        shared.attempts.accepted(claim.claim_id)
        # From here on the claim is ours, whatever happens to the message: if it is not acked, whoever takes
        # it next is told to stop.
        with suppress(BusError):
            await delivery.ack()
        ending = obstacle or await self._carry_out(attempt, request, folder)
        await self._hand_over(folder, _as_asked(attempt, ending))
        return None

    async def _open(self, claim: Claim) -> tuple[ClaimFolder, Failed | None]:
        try:
            return await asyncio.to_thread(self._shared.journal.open, claim), None
        except OSError as error:
            _log.warning("claim not recorded", reason=str(error))
            failure = Failed(
                cause=FailureCause.DISK_FULL, message=f"The agent cannot write to its disk: {error.strerror}."
            )
            return self._shared.journal.unrecorded(claim), failure

    async def _accept(self, claim: Claim) -> bool:
        """Tell the backend that we have it; return whether it has been told."""
        shared = self._shared
        event_id = shared.ids.event_id()
        event = TrainingAccepted(
            operation_id=claim.operation_id,
            attempt=claim.attempt,
            claim_id=claim.claim_id,
            agent_id=shared.agent_id,
            slot=self._number,
            device=self._device(),
            lease_s=shared.options.lease_s,
        )
        pauses = Backoff(0.1, 1.0)
        for remaining in reversed(range(_ACCEPT_TRIES)):
            try:
                await shared.link.publish(event, event_id=event_id)
            except BusUnavailableError:
                return False  # The message is the broker's again.
            except BusError as error:
                _log.warning("acceptance not delivered", reason=str(error), tries_left=remaining)
                if remaining:
                    await shared.clock.sleep(pauses.next())
            else:
                _log.info("accepted", claim=claim.claim_id, slot=self._number, device=self._device())
                return True
        return False

    async def _carry_out(self, attempt: Attempt, request: TrainingRequested, folder: ClaimFolder) -> Ending:
        feed = ProgressFeed(
            self._shared.link, attempt.claim, agent_id=self._shared.agent_id, clock=self._shared.clock
        )
        try:
            with self._shared.datasets.in_use(request.datasets):
                fetching = asyncio.create_task(self._shared.datasets.fetch(request.datasets))
                await first_of(fetching, attempt.stopping.wait())
                if attempt.stopping.is_set():
                    return Cancelled()
                return await self._runner.run(
                    self._job(request, fetching.result()),
                    run_id=attempt.claim.claim_id,
                    bundle=folder.bundle,
                    cancel=attempt.stopping,
                    on_progress=feed.put,
                    on_log=_relay,
                )
        except RunnerCrashedError as error:
            self._runner.warm()
            _log.warning("runner crashed", reason=str(error))
            return ending_of(error)
        except KtrdrError as error:
            _log.warning("attempt failed", reason=str(error))
            return ending_of(error)
        except Exception as error:
            _log.exception("attempt failed by a defect")
            return ending_of(error)
        finally:
            await feed.close()

    def _job(self, request: TrainingRequested, datasets: tuple[Dataset, ...]) -> TrainingJob:
        return TrainingJob(
            operation_id=request.operation_id,
            attempt=request.attempt,
            strategy_name=request.strategy.name,
            strategy_yaml=request.strategy.yaml,
            datasets=datasets,
            seed=request.seed,
            overrides=request.strategy.overrides,
            threads=self._shared.options.threads,
        )

    async def _hand_over(self, folder: ClaimFolder, ending: Ending) -> None:
        """Record how it ended and leave the telling to the spool: the slot is free."""
        shared = self._shared
        announcement = Announcement(event_id=shared.ids.event_id(), ending=ending)
        try:
            await asyncio.to_thread(folder.record, announcement)
        except OSError as error:
            _log.warning("ending not recorded", reason=str(error))
            if isinstance(ending, Trained):
                # Promised is only what survives a crash.
                failure = Failed(
                    cause=FailureCause.DISK_FULL,
                    message=f"The agent cannot record its result: {error.strerror}.",
                    epoch=ending.manifest.epochs_trained,
                )
                announcement = announcement.model_copy(update={"ending": failure})
                with suppress(OSError):
                    await asyncio.to_thread(folder.record, announcement)
        shared.attempts.ended(folder.claim.claim_id)
        shared.spool.add(folder, announcement)

    async def _find_device(self) -> None:
        """Have the runner say what it trains on, once; if it cannot start, the attempt will tell."""
        if self._shared.presence.device is None:
            try:
                self._shared.presence.set_device(await self._runner.ready())
            except RunnerCrashedError as error:
                _log.warning("runner does not start", slot=self._number, reason=str(error))

    def _device(self) -> str:
        device = self._shared.presence.device
        return device.device if device is not None else UNKNOWN_DEVICE


def _as_asked(attempt: Attempt, ending: Ending) -> Ending:
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


def _relay(line: LogLine) -> None:
    """Log a runner's line as if it were the agent's own."""
    level = logging.getLevelNamesMapping().get(line.level.upper(), logging.INFO)
    _log.log(level, line.event, **line.fields)
