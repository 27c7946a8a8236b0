"""Many trainings while everything fails: ``make chaos SEED=1 JOBS=200 SECONDS=300``.

A seed decides which faults come when; what they hit at that moment is up to the machine. After the storm
every training that was accepted must have ended in exactly one way, with exactly one whole model if it is
completed, and nothing may be left: no message, no process, no claim, no file.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ktrdr.backend.records import OperationRecord
from ktrdr.errors import DatabaseUnavailableError
from tests.broker.node import PrivateNode
from tests.broker.node_config import NodeConfig
from tests.broker.ports import free_ports
from tests.broker.proxy import Proxy
from tests.e2e.command import Command
from tests.e2e.deployment import LEASE_S, Deployment
from tests.e2e.faults import Faults
from tests.e2e.installation import epochs
from tests.e2e.part import Part
from tests.e2e.stranger import Stranger
from tests.e2e.tally import Tally, check_dead_letters, check_promises
from tests.e2e.waiting import eventually

JUMPING_CLOCK = Path(__file__).with_name("jumping_clock.py")

_EPOCHS = 4
_FAULTS_PER_S = 1.2
_TICK_S = 0.05
_CALM_JOBS = 3
"""Trainings of each seed after the storm, to see that everything works as it did before."""
_LONG_S = 120.0
_MINUTE_S = 60.0
_STUCK_AFTER_S = 90.0
_MORE_BYTES = 48 * 2**20
_MORE_FILES = 6

Say = Callable[[str], None]


class Storm:
    """A deployment and what befalls it.

    Args:
        deployment: with nothing started yet.
        seed: decides everything.
        seeds: how many different trainings there are: all of one seed must come out the same.
        longest_alarm_s: how long the broker may be out of memory.
        say: told what is going on.
    """

    def __init__(
        self,
        deployment: Deployment,
        seed: int,
        *,
        seeds: int,
        longest_alarm_s: float,
        say: Say,
    ) -> None:
        self.tally = Tally()
        self._deployment = deployment
        self._rng = random.Random(seed)
        self._seeds = range(seeds)
        self._longest_alarm_s = longest_alarm_s
        self._say = say
        self._agenda: list[tuple[float, Callable[[], None]]] = []
        self._accepted: list[str] = []
        self._weights: dict[int, str] = {}
        (port,) = free_ports(1)
        token = "a token that only tests use"
        at_backend = {"KTRDR_BLOB_STORE": f"http://127.0.0.1:{port}", "KTRDR_BLOB_TOKEN": token}
        # They differ in how a model travels: inline, by reference, and by reference over HTTP.
        variants: list[dict[str, str]] = [
            {},
            {"KTRDR_INLINE_LIMIT_BYTES": "0"},
            {"KTRDR_INLINE_LIMIT_BYTES": "0", "KTRDR_SLOTS": "2", **at_backend},
        ]
        self._stack = ExitStack()
        self._clocks: dict[str, Path] = {}
        self._backend = self._part(
            *("backend", "serving", "serve"),
            KTRDR_LISTEN=f"127.0.0.1:{port}",
            KTRDR_BLOB_TOKEN=token,
        )
        self._agents = [self._agent(f"host-{n}", variant) for n, variant in enumerate(variants, start=1)]
        self._spared = self._rng.choice((self._backend, *self._agents))

    def __enter__(self) -> Self:
        for part in self._parts:
            self._stack.enter_context(part.network)
            part.up()
        for part in self._parts:
            part.command.until(lambda part=part: part.works, f"{part.name} works")
        self._stranger = self._stack.enter_context(Stranger(self._deployment.url))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def _parts(self) -> list[Part]:
        return [self._backend, *self._agents]

    def _agent(self, name: str, variables: dict[str, str]) -> Part:
        home = self._deployment.agent_home(name)
        variables = {"KTRDR_BLOB_STORE": str(self._deployment.settings.blobs_dir), **variables}
        return self._part(name, "listening", "agent", "--name", name, "--home", home, **variables)

    def _part(self, name: str, says: str, *arguments: str | Path, **variables: str) -> Part:
        network = Proxy(self._deployment.url)
        clock = self._clocks[name] = self._deployment.root / f"{name}.clock"
        clock.write_text("0")

        def start() -> Command:
            return self._deployment.start_python(
                *(JUMPING_CLOCK, clock, *arguments), KTRDR_BROKER_URL=network.url, **variables
            )

        return Part(name, start, says=says, network=network)

    # --- before -----------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Train each seed once while nothing happens: the measure for what comes out of the storm."""
        self._accepted = [self._deployment.submit(*epochs(_EPOCHS), seed=self._seeds[0])]
        self._accepted += self._deployment.submit_again(self._accepted[0], self._seeds[1:])
        self._deployment.wait_for_all()
        for operation in self._deployment.operations():
            self._weights[operation.seed] = self._deployment.sha256(str(operation.model))
        self._deployment.wait_for_empty_queues()
        self._footprint = self._spared.footprint()
        self._say(f"{self._spared.name} is spared: {_as_text(self._footprint)}")

    # --- the storm --------------------------------------------------------------------------------

    def rage(self, *, jobs: int, seconds: float) -> None:
        """Submit so many trainings, and let faults come, for so long."""
        faults = self._faults = Faults(
            self._deployment,
            backend=self._backend,
            agents=self._agents,
            clocks=self._clocks,
            stranger=self._stranger,
            spared=self._spared,
            longest_alarm_s=self._longest_alarm_s,
            later=self._later,
        )
        for number in range(jobs):
            seed = self._seeds[number % len(self._seeds)]
            self._later(self._rng.uniform(0, seconds), lambda seed=seed: self._submit(seed))
        names, weights = list(faults.table), [weight for weight, _ in faults.table.values()]
        moment = 0.0
        while (moment := moment + self._rng.expovariate(_FAULTS_PER_S)) < seconds:
            # Sometimes several at the same moment.
            for name in self._rng.choices(names, weights, k=self._rng.choice((1, 1, 1, 1, 2, 3))):
                rng = random.Random(self._rng.random())
                self._later(moment, lambda name=name, rng=rng: self._strike(name, rng))
        while self._agenda:
            for part in self._parts:
                part.look()
            self._agenda.sort(key=lambda entry: entry[0])
            if self._agenda[0][0] <= time.monotonic():
                self._agenda.pop(0)[1]()
            else:
                time.sleep(_TICK_S)

    def _strike(self, name: str, rng: random.Random) -> None:
        self._say(name)
        self.tally.faults[name] += 1
        self._faults.table[name][1](rng)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._agenda.append((time.monotonic() + seconds, action))

    def _submit(self, seed: int) -> None:
        try:
            self._accepted += self._deployment.submit_again(self._accepted[0], [seed])
        except DatabaseUnavailableError:  # who writes is paused
            self._later(1.0, lambda: self._submit(seed))

    # --- afterwards -------------------------------------------------------------------------------

    def calm_down(self) -> None:
        """Heal everything, wait until every training has ended, and see that new ones work as before."""
        began = time.monotonic()
        self._faults.heal()
        self._say("the storm is over")
        self._wait_for_all()
        self.tally.settled_within_s = time.monotonic() - began
        self._stranger.finish()
        self.tally.repeated = self._stranger.repeated
        stranger = self._stranger
        # What is dead is known once nothing else is left.
        eventually(
            lambda: set(self._deployment.queued_messages()) <= {"ktrdr.dead-letters"},
            within_s=_MINUTE_S,
            otherwise=lambda: f"left in queues: {self._deployment.queued_messages()}",
        )
        self.tally.dead_letters = check_dead_letters(
            self._deployment, poisoned=stranger.poisoned, tried=stranger.tried
        )
        self._say("working in calm")
        again = self._deployment.submit_again(self._accepted[0], [*self._seeds] * _CALM_JOBS)
        self._accepted += again
        self._wait_for_all()
        disturbed = [
            op for op in self._deployment.operations() if op.operation_id in again and op.attempt > 1
        ]
        assert disturbed == [], self._tell(disturbed)
        self._deployment.wait_for_empty_queues()
        self._check_footprint()
        self.tally.count(self._deployment, self._accepted)

    def _wait_for_all(self) -> None:
        """Wait until all have ended; they are stuck when none ends for a long time, however slow all is."""
        while unfinished := self._deployment.unfinished():
            left = len(unfinished)
            eventually(
                lambda left=left: self._left() < left,
                within_s=_STUCK_AFTER_S,
                otherwise=lambda: self._tell(self._deployment.unfinished()),
            )

    def _left(self) -> int:
        for part in self._parts:
            part.look()
        time.sleep(_TICK_S)
        return len(self._deployment.unfinished())

    def _tell(self, operations: list[OperationRecord]) -> str:
        lines = []
        for operation in operations:
            lines.append(f"{operation.operation_id}: {operation.state} {operation.message or ''}")
            lines += [
                f"  {entry.at:%T.%f} attempt {entry.attempt} {entry.kind}: {entry.message}"
                for entry in self._deployment.history(operation)
            ]
        return "\n".join(lines)

    def _check_footprint(self) -> None:
        before = self._footprint

        def is_small() -> bool:
            resident, files = self._spared.footprint()
            return resident <= before[0] + _MORE_BYTES and files <= before[1] + _MORE_FILES

        eventually(
            is_small,
            within_s=_MINUTE_S,
            otherwise=lambda: (
                f"{self._spared.name} has grown from {_as_text(before)} "
                f"to {_as_text(self._spared.footprint())}"
            ),
        )
        self._say(f"{self._spared.name} after it: {_as_text(self._spared.footprint())}")

    def stop(self) -> None:
        """Tell every process to stop, which it must do in good order; check that all promises were kept."""
        for part in reversed(self._parts):
            part.stop()
        check_promises(self._deployment, self.tally, self._weights)


def _seeds_for(jobs: int) -> int:
    return min(5, 1 + jobs // 10)


def _as_text(footprint: tuple[int, int]) -> str:
    resident, files = footprint
    return f"{resident / 2**20:.0f} MiB, {files} files open"


def run(
    root: Path,
    node: PrivateNode,
    *,
    seed: int,
    jobs: int,
    seconds: float,
    say: Say,
) -> Tally:
    """Run one storm to its end, with all checks, and return the tally."""
    say(f"again: make chaos SEED={seed} JOBS={jobs} SECONDS={seconds:g}")
    with Deployment(root, node) as deployment:
        deployment.variables |= {
            "KTRDR_MAX_ATTEMPTS": "20",
            "KTRDR_ACCEPT_DEADLINE_S": "20",
            "PYTHONWARNINGS": "default::ResourceWarning,default::RuntimeWarning",
        }
        longest_alarm_s = _MINUTE_S if seconds >= _LONG_S else LEASE_S
        with Storm(
            deployment, seed, seeds=_seeds_for(jobs), longest_alarm_s=longest_alarm_s, say=say
        ) as storm:
            storm.warm_up()
            storm.rage(jobs=jobs, seconds=seconds)
            storm.calm_down()
            storm.stop()
            return storm.tally


def main() -> None:
    """Run a long storm, and print what goes on and what came of it."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300.0)
    options = parser.parse_args()
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {line}\n")
        sys.stdout.flush()

    root = Path(tempfile.mkdtemp(prefix="ktrdr-storm-"))
    try:
        with PrivateNode(NodeConfig()) as node:
            tally = run(root, node, seed=options.seed, jobs=options.jobs, seconds=options.seconds, say=say)
    except BaseException:
        say(f"what everyone said is in {root}")
        raise
    shutil.rmtree(root)
    sys.stdout.write(tally.describe() + "\n")


if __name__ == "__main__":
    main()
