"""A broker in Docker that is gone when whoever asked for it is gone.

Run as a module. With ``--ping`` it only says by its exit code whether a Docker engine answers, which a
``docker`` command on the PATH does not prove. Otherwise it starts a container, prints the URL of the broker
in it, and removes it when its standard input closes.

It is a process of its own so that it outlives a killed test run, and keeps Docker's client with its threads
and sockets away from the tests.
"""

import os
import sys

# This process does what testcontainers would start another container for.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"

IMAGE = "rabbitmq:4"
_ENGINE_ANSWERS_WITHIN_S = 3
_READY_WITHIN_S = 120
_AMQP_PORT = 5672


def main() -> None:
    ping() if "--ping" in sys.argv else serve()


def ping() -> None:
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env(timeout=_ENGINE_ANSWERS_WITHIN_S).ping()
    except (DockerException, OSError):
        sys.exit(1)


def serve() -> None:
    from docker.errors import DockerException
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    ready = LogMessageWaitStrategy("Server startup complete").with_startup_timeout(_READY_WITHIN_S)
    try:
        with DockerContainer(IMAGE).with_exposed_ports(_AMQP_PORT).waiting_for(ready) as container:
            host, port = container.get_container_host_ip(), container.get_exposed_port(_AMQP_PORT)
            sys.stdout.write(f"amqp://guest:guest@{host}:{port}/%2F\n")
            sys.stdout.flush()
            sys.stdin.read()
    except (DockerException, RuntimeError, TimeoutError) as error:
        sys.exit(f"Docker answers, but does not run {IMAGE}: {error}")


if __name__ == "__main__":
    main()
