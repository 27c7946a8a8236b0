"""The bad network that tests put between clients and the broker."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.broker.proxy import Proxy
from tests.e2e.waiting import eventually

_WITHIN_S = 60.0
_SILENCE_S = 0.1
_DELAY_S = 0.15


class Echo:
    """A server that sends back what it hears, and the end of it too."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"amqp://guest:guest@127.0.0.1:{self._listener.getsockname()[1]}/%2F"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(_WITHIN_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    @staticmethod
    def _serve(connection: socket.socket) -> None:
        with connection:
            try:
                while heard := connection.recv(65_536):
                    connection.sendall(heard)
            except OSError:
                return


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    echo = Echo()
    with Proxy(echo.url) as between:
        yield between
    echo.close()


def connect(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=_WITHIN_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def hear(connection: socket.socket, number: int) -> bytes:
    heard = b""
    while len(heard) < number:
        heard += connection.recv(number)
    return heard


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(_SILENCE_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(_WITHIN_S)
    return False


def talk(connection: socket.socket, what: bytes = b"hello") -> None:
    connection.sendall(what)
    assert hear(connection, len(what)) == what


def test_the_url_leads_through_the_proxy(proxy: Proxy) -> None:
    assert proxy.url == f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F"


def test_much_passes_unchanged(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 40_000
    with connect(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(sent,))
        sender.start()
        assert hear(connection, len(sent)) == sent
        sender.join()


def test_a_client_that_closes_closes_the_connection_to_the_broker(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        talk(connection)
        assert proxy.connections == 1
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    eventually(lambda: proxy.connections == 0, within_s=_WITHIN_S, otherwise="the connection is still there")


def test_a_broker_that_is_away_closes_the_connection() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        Proxy(f"amqp://127.0.0.1:{taken.getsockname()[1]}") as proxy,
    ):
        taken.close()
        with connect(proxy) as connection:
            assert connection.recv(1) == b""


def test_reset_ends_connections_with_an_error_and_takes_new_ones(proxy: Proxy) -> None:
    with connect(proxy) as connection, connect(proxy) as another:
        talk(connection)
        talk(another)
        proxy.reset()
        assert proxy.connections == 0
        for ended in (connection, another):
            with pytest.raises(ConnectionResetError):
                ended.recv(1)
    with connect(proxy) as new:
        talk(new)


def test_finish_ends_connections_in_order(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        talk(connection)
        proxy.finish()
        assert connection.recv(1) == b""


def test_refuse_turns_new_connections_away_until_restored(proxy: Proxy) -> None:
    with connect(proxy) as old:
        talk(old)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        talk(old)
        proxy.restore()
        with connect(proxy) as new:
            talk(new)


def test_what_a_frozen_network_holds_arrives_when_it_is_restored(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        talk(connection)
        proxy.freeze()
        connection.sendall(b"held")
        with connect(proxy) as new:
            new.sendall(b"new")
            assert is_silent(connection)
            assert is_silent(new)
            proxy.restore()
            assert hear(connection, 4) == b"held"
            assert hear(new, 3) == b"new"


def test_a_frozen_network_does_not_tell_that_one_side_is_gone(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        talk(connection)
        proxy.freeze()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with connect(proxy) as probe:
        assert is_silent(probe)
        assert proxy.connections == 2
        proxy.restore()
        talk(probe)
        eventually(
            lambda: proxy.connections == 1, within_s=_WITHIN_S, otherwise="the dead one is still there"
        )


def test_a_connection_can_die_in_a_frozen_network(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        talk(connection)
        proxy.freeze()
        connection.sendall(b"lost")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_delay_makes_everything_late_in_both_directions(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        talk(connection)
        proxy.delay(_DELAY_S)
        began = time.monotonic()
        talk(connection)
        assert time.monotonic() - began >= 2 * _DELAY_S


def test_a_network_that_is_restored_delays_nothing_any_more(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        proxy.delay(3600)
        proxy.restore()
        talk(connection)
