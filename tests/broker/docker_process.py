"""A server in Docker that is gone when whoever asked for it is gone.

Run as a module. With ``--ping`` it only says by its exit code whether a Docker engine answers, which a
``docker`` command on the PATH does not prove. With the name of a service it starts a container, prints the
URL of the server in it, and removes it when its standard input closes.

It is a process of its own so that it outlives a killed test run, and keeps Docker's client with its threads
and sockets away from the tests.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

# This process does what testcontainers would start another container for.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"

_ENGINE_ANSWERS_WITHIN_S = 3
_READY_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Service:
    """What is run in a container, and where it is reached."""

    image: str
    port: int
    ready: str
    """A regular expression that what it logs fits when it is ready."""
    url: str
    environment: Mapping[str, str] = field(default_factory=dict)


SERVICES = {
    "rabbitmq": Service(
        "rabbitmq:4", 5672, "Server startup complete", "amqp://guest:guest@{host}:{port}/%2F"
    ),
    "postgres": Service(
        "postgres:17",
        5432,
        # It starts once to set itself up, and then to stay.
        r"(?s)ready to accept connections.*ready to accept connections",
        "postgresql://postgres:postgres@{host}:{port}/postgres",
        {"POSTGRES_PASSWORD": "postgres"},
    ),
}


def main() -> None:
    ping() if "--ping" in sys.argv else serve(SERVICES[sys.argv[1]])


def ping() -> None:
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env(timeout=_ENGINE_ANSWERS_WITHIN_S).ping()
    except (DockerException, OSError):
        sys.exit(1)


def serve(service: Service) -> None:
    from docker.errors import DockerException
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    ready = LogMessageWaitStrategy(re.compile(service.ready)).with_startup_timeout(_READY_WITHIN_S)
    description = DockerContainer(service.image).with_exposed_ports(service.port).waiting_for(ready)
    for name, value in service.environment.items():
        description.with_env(name, value)
    try:
        with description as container:
            host, port = container.get_container_host_ip(), container.get_exposed_port(service.port)
            sys.stdout.write(service.url.format(host=host, port=port) + "\n")
            sys.stdout.flush()
            sys.stdin.read()
    except (DockerException, RuntimeError, TimeoutError) as error:
        sys.exit(f"Docker answers, but does not run {service.image}: {error}")


if __name__ == "__main__":
    main()
