"""A thousand agents of which nothing is to be seen but their presence; a program of its own."""

import asyncio
import sys
import time

from benchmarks.broker import READY
from ktrdr.app.connecting import connect_to_broker
from ktrdr.bus.publisher import EventPublisher
from ktrdr.clock import SystemClock
from ktrdr.events import AgentPresence
from ktrdr.ids import RandomIds
from ktrdr.logs import configure_logging
from ktrdr.settings import load_settings


async def main(agents: int, interval_s: float) -> None:
    """Have each agent say that it is there, evenly spread over the interval, for ever."""
    bus = connect_to_broker(load_settings(), "crowd")
    clock = SystemClock()
    ids = RandomIds()
    publishers = [
        EventPublisher(bus, sender=f"agent-{number}@host-{number}", ids=ids, clock=clock, timeout_s=10.0)
        for number in range(agents)
    ]
    sys.stdout.write(f"{READY}\n")
    due = time.monotonic()
    while True:
        for number, publisher in enumerate(publishers):
            due += interval_s / agents
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await publisher.publish(
                AgentPresence(
                    agent_id=f"agent-{number}",
                    state="ready",
                    device="cuda",
                    device_name="a graphics card",
                    memory_bytes=24 * 2**30,
                    lanes=("gpu", "any"),
                    slots_total=2,
                    slots_busy=0,
                )
            )


if __name__ == "__main__":
    configure_logging("error")
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
