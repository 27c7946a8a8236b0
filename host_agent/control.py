"""What the agent is told: to stop an attempt, and that a result has arrived."""

import asyncio
import random

import structlog

from host_agent.attempts import Attempts, Stop
from host_agent.complaint import Complaint
from host_agent.spool import Spool
from host_agent.waiting import Backoff
from ktrdr.bus.port import Bus, Consumer, Delivery
from ktrdr.bus.topology import LANES, agent_topology, control_queue, shared_topology
from ktrdr.clock import Clock
from ktrdr.errors import BusError, BusUnavailableError, CodecError, QueueTakenError
from ktrdr.events.codec import decode
from ktrdr.events.training import CancelRequested, ModelDiscarded, ModelPersisted

_PREFETCH = 32

_log = structlog.get_logger()


class Control:
    """Reads the agent's control queue, and declares it anew whenever it is lost.

    Args:
        bus: where the queue is.
        agent_id: whose it is.
        speaker: the agent's name for people.
        lanes: that the agent serves.
        attempts: what may be stopped.
        spool: what may be answered.
        clock: for pauses.
        rng: spreads them.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        agent_id: str,
        speaker: str,
        lanes: tuple[str, ...],
        attempts: Attempts,
        spool: Spool,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._bus = bus
        self._agent_id = agent_id
        self._speaker = speaker
        # Lanes of ours that nobody else knows are declared too, or requests for them would be unroutable.
        self._lanes = tuple(dict.fromkeys((*LANES, *lanes)))
        self._attempts = attempts
        self._spool = spool
        self._clock = clock
        self._rng = rng
        self._deaf = Complaint("orders do not reach this agent", clock)
        self._namesake = Complaint("another agent of this name is connected", clock)
        self.listening = asyncio.Event()
        """Set while what is said to this agent reaches it."""

    async def run(self) -> None:
        """Listen, until this is cancelled."""
        pauses = Backoff(0.1, 5.0, self._rng)
        while True:
            try:
                consumer = await self._subscribe()
                self._heard()
                try:
                    async for delivery in consumer:
                        pauses.reset()
                        await self._take(delivery)
                finally:
                    self.listening.clear()
                    await consumer.cancel()
                _log.info("not listening", queue=control_queue(self._agent_id), reason="the queue was lost")
            except BusUnavailableError as error:
                _log.debug("not listening", reason=str(error))  # The link complains of that.
            except QueueTakenError:
                # A connection of ours that is dead is alive to the broker until it misses its heartbeats.
                self._namesake.repeat(
                    agent=self._agent_id,
                    fix="Give one of them another --name. After a crash of this machine: wait a minute.",
                )
            except BusError as error:
                self._deaf.repeat(queue=control_queue(self._agent_id), reason=str(error))
            await self._clock.sleep(pauses.next())

    async def _subscribe(self) -> Consumer:
        await self._bus.declare(shared_topology(self._lanes))
        await self._bus.declare(agent_topology(self._agent_id))
        return await self._bus.consume(
            control_queue(self._agent_id), prefetch=_PREFETCH, consumer_tag=f"{self._speaker}/control"
        )

    def _heard(self) -> None:
        """Catch up, for orders and answers were lost if the queue was."""
        self._deaf.withdraw()
        self._namesake.withdraw()
        self.listening.set()
        self._spool.hurry()
        self._attempts.changed.set()  # Presence says what is held, and who is to stop is told so.
        _log.info("listening", agent=self._agent_id, queue=control_queue(self._agent_id))

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
                    _log.info(
                        "result settled",
                        operation_id=event.operation_id,
                        attempt=event.attempt,
                        agent=self._agent_id,
                        answer=event.summary(),
                    )
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
