"""Which agents are there: in memory at once, in the database every second or so."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pydantic import ValidationError
from sqlalchemy import and_, bindparam, delete, insert, or_, select, update

from ktrdr.backend.records import AgentStatus
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import agents
from ktrdr.backend.waiting import Offload, wait_for
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError
from ktrdr.events import AgentPresence, Envelope, Message
from ktrdr.events.message import header_text

_log = structlog.get_logger()

WRITE_INTERVAL_S = 1.0
"""What has changed is written after so long."""
_LAST_SEEN_INTERVAL_S = 5.0
_DETACHED_AFTER = 2 / 3
"""Of a lease: from then on an agent calls itself detached."""
_PRUNE_INTERVAL_S = 3600.0
_KEEP_STOPPED = timedelta(days=1)
_KEEP_SILENT = timedelta(days=7)
_MAX_KNOWN = 10_000
_LATE_BY = timedelta(seconds=10)
"""A backend may record what it heard so late; what seems older still is of a clock that was set back."""
_HOST_CHARACTERS = 128
_OTHER_VERSION = re.compile(rf"{re.escape(AgentPresence.type)}\.v(?P<version>[0-9]{{1,9}})")


@dataclass(slots=True)
class _Known:
    """What an agent said last."""

    event: AgentPresence
    sender: str
    message: Message | None
    """What it said it in."""
    last_seen: datetime
    said_at: datetime
    """By its own clock."""


class Presences:
    """Knows what each agent said last; most of what agents say they have said before.

    Args:
        store: where agents are recorded.
        clock: for times and intervals.
        offload: where the database is written.
        lease_s: an agent that was not heard of for so long, or for two thirds of it while it held something,
            cannot be reached.
    """

    def __init__(self, store: OperationStore, *, clock: Clock, offload: Offload, lease_s: float) -> None:
        self._store = store
        self._clock = clock
        self._offload = offload
        self._idle_silent_after_s = lease_s
        self._silent_after_s = _DETACHED_AFTER * lease_s
        # Who is there must not seem silent because it is not written yet.
        self._write_every_s = min(WRITE_INTERVAL_S, self._silent_after_s / 4)
        self._write_seen_every_s = min(_LAST_SEEN_INTERVAL_S, self._silent_after_s / 4)
        self._known: dict[str, _Known] = {}  # by sender, who was heard of last at the end
        self._changed: dict[str, _Known] = {}  # by agent: what the database does not say
        self._seen: dict[str, datetime] = {}  # by agent: likewise
        self._has_changed = asyncio.Event()

    def recognize(self, message: Message) -> AgentPresence | None:
        """Return the event in a message, if its sender has said the same before; nothing is decoded."""
        known = self._known.get(message.app_id or "")
        if known is None or known.message is None or not _is_alike(known.message, message):
            return None
        self._see(known)
        return known.event

    def take(self, event: AgentPresence, envelope: Envelope) -> None:
        """Take note of what an agent says."""
        before = self._known.pop(envelope.sender, None)
        known = _Known(event, envelope.sender, envelope.message, self._clock.now(), envelope.occurred_at)
        self._known[envelope.sender] = known
        if len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        if event.state == "stopped":
            del self._known[envelope.sender]
        self._see(known)
        if before is None or before.event != event:
            self._changed[event.agent_id] = known
            self._has_changed.set()

    def take_unreadable(self, message: Message) -> bool:
        """Take note of an agent that speaks another version; return whether that is what the message is."""
        match = _OTHER_VERSION.fullmatch(message.type)
        sender = message.app_id or ""
        try:
            event = AgentPresence(
                agent_id=sender.rpartition("@")[0],
                protocol_version=int(match["version"]) if match else 0,
                state="ready",
                device="unknown",
                lanes=(),
                slots_total=1,
                slots_busy=1,
            )
        except ValidationError:
            return False
        said_at = message.timestamp or self._clock.now()
        self.take(event, Envelope(event, event_id="", sender=sender, occurred_at=said_at))
        return True

    def _see(self, known: _Known) -> None:
        known.last_seen = self._clock.now()
        self._seen[known.event.agent_id] = known.last_seen

    async def run(self) -> None:
        """Write what is new, for ever."""
        seen_written_at = self._clock.monotonic()
        pruned_at = float("-inf")
        while True:
            await wait_for(self._has_changed, self._clock, self._write_seen_every_s)
            now = self._clock.monotonic()
            await self.flush(with_seen=now - seen_written_at >= self._write_seen_every_s)
            if now - seen_written_at >= self._write_seen_every_s:
                seen_written_at = now
            if now - pruned_at >= _PRUNE_INTERVAL_S:
                pruned_at = now
                await self._write(_prune)
            await self._clock.sleep(self._write_every_s)

    async def flush(self, *, with_seen: bool = True) -> None:
        """Write what is new now.

        Args:
            with_seen: also when agents that say nothing new were last heard of.
        """
        self._has_changed.clear()
        changed, self._changed = self._changed, {}
        seen: dict[str, datetime] = {}
        if with_seen:
            seen, self._seen = self._seen, {}
        if not (changed or seen):
            return
        if not await self._write(lambda work: self._record(work, changed, seen)):
            self._changed = {**changed, **self._changed}
            self._seen = {**seen, **self._seen}
            self._has_changed.set()

    async def _write(self, action: Callable[[Work], None]) -> bool:
        try:
            await self._offload(lambda: self._store.change(action))
        except (DatabaseUnavailableError, StorageFullError) as error:
            _log.warning("agents not recorded", error=str(error))
            return False
        return True

    def _record(self, work: Work, changed: dict[str, _Known], seen: dict[str, datetime]) -> None:
        # In one order: other backends hear the same, and write the same rows.
        states = _states(work, list(changed))
        for agent_id, known in sorted(changed.items()):
            values = self._values(known)
            if agent_id not in states:
                values |= dict.fromkeys(("first_seen", "started_at", "last_seen"), known.last_seen)
                work.connection.execute(insert(agents).values(id=agent_id, **values))
                continue
            if states[agent_id] == AgentStatus.STOPPED:
                values["started_at"] = known.last_seen
            is_news = or_(
                agents.c.said_at.is_(None),
                agents.c.said_at <= known.said_at,
                agents.c.said_at > known.said_at + _LATE_BY,
            )
            work.connection.execute(update(agents).where(agents.c.id == agent_id, is_news).values(**values))
        seen = {**{agent_id: known.last_seen for agent_id, known in changed.items()}, **seen}
        rows = [
            {"agent": agent_id, "moment": moment, "too_late": moment + _LATE_BY}
            for agent_id, moment in sorted(seen.items())
        ]
        if rows:
            work.connection.execute(_SEEN, rows)

    def _values(self, known: _Known) -> dict[str, object]:
        event = known.event
        is_stopped = event.state == "stopped"
        return {
            "host": header_text(known.sender.rpartition("@")[2], _HOST_CHARACTERS),
            "state": event.state,
            "protocol_version": event.protocol_version,
            "device": event.device,
            "device_name": event.device_name,
            "memory_bytes": event.memory_bytes,
            "lanes": json.dumps(event.lanes),
            "slots_total": event.slots_total,
            "slots_busy": event.slots_busy,
            "running": json.dumps([attempt.model_dump(mode="json") for attempt in event.running]),
            "silent_after_s": self._silent_after_s if event.running else self._idle_silent_after_s,
            "said_at": known.said_at,
            "stopped_at": known.last_seen if is_stopped else None,
        }


_SEEN = (
    update(agents)
    .where(agents.c.id == bindparam("agent"))
    .where(or_(agents.c.last_seen < bindparam("moment"), agents.c.last_seen > bindparam("too_late")))
    .values(last_seen=bindparam("moment"))
)


def _states(work: Work, agent_ids: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for first in range(0, len(agent_ids), 500):
        query = select(agents.c.id, agents.c.state).where(agents.c.id.in_(agent_ids[first : first + 500]))
        found |= {row.id: row.state for row in work.connection.execute(query)}
    return found


def _prune(work: Work) -> None:
    stopped = and_(agents.c.state == AgentStatus.STOPPED, agents.c.last_seen < work.now - _KEEP_STOPPED)
    work.connection.execute(delete(agents).where(or_(stopped, agents.c.last_seen < work.now - _KEEP_SILENT)))


def _is_alike(one: Message, other: Message) -> bool:
    """Return whether two messages of one sender hold the same event."""
    return (
        one.body == other.body
        and one.type == other.type
        and one.user_id == other.user_id
        and one.content_type == other.content_type
        and one.content_encoding == other.content_encoding
    )
