"""Run ``ktrdr`` in this process, which dies of one request: ``deadly_seed.py SEED ARGUMENT …``.

An agent that has accepted a request with that seed is killed before it runs it, as by a bug in a driver.
"""

import os
import signal
import sys
from typing import Any

import host_agent.slot
from ktrdr.cli.main import main
from ktrdr.events.training import TrainingRequested


def die_of(seed: int) -> None:
    """Let requests with that seed kill this process once it has accepted them."""
    carry_out = host_agent.slot.carry_out

    async def carry_out_or_die(request: TrainingRequested, *arguments: Any) -> Any:
        if request.seed == seed:
            os.kill(os.getpid(), signal.SIGKILL)
        return await carry_out(request, *arguments)

    host_agent.slot.carry_out = carry_out_or_die  # type: ignore[attr-defined]  # that is the point


if __name__ == "__main__":
    die_of(int(sys.argv[1]))
    main(sys.argv[2:])
