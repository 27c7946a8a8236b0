"""The runner's side of saying things: a thread writes, so that training never waits for the agent."""

import socket
import threading
import time
from collections import deque

from host_agent.frames import Frame, LogLine, Progressed
from host_agent.pipe import encode_frame
from ktrdr.errors import OversizedError

PROGRESS_INTERVAL_S = 0.05
_BURST = 4
"""So many may come closer together: the end of an epoch seldom waits because a batch was just reported."""
_MAX_WAITING_LINES = 1000
"""What is said later waits for them: the end of a run for a fraction of a second."""


class FrameSender:
    """Writes frames in their order, but progress before lines; of it the newest, every 50 ms on average."""

    def __init__(self, pipe: socket.socket, *, interval_s: float = PROGRESS_INTERVAL_S) -> None:
        self._pipe = pipe
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._newest: Progressed | None = None
        self._paid_until = 0.0
        """Each progress costs an interval; a few may be had on credit."""
        self._lines_dropped = 0
        threading.Thread(target=self._write_all, name="frame-sender", daemon=True).start()

    def progress(self, frame: Progressed) -> None:
        """Send this soon, unless a newer one comes first."""
        with self._changed:
            was_waiting = self._newest is not None
            self._newest = frame
            if not was_waiting:
                self._changed.notify()

    def log(self, frame: LogLine) -> None:
        """Send a line of the log; dropped, and counted, when the agent has not read for a long time."""
        try:
            data = encode_frame(frame)
        except OversizedError:
            data = None
        with self._changed:
            if data is None or len(self._waiting) >= _MAX_WAITING_LINES:
                self._lines_dropped += 1
                return
            if self._lines_dropped:
                fields = {"lines": self._lines_dropped}
                self._waiting.append(
                    encode_frame(LogLine(level="warning", event="log lines dropped", fields={**fields}))
                )
                self._lines_dropped = 0
            self._waiting.append(data)
            self._changed.notify()

    def send(self, frame: Frame) -> None:
        """Send this after everything that was said before, the newest progress included.

        Raises:
            OversizedError: the frame is too large; nothing was sent.
        """
        data = encode_frame(frame)
        with self._changed:
            if self._newest is not None:
                self._waiting.append(encode_frame(self._newest))
                self._newest = None
            self._waiting.append(data)
            self._changed.notify()

    def _write_all(self) -> None:
        while True:
            data = self._next()
            try:
                self._pipe.sendall(data)
            except OSError:
                return  # The agent is gone; the thread that reads from it ends the process.

    def _next(self) -> bytes:
        with self._changed:
            while True:
                wait_s = None
                # Before lines, of which there may be many.
                if self._newest is not None:
                    now = time.monotonic()
                    wait_s = self._paid_until - now - (_BURST - 1) * self._interval_s
                    if wait_s <= 0:
                        data = encode_frame(self._newest)
                        self._newest = None
                        self._paid_until = max(self._paid_until, now) + self._interval_s
                        return data
                if self._waiting:
                    return self._waiting.popleft()
                self._changed.wait(wait_s)
