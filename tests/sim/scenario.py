"""What befalls an installation: a seed decides what, when and whom."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ktrdr.backend.records import OperationRecord, SubmitTraining
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.bus.memory import MemoryBroker
from ktrdr.bus.topology import EVENTS, REQUESTS
from ktrdr.errors import KtrdrError
from ktrdr.events.message import Message
from ktrdr.events.references import DatasetRef
from ktrdr.training.execution_mode_selector import Decision, Mode, Place
from tests.sim.event_loop import KilledError, SimulatedLoop, nowhere, settled_within
from tests.sim.parts import AgentPart, Part, ServePart, start_all
from tests.sim.promises import Promises
from tests.sim.site import Said, Site
from tests.sim.times import SimulatedClock, SimulatedIds
from tests.unit.backend_cases import settings_in, wish

_TROUBLE_S = (60.0, 240.0)
_BETWEEN_S = 3.0
"""On average, from one thing that happens to the next."""
_ENDED_WITHIN_S = 1800.0
"""Once there is calm: every lease, deadline and pause is over by then, for each of the attempts."""
_AT_REST_WITHIN_S = 300.0
_LOOK_EVERY_S = 1.0
_CALM_JOBS = 2
_CANCELLED_WITHIN_S = 0.5

_ON_A_HOST = Decision(Mode.AUTO, Place.HOST, "agents are there")
_HERE = Decision(Mode.LOCAL, Place.LOCAL, "local was asked for")

_POISON = (
    (REQUESTS, "any", "ktrdr.training.requested.v1", b"\xc1"),
    (REQUESTS, "any", "of.somebody.else", b"\x80"),
    (EVENTS, "training.op-x.model_ready", "ktrdr.training.model_ready.v7", b"{}"),
    (EVENTS, "training.op-x.failed", "ktrdr.training.failed.v1", b"\x28\xb5\x2f\xfd"),
)

Action = Callable[[], Awaitable[None]]


class Scenario:
    """One world from its beginning to its end.

    Args:
        loop: its time.
        seed: decides everything.
        directory: empty, for its files.
    """

    _decisions: tuple[Decision | None, ...] = (None, _ON_A_HOST)

    def __init__(self, loop: SimulatedLoop, seed: int, directory: Path) -> None:
        self.happened: Counter[str] = Counter()
        """How often what."""
        self.story: list[str] = []
        """What happened, and when."""
        self._loop = loop
        self._rng = random.Random(seed)
        clock = SimulatedClock(loop)
        settings = settings_in(directory, drain_s=5.0)
        self._site = site = Site(loop, self._rng, settings, nowhere().run(MemoryBroker, clock))
        self._backends = [ServePart(site, f"serve-{n}") for n in range(1, 1 + self._rng.randint(1, 2))]
        self._agents = [
            AgentPart(site, f"agent-{n}", slots=self._rng.randint(1, 2))
            for n in range(1, 1 + self._rng.randint(1, 3))
        ]
        ids = SimulatedIds(site.new_rng())
        self._store = OperationStore.open(settings, clock=clock, ids=ids)
        self._submitter = Submitter(settings, self._store, clock=clock, ids=ids)
        self._wish = _wish_with_bars(DirectoryBlobStore(settings.blobs_dir))
        self._under_way: set[asyncio.Task[None]] = set()
        self.promises = Promises(self._store, settings, site.broker)

    async def play(self) -> None:
        """Let it all happen, and see that everything ends as is promised.

        Raises:
            AssertionError: a promise is broken; says which.
        """
        looking = self._loop.create_task(self._look())
        try:
            await self._trouble()
            await self._calm()
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self.promises.check()
            await asyncio.sleep(_LOOK_EVERY_S)

    # --- what may happen --------------------------------------------------------------------------

    def _actions(self) -> list[tuple[int, Action]]:
        return [
            (6, self._submit),
            (2, self._submit_here),
            (2, self._submit_elsewhere),
            (2, self._cancel),
            (1, self._cancel_elsewhere),
            (3, self._watch),
            (4, self._kill),
            (4, self._kill_soon),
            (2, self._restart),
            (8, self._start),
            (4, self._cut),
            (3, self._freeze),
            (2, self._block),
            (8, self._mend),
            (1, self._break_broker),
            (1, self._poison),
            (3, self._repeat),
            (1, self._set_clock),
            (2, self._wait),
        ]

    async def _trouble(self) -> None:
        await start_all(self._parts)
        actions = self._actions()
        weights, choices = [weight for weight, _ in actions], [action for _, action in actions]
        end = self._loop.time() + self._rng.uniform(*_TROUBLE_S)
        while self._loop.time() < end:
            action = self._rng.choices(choices, weights)[0]
            # What somebody asks for takes its time, and others do not wait for it.
            task = self._loop.create_task(self._do(action))
            if action != self._watch:
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(self._rng.expovariate(1 / _BETWEEN_S))

    async def _do(self, action: Action) -> None:
        try:
            await action()
        except KilledError as error:
            self._tell("was killed meanwhile", error.message)
        except KtrdrError as error:
            self._tell("failed", error.message)
        except AssertionError as error:
            self.promises.broken.append(str(error))

    async def _submit(self) -> None:
        if backend := self._one_up(self._backends):
            # Every other may run beside the backend if no host can.
            decision = self._rng.choice(self._decisions)
            wished = replace(self._new_wish(), decision=decision)
            submission = await backend.process.call(backend.hosts.submit(wished))
            self._accepted(submission.operation, f"by {backend.name}")

    async def _submit_here(self) -> None:
        if backend := self._one_up(self._backends):
            wished = replace(self._new_wish(), decision=_HERE)
            submission = await backend.process.call(backend.local.submit(wished))
            self._accepted(submission.operation, f"by {backend.name}, to run in it")

    async def _submit_elsewhere(self) -> None:
        submission = self._submitter.submit(self._new_wish())
        self._accepted(submission.operation, "into the database")

    async def _cancel(self) -> None:
        operation_id = self._one(sorted(self.promises.accepted))
        if operation_id and (backend := self._one_up(self._backends)):
            self._cancelling(operation_id)
            operation = await backend.process.call(backend.backends.cancel(operation_id, "enough"))
            self._cancelled(operation, f"by {backend.name}")

    async def _cancel_elsewhere(self) -> None:
        if operation_id := self._one(sorted(self.promises.accepted)):
            self._cancelling(operation_id)
            self._cancelled(self._store.cancel(operation_id, "enough"), "in the database")

    async def _watch(self) -> None:
        operation_id = self._one(sorted(self.promises.accepted))
        if operation_id and (backend := self._one_up(self._backends)):
            self._tell("watched", f"{operation_id} at {backend.name}")
            watch = backend.backends.watch(operation_id)
            await backend.process.call(self.promises.follow(watch))

    async def _kill(self) -> None:
        if part := self._one_up(self._victims):
            self._tell("killed", part.name)
            part.kill()

    async def _kill_soon(self) -> None:
        if part := self._one_up(self._victims):
            steps = self._rng.randint(1, 400)
            self._tell("doomed", f"{part.name} in {steps} steps")
            part.kill(after_steps=steps)

    async def _restart(self) -> None:
        if part := self._one_up(self._victims):
            self._tell("restarted", part.name)
            await part.stop()
            await self._start_part(part)

    async def _start(self) -> None:
        if part := self._one([part for part in self._parts if not part.is_up]):
            await self._start_part(part)

    async def _start_part(self, part: Part) -> None:
        if not part.is_up:
            self._tell("started", part.name)
            await part.start()

    async def _cut(self) -> None:
        if part := self._one_up(self._victims):
            self._tell("cut off", part.name)
            part.line.cut()

    async def _freeze(self) -> None:
        if part := self._one_up(self._victims):
            self._tell("frozen", part.name)
            part.line.freeze()

    async def _block(self) -> None:
        self._tell("short of memory", "the broker")
        for part in self._parts:
            if part.is_up:
                part.line.block()

    async def _mend(self) -> None:
        if part := self._one_up(self._parts):
            self._tell("mended", part.name)
            part.line.mend()

    async def _break_broker(self) -> None:
        self._tell("restarted", "the broker")
        for part in self._parts:
            if part.is_up:
                part.line.cut()

    async def _poison(self) -> None:
        exchange, key, kind, body = self._rng.choice(_POISON)
        name = f"poison-{self.happened['poisoned']}"
        self._tell("poisoned", kind)
        message = Message(body, name, type=kind)
        try:
            nowhere().run(
                lambda: self._site.broker.publish(
                    message, exchange=exchange, routing_key=key, mandatory=False
                )
            )
        except KtrdrError:
            return  # nobody has declared anything yet
        self.promises.poison.add(name)

    async def _repeat(self) -> None:
        if self._site.said:
            said: list[Said] = self._rng.choices(list(self._site.said), k=self._rng.randint(1, 10))
            self._tell("repeated", ", ".join(message.type for message, _, _ in said))
            for each in said:
                self._site.repeat(each)

    async def _set_clock(self) -> None:
        part = self._rng.choice(self._parts)
        part.clock.wrong_by_s = self._rng.choice((-3600.0, 0.0, 3600.0))
        self._tell("clock set", f"{part.name}: {part.clock.wrong_by_s:+.0f} s")

    async def _wait(self) -> None:
        seconds = self._rng.choice((10.0, 40.0, 70.0))
        self._tell("quiet", f"{seconds:.0f} s")
        await asyncio.sleep(seconds)

    # --- calm -------------------------------------------------------------------------------------

    async def _calm(self) -> None:
        self._tell("calm", "")
        self._site.is_calm = True
        await self._heal()
        wishes = [self._submitter.submit(self._new_wish()).operation for _ in range(_CALM_JOBS)]
        for operation in wishes:
            self._accepted(operation, "in calm")
        calm = {operation.operation_id for operation in wishes}
        await self._until(self.promises.all_have_ended, _ENDED_WITHIN_S)
        await self._until(self.promises.is_at_rest, _AT_REST_WITHIN_S)
        self.promises.check_at_rest(calm)
        await self._cancel_at_once()
        self.story += self.promises.histories()

    async def _cancel_at_once(self) -> None:
        """Cancel what runs on a host, and see how long that takes."""
        backend = self._backends[0]
        operation = (await backend.process.call(backend.hosts.submit(self._new_wish()))).operation
        self._accepted(operation, "to be cancelled")
        runs = lambda: self._store.get(operation.operation_id).state is State.RUNNING  # noqa: E731
        assert await settled_within(60.0, runs, every_s=0.01), "it does not even run"
        self._cancelling(operation.operation_id)
        cancelled = await backend.process.call(backend.hosts.cancel(operation.operation_id, "enough"))
        self._cancelled(cancelled, "while it runs")
        has_ended = lambda: self._store.get(operation.operation_id).state.terminal  # noqa: E731
        assert await settled_within(_CANCELLED_WITHIN_S, has_ended, every_s=0.01), "a cancellation takes long"
        await self._until(self.promises.is_at_rest, _AT_REST_WITHIN_S)

    async def _heal(self) -> None:
        """Have everything up and connected, whatever is still under way."""
        self._site.is_calm = True
        while self._under_way or not all(part.is_up for part in self._parts):
            for part in self._parts:
                part.heal()
                await self._start_part(part)
            await asyncio.sleep(_LOOK_EVERY_S)
        for part in self._parts:
            part.heal()

    async def _until(self, condition: Callable[[], str | None], within_s: float) -> None:
        """Wait until nothing is in the way of a condition any more."""
        end = self._loop.time() + within_s
        while (obstacle := condition()) is not None:
            assert self._loop.time() < end, f"after {within_s:.0f} s of calm: {obstacle}"
            await asyncio.sleep(_LOOK_EVERY_S)

    # --- helpers ----------------------------------------------------------------------------------

    @property
    def _victims(self) -> list[Part]:
        """Whom trouble befalls."""
        return self._parts

    @property
    def _parts(self) -> list[Part]:
        return [*self._backends, *self._agents]

    def _one(self, candidates: list[Any]) -> Any:
        return self._rng.choice(candidates) if candidates else None

    def _one_up(self, parts: list[Any]) -> Any:
        return self._one([part for part in parts if part.is_up])

    def _new_wish(self) -> SubmitTraining:
        return replace(self._wish, seed=self._rng.randrange(6))

    def _accepted(self, operation: OperationRecord, how: str) -> None:
        self._tell("submitted", f"{operation.operation_id} {how}")
        self.promises.accepted.add(operation.operation_id)

    def _cancelling(self, operation_id: str) -> None:
        """Somebody is about to ask for it."""

    def _cancelled(self, operation: OperationRecord, how: str) -> None:
        self._tell("cancelled", f"{operation.operation_id} {how}: {operation.state}")
        if operation.state in (State.CANCELLING, State.CANCELLED):
            self.promises.cancelled.add(operation.operation_id)

    def _tell(self, what: str, whom: str) -> None:
        self.happened[what] += 1
        self.story.append(f"{self._loop.time():9.3f} {what}: {whom}")


def _wish_with_bars(blobs: DirectoryBlobStore) -> SubmitTraining:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    bars = DatasetRef(
        symbol="EURUSD",
        timeframe="1h",
        blob=blobs.put(hashlib.sha256(b"bars").digest()),
        rows=1,
        start=moment,
        end=moment,
    )
    return wish(datasets=(bars,))
