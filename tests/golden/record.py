"""Records journals of simulated worlds: ``python -m tests.golden.record NAME SEED``.

A journal that is there is not to be recorded again: it is what agents of its time said, and must be
understood for as long as such agents may be about.
"""

import os
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from ktrdr.backend.records import OperationRecord, SubmitTraining
from ktrdr.bus.topology import EVENTS, PRESENCE
from ktrdr.logs import configure_logging
from tests.golden.journal import Step, save
from tests.sim.event_loop import SimulatedLoop, run
from tests.sim.parts import Part
from tests.sim.scenario import Action, Scenario
from tests.sim.site import Said

JOURNALS = Path(__file__).parent / "journals"
_LARGEST_SEED = 9


class Recorded(Scenario):
    """A world whose trainings run on hosts, whose models are in the events, and whose backends are spared.

    What backends do is what is looked at when it is replayed: it has to follow from what they hear.
    """

    _decisions = (None,)

    def __init__(self, loop: SimulatedLoop, seed: int, directory: Path) -> None:
        super().__init__(loop, seed, directory)
        self.steps: list[Step] = []
        self._site.on_said = self._hear

    def _actions(self) -> list[tuple[int, Action]]:
        left_out = (self._submit_here, self._poison, self._set_clock, self._block, self._break_broker)
        return [(weight, action) for weight, action in super()._actions() if action not in left_out]

    @property
    def _victims(self) -> list[Part]:
        return list(self._agents)

    def _new_wish(self) -> SubmitTraining:
        return replace(super()._new_wish(), seed=self._rng.randrange(1, _LARGEST_SEED, 2))

    def _accepted(self, operation: OperationRecord, how: str) -> None:
        super()._accepted(operation, how)
        self.steps.append(Step(self._loop.time(), "submitted", operation.operation_id, operation.seed))

    def _cancelling(self, operation_id: str) -> None:
        self.steps.append(Step(self._loop.time(), "cancelled", operation_id))

    def _hear(self, said: Said) -> None:
        message, exchange, routing_key = said
        if exchange in (EVENTS, PRESENCE):
            self.steps.append(
                Step(self._loop.time(), "said", message.correlation_id, None, exchange, routing_key, message)
            )


def record(seed: int) -> list[Step]:
    """Return what happened in the world of a seed."""
    steps: list[Step] = []

    async def main(loop: SimulatedLoop) -> None:
        with tempfile.TemporaryDirectory() as directory:
            world = Recorded(loop, seed, Path(directory))
            try:
                await world.play()
            finally:
                steps.extend(world.steps)

    run(random.Random(seed), main, lambda defect: None)
    return steps


def main(name: str, seed: str) -> None:
    """Record the world of a seed under a name."""
    configure_logging("error")
    journal = JOURNALS / f"{name}.jsonl"
    if journal.exists():
        raise SystemExit(f"{journal} is there. What was recorded is not recorded anew; choose another name.")
    JOURNALS.mkdir(exist_ok=True)
    save(journal, record(int(seed)))
    sys.stdout.write(f"{journal}: now python -m tests.golden.replay\n")
    sys.stdout.flush()
    os._exit(0)  # What was killed in that world is not to come to life again.


if __name__ == "__main__":
    main(*sys.argv[1:])
