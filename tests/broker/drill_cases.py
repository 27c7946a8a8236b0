"""Drills on a private broker, and what must be gone afterwards."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from ktrdr.drill.catalog import chosen
from ktrdr.drill.names import FAMILY
from ktrdr.drill.pace import Pace
from ktrdr.drill.results import Result
from ktrdr.drill.running import Report, Wish, run_drills
from ktrdr.drill.scene import Drill
from ktrdr.drill.scratch_broker import Server
from tests.broker.node import PrivateNode

QUICK = Pace(keep_s=0.3, cancelled_within_s=30.0)
POLICY = "drilled"
_TRIES = 20


class Witness:
    """A watcher that does something when a certain drill begins.

    Args:
        at: the drill's name.
        action: what to do then.
    """

    def __init__(self, at: str | None, action: Callable[[], object]) -> None:
        self._at = at
        self._action = action

    def connected(self, server: Server, prefix: str) -> None:
        assert prefix.startswith(FAMILY)
        assert server.product == "RabbitMQ"

    def begun(self, drill: Drill) -> None:
        if drill.name == self._at:
            self._action()

    def ended(self, drill: Drill, result: Result) -> None:
        assert result.detail


async def drill(
    url: str,
    *names: str,
    pace: Pace = QUICK,
    stop_at: str | None = None,
    when: tuple[str, Callable[[], object]] | None = None,
    **wish: Any,
) -> Report:
    """Run drills of these names, and the first; all if none is named.

    Args:
        url: of the broker.
        names: of drills.
        pace: of the run.
        stop_at: the drill with whose begin the run is stopped.
        when: the drill with whose begin something is done.
        wish: the other fields of `Wish`.
    """
    stop = asyncio.Event()
    wanted = replace(Wish(url, chosen(names), pace=pace, inline_limit_bytes=1024 * 1024), **wish)
    return await run_drills(wanted, stop=stop, watcher=Witness(*(when or (stop_at, stop.set))))


def outcomes(report: Report) -> dict[str, str]:
    """Return how each drill ended, and why if it did not pass: so a test that fails says it."""
    return {
        drill.name: result.outcome.value
        if result.outcome in ("passed", "measured")
        else f"{result.outcome}: {result.detail}"
        for drill, result in report.results
    }


def result_of(report: Report, name: str) -> Result:
    """Return how one drill ended."""
    return next(result for drill, result in report.results if drill.name == name)


def names_on(node: PrivateNode, begin: str = FAMILY) -> list[str]:
    """Return the exchanges and queues of drills that are on the broker."""
    for tries_left in reversed(range(_TRIES)):
        try:
            found = (*node.management.queues(), *node.management.exchanges())
        except httpx.HTTPStatusError:
            # The API trips over queues that come and go while it looks.
            if not tries_left:
                raise
        else:
            return sorted(each["name"] for each in found if each["name"].startswith(begin))
    raise AssertionError("the last try returns or raises")


def agents_of(prefix: str) -> list[psutil.Process]:
    """Return the living agents of a drill."""
    return [process for process in psutil.process_iter() if _prefix(process) == prefix]


def check_nothing_is_left(node: PrivateNode, report: Report) -> None:
    """Check that the broker, the disk and the process table are as they were."""
    assert report.left == ()
    assert names_on(node, report.prefix) == []
    assert not (Path(tempfile.gettempdir()) / report.prefix).exists()
    assert agents_of(report.prefix) == []


@contextmanager
def policy(node: PrivateNode, **definition: object) -> Iterator[None]:
    """Set a policy on every queue and exchange of drills, as long as the block runs."""
    body = {
        "pattern": f"^{FAMILY}",
        "definition": {name.replace("_", "-"): value for name, value in definition.items()},
        "apply-to": "all",
    }
    node.management.request("PUT", "policies", "/", POLICY, json=body)
    try:
        yield
    finally:
        node.management.request("DELETE", "policies", "/", POLICY)


def _prefix(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.environ().get("KTRDR_BROKER_PREFIX")
    except psutil.Error:
        return None
