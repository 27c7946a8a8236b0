"""A slot: takes one request at a time, runs it, and hands its ending over."""

import asyncio

import structlog

from host_agent.acceptance import Acceptance, Told
from host_agent.attempt_log import AttemptLog
from host_agent.attempts import Attempt
from host_agent.endings import Ending, Failed
from host_agent.execution import as_asked, carry_out
from host_agent.intake import Intake, Settled
from host_agent.journal import Announcement, Claim, ClaimFolder
from host_agent.presence import UNKNOWN_DEVICE
from host_agent.runner_process import Runner
from host_agent.shared import Shared
from host_agent.steps import AgentStep
from host_agent.waiting import Backoff, first_of, wait_until
from ktrdr.bus.port import Delivery
from ktrdr.errors import BusError, RunnerCrashedError
from ktrdr.events.causes import FailureCause
from ktrdr.events.training import TrainingAccepted, TrainingRequested
from ktrdr.logs.overhearing import overheard_by

_NOT_ABLE_FIRST_S, _NOT_ABLE_LIMIT_S = 1.0, 60.0
"""Between a request that cannot be served here and the next, so that other agents get them: what is given
back too often is dead-lettered, and what fails here counts against its operation."""

_OF_THIS_MACHINE = frozenset(
    {
        FailureCause.DISK_FULL,
        FailureCause.OUT_OF_MEMORY,
        FailureCause.RUNNER_CRASHED,
        FailureCause.BLOB_UNAVAILABLE,
    }
)
"""After these another machine may do better, and should get the next attempt."""

_log = structlog.get_logger()


class Slot:
    """Runs attempts one after the other, each in the slot's runner."""

    def __init__(self, number: int, runner: Runner, shared: Shared) -> None:
        self._number = number
        self._runner = runner
        self._shared = shared
        self._intake = Intake(shared.bus, lanes=shared.options.lanes, name=f"{shared.speaker}/slot-{number}")

    async def run(self) -> None:
        """Serve requests until the agent drains."""
        try:
            await self._run()
        finally:
            await self._intake.leave()

    async def _run(self) -> None:
        shared = self._shared
        without_work = Backoff(0.1, 5.0, shared.rng)
        not_able = Backoff(_NOT_ABLE_FIRST_S, _NOT_ABLE_LIMIT_S, shared.rng)
        if shared.options.prewarm:
            await first_of(self._find_device(), shared.draining.wait())
        while not shared.draining.is_set():
            for needed in (shared.listening, shared.link.is_up):
                if not needed.is_set():
                    await first_of(needed.wait(), shared.draining.wait())
            pause_s = 0.0
            try:
                delivery = await self._intake.next(shared.draining)
            except BusError as error:
                _log.debug("no lane to consume", slot=self._number, reason=str(error))
                delivery = None
            if delivery is None:
                pause_s = without_work.next()
            else:
                without_work.reset()
                if await self._serve(delivery):
                    not_able.reset()
                else:
                    pause_s = not_able.next()
            if pause_s:
                await wait_until(shared.draining, shared.clock, pause_s)

    async def _serve(self, delivery: Delivery) -> bool:
        """Do what a delivery asks for; return whether another can be taken at once."""
        request = await self._intake.read(delivery)
        if isinstance(request, Settled):
            return request is Settled.REJECTED
        with structlog.contextvars.bound_contextvars(
            operation_id=request.operation_id, attempt=request.attempt, agent=self._shared.agent_id
        ):
            if held := self._shared.attempts.matching(request.operation_id, request.attempt, None):
                return await self._already_held(delivery, held)
            await self._find_device()
            if request.require_gpu and self._device() in ("cpu", UNKNOWN_DEVICE):
                _log.warning("request needs a GPU, which this agent has not", device=self._device())
                await self._intake.give_back(delivery)
                return False
            return await self._attempt(delivery, request)

    async def _already_held(self, delivery: Delivery, held: list[Attempt]) -> bool:
        """Settle a request that came again, because the connection was lost before it was acknowledged."""
        if not any(attempt.is_standing for attempt in held):
            await self._intake.give_back(delivery)
            return False
        _log.info("request came again", claim=held[0].claim.claim_id)
        for attempt in held:
            self._shared.spool.hurry(attempt.claim.claim_id)
        await self._intake.acknowledge(delivery)
        return True

    async def _attempt(self, delivery: Delivery, request: TrainingRequested) -> bool:
        shared = self._shared
        claim = Claim(
            operation_id=request.operation_id,
            attempt=request.attempt,
            claim_id=shared.ids.token(),
        )
        log = shared.logs.begin(claim)
        with overheard_by(shared.logs.listener(claim.claim_id)):
            return await self._carry(delivery, request, claim, log)

    async def _carry(
        self, delivery: Delivery, request: TrainingRequested, claim: Claim, log: AttemptLog
    ) -> bool:
        shared = self._shared
        _log.info(AgentStep.ACCEPT.step, claim=claim.claim_id, slot=self._number, device=self._device())
        folder, obstacle = await self._open(claim)
        attempt = Attempt(claim, is_running=True)
        acceptance, told = self._acceptance(claim), Told.NO
        # From now on it can be told to stop; so what comes after the agent has begun to drain is not begun.
        if not shared.draining.is_set():
            shared.attempts.add(attempt)
            told = await acceptance.tell()
        if told is Told.NO:
            shared.attempts.remove(claim.claim_id)
            shared.logs.discard(claim.claim_id)
            await asyncio.to_thread(folder.remove)
            await self._intake.give_back(delivery)
            return False
        # From here on the claim is ours, whatever happens to the message: if it is not acknowledged, whoever
        # takes it next is told to stop, or we are.
        shared.attempts.stands(claim.claim_id, told_at=shared.clock.monotonic() if told is Told.YES else None)
        settling = asyncio.create_task(
            self._settle(delivery, acceptance, told), name=f"settle {claim.claim_id}"
        )
        try:
            ending = obstacle or await carry_out(request, attempt, folder, self._runner, shared, log)
        finally:
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)
        await self._hand_over(folder, as_asked(attempt, ending))
        if settling.cancelled():
            await self._intake.acknowledge(delivery)  # The ending is safe, and says more than the acceptance.
        return not (isinstance(ending, Failed) and ending.cause in _OF_THIS_MACHINE)

    async def _settle(self, delivery: Delivery, acceptance: Acceptance, told: Told) -> None:
        """Acknowledge a request once the backend has been told who has it."""
        if told is Told.UNKNOWN:
            await acceptance.insist()
        await self._intake.acknowledge(delivery)

    def _acceptance(self, claim: Claim) -> Acceptance:
        shared = self._shared
        return Acceptance(
            TrainingAccepted(
                operation_id=claim.operation_id,
                attempt=claim.attempt,
                claim_id=claim.claim_id,
                agent_id=shared.agent_id,
                slot=self._number,
                device=self._device(),
                lease_s=shared.options.lease_s,
            ),
            event_id=shared.ids.event_id(),
            link=shared.link,
            clock=shared.clock,
            rng=shared.rng,
        )

    async def _open(self, claim: Claim) -> tuple[ClaimFolder, Failed | None]:
        try:
            return await asyncio.to_thread(self._shared.journal.open, claim), None
        except OSError as error:
            _log.warning("claim not recorded", reason=str(error))
            failure = Failed(
                cause=FailureCause.DISK_FULL, message=f"The agent cannot write to its disk: {error.strerror}."
            )
            return self._shared.journal.unrecorded(claim), failure

    async def _hand_over(self, folder: ClaimFolder, ending: Ending) -> None:
        """Record how it ended and leave the telling to the spool: the slot is free."""
        shared = self._shared
        _log.info(AgentStep.DELIVER.step, ending=ending.kind)
        announcement = Announcement(event_id=shared.ids.event_id(), ending=ending)
        try:
            await asyncio.to_thread(folder.record, announcement)
        except OSError as error:
            # It is told all the same. Only if the agent dies before that, it has to be done again.
            _log.warning("ending not recorded", reason=str(error))
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
