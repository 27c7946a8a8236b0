"""What the agent is told: to stop an attempt, and that a result has arrived."""

import asyncio

import structlog

from host_agent.attempts import Attempts, Stop
from host_agent.spool import Spool
from host_agent.waiting import Backoff
from ktrdr.bus.port import Bus, Delivery
from ktrdr.bus.topology import LANES, agent_topology, control_queue, shared_topology
from ktrdr.clock import Clock
from ktrdr.errors import BusError, CodecError
from ktrdr.events.codec import decode
from ktrdr.events.training import CancelRequested, ModelDiscarded, ModelPersisted

_PREFETCH = 32

_log = structlog.get_logger()


class Control:
    """Reads the agent's control queue, and declares it anew whenever it is lost."""

    def __init__(
        self,
        bus: Bus,
        *,
        agent_id: str,
        lanes: tuple[str, ...],
        attempts: Attempts,
        spool: Spool,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._agent_id = agent_id
        # Lanes of ours that nobody else knows are declared too, or requests for them would be unroutable.
        self._lanes = tuple(dict.fromkeys((*LANES, *lanes)))
        self._attempts = attempts
        self._spool = spool
        self._clock = clock
        self.listening = asyncio.Event()
        """Set while what is said to this agent reaches it."""

    async def run(self) -> None:
        """Listen, until this is cancelled."""
        pauses = Backoff(0.1, 5.0)
        was_lost = False
        while True:
            try:
                await self._bus.declare(shared_topology(self._lanes))
                await self._bus.declare(agent_topology(self._agent_id))
                consumer = await self._bus.consume(
                    control_queue(self._agent_id),
                    prefetch=_PREFETCH,
                    consumer_tag=f"{self._agent_id}/control",
                )
                self.listening.set()
                if was_lost:
                    self._spool.hurry()  # answers may have been among what was not heard
                try:
                    async for delivery in consumer:
                        pauses.reset()
                        await self._take(delivery)
                finally:
                    self.listening.clear()
                    await consumer.cancel()
                reason = "the queue was closed"
            except BusError as error:
                reason = str(error)
            was_lost = True
            pause_s = pauses.next()
            _log.warning(
                "not listening", queue=control_queue(self._agent_id), reason=reason, again_in_s=pause_s
            )
            await self._clock.sleep(pause_s)

    async def _take(self, delivery: Delivery) -> None:
        try:
            event = decode(delivery.message).event
        except CodecError as error:
            _log.warning("unreadable order", reason=str(error), message_id=delivery.message.message_id)
            await delivery.reject(str(error))
            return
        match event:
            case CancelRequested():
                self._cancel(event)
            case ModelPersisted() | ModelDiscarded():
                if self._spool.answered(event.claim_id):
                    _log.debug("result settled", operation_id=event.operation_id, answer=event.summary())
            case _:
                await delivery.reject(f"A {event.type_name()} is not for agents.")
                return
        await delivery.ack()

    def _cancel(self, order: CancelRequested) -> None:
        for attempt in self._attempts.matching(order.operation_id, order.attempt, order.claim_id):
            if attempt.is_running:
                if attempt.stop is not Stop.CANCELLED:
                    _log.info(
                        "stopping",
                        operation_id=order.operation_id,
                        attempt=order.attempt,
                        agent=self._agent_id,
                        reason=order.reason,
                    )
                attempt.request_stop(Stop.CANCELLED)
            else:
                # It is over, and its ending has not been heard: the backend decides about a late model.
                self._spool.hurry(attempt.claim.claim_id)
