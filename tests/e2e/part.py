"""One process of a deployment in a storm: it goes down in many ways, and comes up again."""

import signal
import time
from collections.abc import Callable
from enum import Enum

import psutil
import pytest

from tests.broker.proxy import Proxy
from tests.e2e.command import Command

_STOPS_WITHIN_S = 40.0
"""More than twice what draining, a publish and closing a bus may take."""


class _Condition(Enum):
    UP = "up"
    STOPPING = "told to stop"
    DOWN = "down"


class Part:
    """A process that is started again and again, and speaks to the broker over a network of its own.

    Args:
        name: for people.
        start: starts it.
        says: what it says once it works.
        network: between it and the broker.
    """

    def __init__(self, name: str, start: Callable[[], Command], *, says: str, network: Proxy) -> None:
        self.name = name
        self.network = network
        self._start = start
        self._says = says
        self._command: Command | None = None
        self._condition = _Condition.DOWN
        self._told_at = 0.0
        self._paused: list[psutil.Process] = []

    @property
    def command(self) -> Command:
        """The process that runs, or ran last."""
        assert self._command is not None
        return self._command

    @property
    def works(self) -> bool:
        """Whether it runs, and has said that it works."""
        return self._condition is _Condition.UP and self._says in self.command.stderr

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop, and has not yet."""
        return self._condition is _Condition.STOPPING

    def up(self) -> None:
        """Start it, unless it runs."""
        if self._condition is _Condition.DOWN:
            self._command = self._start()
            self._condition = _Condition.UP

    def kill(self) -> None:
        """Kill it the hard way, also while it is paused or stops."""
        if self._condition is not _Condition.DOWN:
            self.command.process.kill()
            self.command.process.wait()
            self._condition = _Condition.DOWN

    def tell_to_stop(self) -> None:
        """Send SIGTERM, if it works: before that, the signal is Python's to handle."""
        if self.works:
            self.command.send(signal.SIGTERM)
            self._condition, self._told_at = _Condition.STOPPING, time.monotonic()

    def pause(self) -> None:
        """Let it and its children stand still, as when a laptop is closed."""
        if self._condition is not _Condition.DOWN:
            self._paused += [psutil.Process(self.command.process.pid), *self.runners()]
            _signal(self._paused, signal.SIGSTOP)

    def resume(self) -> None:
        """Let go on what is left of it."""
        _signal(self._paused, signal.SIGCONT)
        self._paused.clear()

    def runners(self) -> list[psutil.Process]:
        """Return the processes that it has started."""
        try:
            return psutil.Process(self.command.process.pid).children(recursive=True)
        except psutil.Error:
            return []

    def look(self) -> None:
        """Notice when it has ended; fail the test if it did so unasked, badly or not at all."""
        status = self.command.process.poll()
        if self._condition is _Condition.UP and status is not None:
            pytest.fail(
                f"{self.name} has ended by itself with {status}\n{self.command.stderr}", pytrace=False
            )
        if self._condition is _Condition.STOPPING:
            if status is not None:
                self._condition = _Condition.DOWN
                if status != 0:
                    pytest.fail(f"{self.name} stopped with {status}\n{self.command.stderr}", pytrace=False)
            elif time.monotonic() - self._told_at > _STOPS_WITHIN_S:
                pytest.fail(f"{self.name} does not stop\n{self.command.stderr}", pytrace=False)

    def stop(self) -> None:
        """Tell it to stop, and wait until it has, which it must do in good order."""
        self.command.until_said(self._says)
        self.tell_to_stop()
        while self._condition is not _Condition.DOWN:
            self.look()
            time.sleep(0.02)

    def footprint(self) -> tuple[int, int]:
        """Return its resident bytes, and how many files it has open."""
        process = psutil.Process(self.command.process.pid)
        return process.memory_info().rss, process.num_fds()


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue  # it has ended
