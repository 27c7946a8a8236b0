"""What can befall a deployment. Every fault heals by itself after a while, however many come at once."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil

from ktrdr.errors import DatabaseUnavailableError
from tests.e2e.deployment import LEASE_S, Deployment
from tests.e2e.part import Part
from tests.e2e.stranger import Stranger

Fault = Callable[[random.Random], None]

_JUMPS_S = (-3600, -60, 60, 3600)


class Faults:
    """Faults by name, each with how often it comes compared to the others.

    Each gets a random generator of its own, so that what one does changes nothing for the others.

    Args:
        deployment: what is hit.
        backend: its backend.
        agents: its host agents.
        clocks: the file that sets each part's clock, by the part's name.
        stranger: a client that means no good.
        spared: is never killed, stopped or paused itself.
        longest_alarm_s: how long the broker may be out of memory.
        later: has something done in so many seconds.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        backend: Part,
        agents: Sequence[Part],
        clocks: dict[str, Path],
        stranger: Stranger,
        spared: Part,
        longest_alarm_s: float,
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._deployment = deployment
        self._parts = (backend, *agents)
        self._agents = tuple(agents)
        self._mortal = [part for part in self._parts if part is not spared]
        self._clocks = clocks
        self._stranger = stranger
        self._longest_alarm_s = longest_alarm_s
        self._later = later
        self._threads = ThreadPoolExecutor(1, "broker")
        self._restarting: Future[None] | None = None
        self.table: dict[str, tuple[float, Fault]] = {
            "process killed": (5, self._kill),
            "runner killed": (3, self._kill_runner),
            "process told to stop": (1.5, self._tell_to_stop),
            "process paused": (1.5, self._pause),
            "broker killed": (0.7, self._kill_broker),
            "everything killed": (0.3, self._kill_everything),
            "connections reset": (2, self._reset),
            "connections ended": (1, self._finish),
            "network cut": (2, self._cut),
            "network slow": (1, self._slow),
            "memory alarm": (0.7, self._alarm),
            "messages repeated": (3, lambda rng: self._stranger.repeat(10, rng)),
            "poison": (1.5, self._stranger.poison),
            "cancelled": (1.5, self._cancel),
            "clock jumped": (1, self._jump),
        }

    def heal(self) -> None:
        """End whatever goes on; the parts run after it."""
        self.wait_for_broker()
        if not self._deployment.node.is_running:
            self._deployment.node.start()
        self._deployment.node.set_memory_alarm(False)
        for part in self._parts:
            part.network.restore()
            part.resume()
            part.up()

    def wait_for_broker(self) -> None:
        """Wait for the broker if it is being started; raises what went wrong."""
        if self._restarting is not None:
            self._restarting.result()

    # --- processes --------------------------------------------------------------------------------

    def _kill(self, rng: random.Random) -> None:
        part = rng.choice(self._mortal)
        part.kill()
        self._later(rng.uniform(0, 2 * LEASE_S), part.up)

    def _kill_runner(self, rng: random.Random) -> None:
        for runner in rng.choice(self._agents).runners():
            try:
                runner.kill()
            except psutil.Error:
                continue  # it has just ended

    def _tell_to_stop(self, rng: random.Random) -> None:
        part = rng.choice(self._mortal)
        part.tell_to_stop()
        self._start_when_stopped(part, rng.uniform(0, LEASE_S))

    def _start_when_stopped(self, part: Part, pause_s: float) -> None:
        if part.is_stopping:
            self._later(0.2, lambda: self._start_when_stopped(part, pause_s))
        else:
            self._later(pause_s, part.up)

    def _pause(self, rng: random.Random) -> None:
        part = rng.choice(self._mortal)
        part.pause()
        self._later(rng.uniform(0, 3 * LEASE_S), part.resume)

    def _kill_everything(self, rng: random.Random) -> None:
        for part in self._mortal:
            part.kill()
            self._later(rng.uniform(0, 2 * LEASE_S), part.up)
        self._kill_broker(rng)

    # --- the broker and the network ---------------------------------------------------------------

    @property
    def _broker_is_up(self) -> bool:
        if self._restarting is not None and self._restarting.done():
            self._restarting.result()
            self._restarting = None
        return self._restarting is None

    def _kill_broker(self, _: random.Random) -> None:
        if self._broker_is_up:
            self._restarting = self._threads.submit(self._deployment.node.restart)

    def _alarm(self, rng: random.Random) -> None:
        if self._broker_is_up:
            self._deployment.node.set_memory_alarm(True)
            self._later(rng.uniform(1, self._longest_alarm_s), self._end_alarm)

    def _end_alarm(self) -> None:
        if self._broker_is_up:
            self._deployment.node.set_memory_alarm(False)

    def _reset(self, rng: random.Random) -> None:
        rng.choice(self._parts).network.reset()

    def _finish(self, rng: random.Random) -> None:
        rng.choice(self._parts).network.finish()

    def _cut(self, rng: random.Random) -> None:
        network = rng.choice(self._parts).network
        network.freeze()
        is_lost = rng.random() < 0.5

        def heal() -> None:
            if is_lost:
                network.reset()
            network.restore()

        self._later(rng.uniform(0, 4 * LEASE_S), heal)

    def _slow(self, rng: random.Random) -> None:
        network = rng.choice(self._parts).network
        network.delay(rng.uniform(0, 1))
        self._later(rng.uniform(0, 2 * LEASE_S), network.restore)

    # --- people and clocks ------------------------------------------------------------------------

    def _cancel(self, rng: random.Random) -> None:
        if unfinished := self._deployment.unfinished():
            operation = rng.choice(unfinished).operation_id
            try:
                self._deployment.open_store().cancel(operation, "by the storm")
            except DatabaseUnavailableError:
                return  # whoever writes is paused; people are told

    def _jump(self, rng: random.Random) -> None:
        part = rng.choice(self._parts)
        self._clocks[part.name].write_text(str(rng.choice(_JUMPS_S)))
