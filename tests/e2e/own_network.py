"""A network that belongs to one process, and whose cable can be pulled."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from tests.broker.proxy import Proxy


class OwnNetwork(Protocol):
    """What lies between a process and the broker."""

    @property
    def url(self) -> str:
        """The broker, as it is seen from there."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command that is to run there."""

    def pull(self) -> None:
        """Pull the cable: nothing gets through, and nobody is told."""

    def plug(self) -> None:
        """Put it back."""


@contextmanager
def own_network(url: str) -> Iterator[OwnNetwork]:
    """Bring a network of its own: a namespace of the kernel, where root of a Linux asks for it, else a proxy.

    Args:
        url: the broker, as it is seen from here.
    """
    if os.geteuid() == 0 and shutil.which("ip"):
        with _namespace(url) as namespace:
            yield namespace
    else:
        with Proxy(url) as proxy:
            yield _Proxied(proxy)


@dataclass(frozen=True, slots=True)
class _Proxied:
    proxy: Proxy
    prefix: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return self.proxy.url

    def pull(self) -> None:
        self.proxy.freeze()

    def plug(self) -> None:
        self.proxy.restore()


@dataclass(frozen=True, slots=True)
class _Namespace:
    name: str
    link: str
    url: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def pull(self) -> None:
        _ip("link", "set", self.link, "down")

    def plug(self) -> None:
        _ip("link", "set", self.link, "up")


@contextmanager
def _namespace(url: str) -> Iterator[_Namespace]:
    mark = secrets.token_hex(3)
    name, link, inner = f"ktrdr-{mark}", f"kt{mark}", f"ki{mark}"
    # Of TEST-NET-2 (RFC 5737), which nobody has: four addresses of a random block.
    block = 4 * secrets.randbelow(64)
    here, there = f"198.51.100.{block + 1}", f"198.51.100.{block + 2}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", link, "type", "veth", "peer", "name", inner, "netns", name)
        _ip("addr", "add", f"{here}/30", "dev", link)
        _ip("link", "set", link, "up")
        _ip("-n", name, "addr", "add", f"{there}/30", "dev", inner)
        _ip("-n", name, "link", "set", inner, "up")
        # The broker listens for this machine alone.
        with Proxy(url, host=here) as proxy:
            yield _Namespace(name, link, proxy.url)
    finally:
        _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
