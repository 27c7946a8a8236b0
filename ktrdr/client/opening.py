"""Which installation a command works with."""

from ktrdr.client.port import Installation
from ktrdr.settings import Settings


def open_installation(settings: Settings) -> Installation:
    """Return the one behind the server that is named, else that of this machine.

    Raises:
        SettingsError: the address of the server is none.
    """
    if settings.server is None:
        from ktrdr.client.embedded import EmbeddedInstallation

        return EmbeddedInstallation(settings)
    from ktrdr.client.remote import ServedInstallation
    from ktrdr.client.server import Server

    return ServedInstallation(Server(settings.server, settings.token))
