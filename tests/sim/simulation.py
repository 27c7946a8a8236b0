"""Simulated worlds, each decided by a seed: ``make sim SEEDS=1000``; one of them again: ``make sim SEED=7``.

Backends, agents, database and disk are the real ones; time, processes, the network and what is trained are
not. An hour of such worlds takes about a minute.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.progress import track

from tests.sim.event_loop import SimulatedLoop, run
from tests.sim.scenario import Scenario

_MEMORY = Path("/dev/shm")
_LIMIT_S = 600
"""Of real time, for one world."""
_TOLD_EVERY = 10
"""Worlds, where no bar can show how far it is."""
_SHOWN = 40
"""Lines of the story of a world in which a promise was broken."""


@dataclass
class Outcome:
    """What became of one world."""

    seed: int
    problems: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    """What happened to it, in order."""
    happened: dict[str, int] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)
    """How many ended how."""
    progress_seen: int = 0
    simulated_s: float = 0.0

    @property
    def fingerprint(self) -> str:
        """The same for two runs of a seed."""
        return hashlib.sha256("\n".join(self.story).encode()).hexdigest()[:16]


def simulate(seed: int) -> Outcome:
    """Run the world of a seed to its end.

    Once in a process, which is to end by `os._exit` then: what was killed in it lies about as it was.
    """
    outcome = Outcome(seed)
    _hear_defects(outcome.problems)
    directory = Path(tempfile.mkdtemp(prefix="ktrdr-sim-", dir=_MEMORY if _MEMORY.is_dir() else None))

    async def main(loop: SimulatedLoop) -> None:
        scenario = Scenario(loop, seed, directory)
        try:
            await scenario.play()
        finally:
            outcome.story = scenario.story
            outcome.happened = dict(scenario.happened)
            outcome.simulated_s = loop.time()
            outcome.operations = dict(scenario.promises.ends())
            outcome.progress_seen = scenario.promises.progress_seen

    try:
        run(random.Random(seed), main, outcome.problems.append)
    except AssertionError as error:
        outcome.problems.append(str(error) or repr(error))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return outcome


def simulate_all(seeds: Iterable[int], *, at_once: int) -> Iterator[Outcome]:
    """Run the worlds of several seeds, each in a process of its own; yield them as they end."""
    waiting = iter(seeds)
    running: dict[int, tuple[int, int]] = {}  # process id → seed and pipe
    while True:
        while len(running) < at_once and (seed := next(waiting, None)) is not None:
            process, pipe = _begin(seed)
            running[process] = (seed, pipe)
        if not running:
            return
        process, status = os.wait()
        seed, pipe = running.pop(process)
        yield _end(seed, pipe, status)


def _begin(seed: int) -> tuple[int, int]:
    # To a file rather than a pipe, which may be too small for it.
    result = os.memfd_create(f"world-{seed}")
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        try:
            signal.alarm(_LIMIT_S)
            os.write(result, json.dumps(asdict(simulate(seed))).encode())
        except BaseException as error:
            os.write(result, json.dumps(asdict(Outcome(seed, [repr(error)]))).encode())
        finally:
            os._exit(0)
    return process, result


def _end(seed: int, result: int, status: int) -> Outcome:
    with os.fdopen(result, "rb") as file:
        file.seek(0)
        data = file.read()
    if not data:
        return Outcome(seed, [f"It ended with status {status}; {_LIMIT_S} s is the limit."])
    return Outcome(**json.loads(data))


def _hear_defects(problems: list[str]) -> None:
    """Take a traceback in the log for a problem, and nothing else."""

    def hear(_logger: object, method: str, event: Any) -> Any:
        if event.get("exc_info") or method in ("critical", "exception"):
            problems.append(f"logged: {event}")
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, hear])


def main() -> int:
    """Run what the command line asks for; return 1 if a promise was broken."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        # What depends on the order of a set is the same again only with this.
        os.execve(sys.executable, [*sys.orig_argv], {**os.environ, "PYTHONHASHSEED": "0"})
    parser = argparse.ArgumentParser(description="Simulated worlds in which everything fails.")
    parser.add_argument("--seed", type=int, help="only this one, and its story")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    console = Console(highlight=False)
    one = options.seed is not None
    seeds = [options.seed] if one else range(options.first, options.first + options.seeds)
    began = time.monotonic()
    outcomes = simulate_all(seeds, at_once=options.at_once)
    total = Outcome(0)
    broken = []
    shown = track(outcomes, "Worlds", total=len(seeds), console=console, disable=not console.is_terminal)
    for number, outcome in enumerate(shown, start=1):
        if not console.is_terminal and number % _TOLD_EVERY == 0:
            console.print(f"{number} of {len(seeds)} worlds")
        total.happened = Counter(total.happened) + Counter(outcome.happened)
        total.operations = Counter(total.operations) + Counter(outcome.operations)
        total.simulated_s += outcome.simulated_s
        total.progress_seen += outcome.progress_seen
        if outcome.problems or one:
            for line in outcome.story[None if one else -_SHOWN :]:
                console.print(line, markup=False, soft_wrap=True)
        if outcome.problems:
            broken.append(outcome.seed)
            for problem in outcome.problems:
                console.print(f"[red]seed {outcome.seed}:[/red]", problem, soft_wrap=True)
            console.print(f"again: make sim SEED={outcome.seed}")
    took = f"{total.simulated_s / 3600:.1f} h of theirs in {time.monotonic() - began:.0f} s"
    console.print(f"{len(seeds)} worlds, {took}: {_listed(total.operations)}.")
    console.print(f"What happened: {_listed(total.happened)}; {total.progress_seen:,} looks at progress.")
    if one:
        console.print(f"The story's fingerprint: {outcome.fingerprint}")
    if broken:
        console.print(f"[red]A promise was broken in {len(broken)}:[/red] {', '.join(map(str, broken))}")
    return 1 if broken else 0


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items(), key=lambda each: -each[1]))


if __name__ == "__main__":
    sys.exit(main())
