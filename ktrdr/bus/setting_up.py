"""Creating what a broker lacks, one thing at a time, so that each is told of."""

from ktrdr.bus.broker_probe import BrokerProbe, Sighting, Standing
from ktrdr.bus.examination import Examination
from ktrdr.bus.findings import Finding, Mark, Part
from ktrdr.bus.management_examination import name_of
from ktrdr.bus.port import Bus
from ktrdr.bus.rabbitmq_arguments import WireNames
from ktrdr.bus.topology import Topology
from ktrdr.errors import BusError, BusUnavailableError


async def set_up(bus: Bus, probe: BrokerProbe, topology: Topology, *, prefix: str) -> list[Finding]:
    """Create what is missing, and tell of each thing whether it was there, was created, or cannot be.

    Args:
        bus: declares; its user must be allowed to.
        probe: connected to the same broker.
        topology: what is wanted.
        prefix: what names begin with on the broker.

    Raises:
        BusUnavailableError: the connection was lost.
    """
    names = WireNames(prefix)
    examination = Examination(names, None)
    findings = []
    for exchange in topology.exchanges:
        seen = await probe.exchange(exchange)
        finding = examination.exchange(exchange, seen)
        findings.append(await _create(bus, Topology(exchanges=(exchange,)), seen, finding))
    for queue in topology.queues:
        seen = await probe.queue(queue)
        finding = examination.queue(queue, seen)
        findings.append(await _create(bus, Topology(queues=(queue,)), seen, finding))
    for binding in topology.bindings:
        name = name_of(binding, names)
        # AMQP does not tell whether it was there before.
        missing = Sighting(Standing.MISSING)
        findings.append(
            await _create(
                bus, Topology(bindings=(binding,)), missing, Finding(Part.BINDING, name, Mark.OK), "is there"
            )
        )
    return findings


async def _create(
    bus: Bus, topology: Topology, seen: Sighting, finding: Finding, done: str = "created"
) -> Finding:
    if seen.standing is Standing.DIFFERENT:
        return finding
    if seen.standing is not Standing.MISSING:
        return Finding(finding.part, finding.name, Mark.OK, "was there")
    try:
        await bus.declare(topology)
    except BusUnavailableError:
        raise
    except BusError as error:
        return Finding(finding.part, finding.name, Mark.WRONG, error.message, error.fix)
    return Finding(finding.part, finding.name, Mark.OK, done)
