"""Where this machine has RabbitMQ's programs, and what to do if it has none."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.broker.errors import BrokerUnavailableError
from tests.broker.installing import how_to_install

PLACE = "KTRDR_TEST_RABBITMQ"
"""The environment variable that names the directory of ``rabbitmq-server``, if that is in no usual place."""

_SERVER_DIRECTORIES = (
    "/usr/lib/rabbitmq/bin",  # Debian, Ubuntu, Fedora
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/opt/rabbitmq/sbin",  # the official image
)
_ERLANG_DIRECTORIES = (
    "/usr/lib/erlang",
    "/usr/lib64/erlang",
    "/usr/local/lib/erlang",
    "/opt/homebrew/lib/erlang",
)


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of RabbitMQ's programs, and of Erlang's that it needs."""

    server: Path
    """The script that packages hide behind a wrapper: the wrapper insists on the system's own directories."""
    ctl: Path
    epmd: Path
    erl_call: Path | None
    """Asks a running node something in milliseconds; not every package of Erlang has it."""


def find_programs() -> Programs:
    """Find RabbitMQ on this machine.

    Raises:
        BrokerUnavailableError: It is not there.
    """
    for directory in _server_directories():
        server = directory / "rabbitmq-server"
        ctl = directory / "rabbitmqctl"
        epmd = _erlang("epmd")
        if os.access(server, os.X_OK) and os.access(ctl, os.X_OK) and epmd:
            return Programs(server, ctl, epmd, _erlang("erl_call"))
    install = how_to_install(script="scripts/obtain-broker", brew="rabbitmq", package="rabbitmq-server")
    raise BrokerUnavailableError(f"There is no rabbitmq-server on this machine. Get one: {install}")


def _server_directories() -> list[Path]:
    if place := os.environ.get(PLACE):
        return [Path(place)]
    directories = [Path(name) for name in _SERVER_DIRECTORIES]
    if on_path := shutil.which("rabbitmq-server"):
        directories.append(Path(on_path).resolve().parent)
    return directories


def _erlang(program: str) -> Path | None:
    if on_path := shutil.which(program):
        return Path(on_path)
    roots = [Path(name) for name in _ERLANG_DIRECTORIES]
    if erl := shutil.which("erl"):
        roots.insert(0, Path(erl).resolve().parents[1])
    for root in roots:
        for pattern in (f"bin/{program}", f"erts-*/bin/{program}", f"lib/erlang/erts-*/bin/{program}"):
            for found in sorted(root.glob(pattern)):
                return found
    return None
