"""Ports that nothing listens on."""

import random
import socket

_RANGE = range(20_000, 32_000)
"""Below those that systems give to outgoing connections, so that a server finds its port free again."""

# Not the global generator, which test tools seed alike in every worker.
_random = random.SystemRandom()
_given: set[int] = set()


def free_ports(number: int) -> list[int]:
    """Return so many different ports on 127.0.0.1, none of which was returned before.

    Another process may still take one first: whoever binds it must be ready for that.
    """
    ports: list[int] = []
    while len(ports) < number:
        port = _random.choice(_RANGE)
        if port not in _given and _is_free(port):
            _given.add(port)
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
