"""What people do to a broker: set it up, examine it, and care for its dead letters."""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from urllib.parse import parse_qs, urlsplit

from ktrdr.app.connecting import broker_url, connect_to_broker
from ktrdr.bus.broker_probe import BrokerProbe, probing
from ktrdr.bus.dead_letter_box import DeadLetterBox
from ktrdr.bus.dead_letter_office import DeadLetterOffice
from ktrdr.bus.examination import examine
from ktrdr.bus.findings import Finding
from ktrdr.bus.management import ManagementView, look_at
from ktrdr.bus.port import Bus
from ktrdr.bus.setting_up import set_up
from ktrdr.bus.topology import LANES, Topology, shared_topology
from ktrdr.settings import Settings


@asynccontextmanager
async def dead_letter_box(settings: Settings) -> AsyncIterator[DeadLetterBox]:
    """Open the dead letters of the broker that the settings name.

    Raises:
        SettingsError: they name none.
        BusError: it cannot be reached, or does not let this user in.
    """
    # A bus waits for its broker; who sits in front of it would rather know at once.
    async with _probing(settings):
        bus = connect_to_broker(settings, _name())
    try:
        yield DeadLetterBox(bus, timeout_s=settings.publish_timeout_s)
    finally:
        await bus.close()


def dead_letter_office(settings: Settings, bus: Bus) -> DeadLetterOffice:
    """Return that of a backend: of the broker that the settings name, else of the bus within the process.

    Each look at a broker has a connection of its own: megabytes of dead letters are in nobody's way, and a
    broker that is away is told of at once.
    """
    if settings.broker_url is not None:
        return DeadLetterOffice(lambda: dead_letter_box(settings))
    box = DeadLetterBox(bus, timeout_s=settings.publish_timeout_s)
    return DeadLetterOffice(lambda: nullcontext(box), on_broker=False)


async def check_broker(settings: Settings, *, lanes: Sequence[str] = ()) -> list[Finding]:
    """Compare the broker that the settings name with what ktrdr needs; changes nothing.

    Args:
        settings: which broker, and perhaps where its management API is, for what AMQP does not tell.
        lanes: besides the usual ones.

    Raises:
        SettingsError: the settings name no broker.
        BusError: it cannot be reached, or does not let this user in.
    """
    async with _probing(settings) as probe:
        view = await _view(settings, probe)
        return await examine(probe, _topology(lanes), prefix=settings.broker_prefix, view=view)


async def set_up_broker(settings: Settings, *, lanes: Sequence[str] = ()) -> list[Finding]:
    """Create what is missing on the broker that the settings name, and tell what was there and what was not.

    Args:
        settings: which broker.
        lanes: besides the usual ones.

    Raises:
        SettingsError: the settings name no broker.
        BusError: it cannot be reached, or does not let this user in.
    """
    async with _probing(settings) as probe:
        bus = connect_to_broker(settings, _name())
        try:
            return await set_up(bus, probe, _topology(lanes), prefix=settings.broker_prefix)
        finally:
            await bus.close()


def _probing(settings: Settings) -> AbstractAsyncContextManager[BrokerProbe]:
    return probing(broker_url(settings), prefix=settings.broker_prefix, name=_name())


async def _view(settings: Settings, probe: BrokerProbe) -> ManagementView | None:
    if settings.management_url is None:
        return None
    url = settings.management_url.get_secret_value()
    # Both ports of a broker usually show the same certificate.
    first_node = broker_url(settings).split()[0]
    cafile = parse_qs(urlsplit(first_node).query).get("cafile", [None])[0]
    server = await probe.server()
    return await look_at(url, vhost=server.vhost, user=server.user, cafile=cafile)


def _topology(lanes: Sequence[str]) -> Topology:
    return shared_topology(tuple(dict.fromkeys((*LANES, *lanes))))


def _name() -> str:
    return f"operator@{socket.gethostname()}"
