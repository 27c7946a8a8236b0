"""Connections to the broker that the settings name."""

from typing import TYPE_CHECKING

from ktrdr.errors import SettingsError
from ktrdr.settings import Settings

if TYPE_CHECKING:
    from ktrdr.bus.rabbitmq import RabbitMQBus


def broker_url(settings: Settings) -> str:
    """Return the broker's URL, password included.

    Raises:
        SettingsError: the settings name no broker.
    """
    if settings.broker_url is None:
        raise SettingsError(
            "No broker is named, over which backend and host agents speak.",
            fix="Set KTRDR_BROKER_URL=amqp://user:password@host/, or a file that holds it: "
            "KTRDR_BROKER_URL_FILE. On one machine alone, `ktrdr train` needs neither.",
        )
    return settings.broker_url.get_secret_value()


def broker_user(settings: Settings) -> str:
    """Return the broker's user that this process is.

    Raises:
        SettingsError: the settings name no broker, or its URL is wrong.
    """
    from ktrdr.bus.rabbitmq_address import parse_addresses

    return parse_addresses(broker_url(settings))[0].user


def connect_to_broker(settings: Settings, name: str) -> "RabbitMQBus":
    """Return a bus on the broker; it connects by itself, as soon as it can.

    Args:
        settings: ``broker_url``, ``broker_prefix`` and ``broker_heartbeat_s``.
        name: of the connections, for the broker's operator.

    Raises:
        SettingsError: the settings name no broker, or its URL is wrong.
    """
    # Here, because a training on one machine needs no client of a broker.
    from ktrdr.bus.rabbitmq import RabbitMQBus
    from ktrdr.bus.rabbitmq_connection import ConnectionLimits

    return RabbitMQBus(
        broker_url(settings),
        name=name,
        prefix=settings.broker_prefix,
        limits=ConnectionLimits(heartbeat_s=settings.broker_heartbeat_s),
    )
