"""A TCP proxy that counts what it passes on, and cuts connections after so many bytes."""

import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

_CHUNK_BYTES = 16 * 1024
_RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER that makes closing send RST."""


class CuttingProxy:
    """Passes on what a client and a server say to each other.

    Args:
        port: of the server, on this machine.
        budgets: each connection is cut after so many bytes in both directions together; when there are no
            more budgets, connections last.
        with_reset: cut with RST, which throws away what has arrived and was not read yet; else with FIN.
    """

    def __init__(self, port: int, budgets: Iterable[int] = (), *, with_reset: bool = False) -> None:
        self.with_reset = with_reset
        self._target = port
        self._budgets = iter(budgets)
        self._counting = threading.Lock()
        self._alarms: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        self.up = 0
        """Bytes from clients to the server."""
        self.down = 0
        """Bytes from the server to clients."""
        self.cuts = 0
        """Connections that were cut."""

    def when_up(self, reaches: int, action: Callable[[], None]) -> None:
        """Do something as soon as so many bytes have gone to the server."""
        self.when(lambda: self.up >= reaches, action)

    def when(self, condition: Callable[[], bool], action: Callable[[], None]) -> None:
        """Do something as soon as something is the case, which is looked at whenever anything passes."""
        self._alarms.append((condition, action))

    @contextmanager
    def running(self) -> Iterator[str]:
        """Yield the URL of the server through the proxy."""
        with closing(socket.create_server(("127.0.0.1", 0))) as listener, ExitStack() as ends:
            thread = threading.Thread(target=self._accept, args=(listener, ends), name="proxy")
            thread.start()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self, listener: socket.socket, ends: ExitStack) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            link = _Link(self, client, server, next(self._budgets, None))
            ends.callback(link.end)

    def count(self, up: int, down: int) -> None:
        """Note what is about to pass; called by the links."""
        with self._counting:
            self.up += up
            self.down += down
            due = [alarm for alarm in self._alarms if alarm[0]()]
            self._alarms = [alarm for alarm in self._alarms if alarm not in due]
        for _, action in due:
            action()


class _Link:
    """One connection, and its two threads."""

    def __init__(
        self, proxy: CuttingProxy, client: socket.socket, server: socket.socket, budget: int | None
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._left = budget
        self._lock = threading.Lock()
        self._running = 2
        self._threads = [
            threading.Thread(target=self._pass_on, args=(client, server, True), name="proxy up"),
            threading.Thread(target=self._pass_on, args=(server, client, False), name="proxy down"),
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._shut_down()
        for thread in self._threads:
            thread.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while chunk := source.recv(_CHUNK_BYTES):
                if allowed := chunk[: self._spend(len(chunk))]:
                    self._proxy.count(len(allowed) if up else 0, 0 if up else len(allowed))
                    sink.sendall(allowed)
                if len(allowed) < len(chunk):
                    self._cut()
                    return
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._shut_down()
        finally:
            self._close_if_last()

    def _spend(self, wanted: int) -> int:
        with self._lock:
            if self._left is None:
                return wanted
            granted = min(wanted, self._left)
            self._left -= granted
            return granted

    def _cut(self) -> None:
        self._proxy.cuts += 1
        for end in (self._client, self._server) if self._proxy.with_reset else ():
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._shut_down()

    def _shut_down(self) -> None:
        """Wake the other thread."""
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _close_if_last(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running:
                return
        self._client.close()
        self._server.close()
