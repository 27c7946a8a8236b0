"""How a private node is configured, and the files and variables that say so to RabbitMQ."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.broker.certificates import Certificates
from tests.broker.ports import free_ports

ADMINISTRATOR = "guest"
"""Name and password of the user who may do everything, whatever the definitions say."""

MIB = 1024 * 1024

_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
_NO_BUSY_WAITING = "+sbwt none +sbwtdcpu none +sbwtdio none"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a node listens, on 127.0.0.1."""

    amqp: int
    amqps: int
    management: int
    stream: int
    distribution: int

    @classmethod
    def free(cls) -> "Ports":
        """Return ports that nothing listens on."""
        return cls(*free_ports(5))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What may differ between private nodes."""

    tls: bool = False
    """Listen for TLS as well, with certificates of an authority of its own."""
    consumer_timeout_ms: int | None = None
    """Close the channel of a consumer that holds a message for longer; RabbitMQ's default is 30 minutes."""
    definitions: Path | None = None
    """Users, permissions, queues and so on to start with."""
    max_message_bytes: int = 16 * MIB
    """The default of RabbitMQ 4; that of RabbitMQ 3 is 128 MiB."""
    plugins: tuple[str, ...] = ("rabbitmq_management", "rabbitmq_stream")
    lines: tuple[str, ...] = ()
    """More lines of ``rabbitmq.conf``."""

    def write(self, directory: Path, ports: Ports, certificates: Certificates | None) -> None:
        """Write RabbitMQ's configuration files."""
        lines = self._conf(directory, ports, certificates)
        (directory / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
        (directory / "advanced.config").write_text(self._advanced())
        (directory / "enabled_plugins").write_text(f"[{','.join(self.plugins)}].\n")
        if self.definitions is not None:
            self._write_definitions(directory / "definitions", self.definitions)

    def _conf(self, directory: Path, ports: Ports, certificates: Certificates | None) -> list[str]:
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{ports.amqp}",
            f"max_message_size = {self.max_message_bytes}",
            "disk_free_limit.absolute = 50MB",
            # Each node would keep up to half a gigabyte of its log in memory otherwise.
            "raft.wal_max_size_bytes = 67108864",
            # A new connection is in the management API this soon, instead of after 5 s.
            "collect_statistics_interval = 500",
        ]
        if "rabbitmq_management" in self.plugins:
            lines += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {ports.management}"]
        if "rabbitmq_stream" in self.plugins:
            lines.append(f"stream.listeners.tcp.1 = 127.0.0.1:{ports.stream}")
        if self.consumer_timeout_ms is not None:
            lines.append(f"consumer_timeout = {self.consumer_timeout_ms}")
        if self.definitions is not None:
            lines.append(f"load_definitions = {directory / 'definitions'}")
        if certificates is not None:
            lines += [
                f"listeners.ssl.1 = 127.0.0.1:{ports.amqps}",
                f"ssl_options.cacertfile = {certificates.authority}",
                f"ssl_options.certfile = {certificates.certificate}",
                f"ssl_options.keyfile = {certificates.key}",
                "ssl_options.verify = verify_none",
            ]
        return [*lines, *self.lines]

    def _advanced(self) -> str:
        if self.consumer_timeout_ms is None:
            return "[].\n"
        # The timeout is looked at once per tick, of a minute by default.
        tick_ms = min(1000, max(100, self.consumer_timeout_ms // 2))
        return f"[{{rabbit, [{{channel_tick_interval, {tick_ms}}}]}}].\n"

    @staticmethod
    def _write_definitions(directory: Path, definitions: Path) -> None:
        """Write the given definitions, and the administrator, who is not made by default with definitions."""
        directory.mkdir(exist_ok=True)
        shutil.copyfile(definitions, directory / "10-given.json")
        user = {"name": ADMINISTRATOR, "password": ADMINISTRATOR, "tags": "administrator"}
        everything = {"user": ADMINISTRATOR, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
        added = {"vhosts": [{"name": "/"}], "users": [user], "permissions": [everything]}
        (directory / "20-administrator.json").write_text(json.dumps(added))


def variables(name: str, directory: Path, ports: Ports) -> dict[str, str]:
    """Return the environment by which RabbitMQ and its tools keep to a directory, and to that node."""
    return {
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(ports.amqp),
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "generated"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_LOOPBACK} {_NO_BUSY_WAITING}",
        "RABBITMQ_CTL_ERL_ARGS": _LOOPBACK,
        "RABBITMQ_CTL_DIST_PORT_MIN": "0",
        "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        # The script then becomes the node, instead of waiting for it and ending it by way of rabbitmqctl.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
