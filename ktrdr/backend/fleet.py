"""The host agents that the database knows, and why none of them takes a request."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, select

from ktrdr.backend.records import AgentRecord, AgentStatus
from ktrdr.backend.tables import agents
from ktrdr.events import PROTOCOL_VERSION, RunningAttempt

_NAMED = 3
_RUNNING = TypeAdapter(tuple[RunningAttempt, ...])


def read_agents(connection: Connection, now: datetime) -> list[AgentRecord]:
    """Return every agent that is known, by name, with its status at that moment."""
    return [_record(row, now) for row in connection.execute(select(agents).order_by(agents.c.id))]


def _record(row: Row[Any], now: datetime) -> AgentRecord:
    running = _RUNNING.validate_json(row.running)
    is_silent = (now - row.last_seen).total_seconds() >= row.silent_after_s
    return AgentRecord(
        agent_id=row.id,
        host=row.host,
        status=_status(row, running, is_silent=is_silent),
        device=row.device,
        device_name=row.device_name,
        memory_bytes=row.memory_bytes,
        lanes=tuple(json.loads(row.lanes)),
        slots_total=row.slots_total,
        slots_busy=row.slots_busy,
        running=running,
        protocol_version=row.protocol_version,
        first_seen=row.first_seen,
        started_at=row.started_at,
        last_seen=row.last_seen,
        stopped_at=row.stopped_at,
    )


def _status(row: Row[Any], running: Sequence[RunningAttempt], *, is_silent: bool) -> AgentStatus:
    if row.state == AgentStatus.STOPPED:
        return AgentStatus.STOPPED
    if is_silent:
        return AgentStatus.DETACHED if running else AgentStatus.SILENT
    if any(attempt.detached for attempt in running):
        return AgentStatus.DETACHED
    if row.state == AgentStatus.DRAINING:
        return AgentStatus.DRAINING
    return AgentStatus.BUSY if row.slots_busy >= row.slots_total else AgentStatus.READY


def who_cannot(fleet: Sequence[AgentRecord], lane: str, *, require_gpu: bool) -> list[AgentRecord]:
    """Return the agents of a lane that take a request of this kind only to give it back.

    It does not depend on what the time is: one that seems silent may have done so a moment ago.
    """
    return [
        agent
        for agent in fleet
        if lane in agent.lanes
        and agent.status is not AgentStatus.STOPPED
        and (not agent.is_understood or (require_gpu and not agent.has_gpu))
    ]


def who_could_take(fleet: Sequence[AgentRecord], lane: str, *, require_gpu: bool) -> list[AgentRecord]:
    """Return the agents that take such a request from a lane, now or when they have a slot free."""
    return [
        agent
        for agent in fleet
        if lane in agent.lanes
        and agent.status in (AgentStatus.READY, AgentStatus.BUSY)
        and agent.is_understood
        and (agent.has_gpu or not require_gpu)
    ]


def why_not_taken(fleet: Sequence[AgentRecord], lane: str, *, require_gpu: bool) -> str:
    """Return in words why nobody takes a request from a lane; empty if somebody should."""
    serving = [agent for agent in fleet if lane in agent.lanes]
    if not serving:
        return f"no agent serves lane {lane}"
    there = [agent for agent in serving if agent.status.can_be_reached]
    if not there:
        return f"no agent of lane {lane} is there: {_names(serving)} stopped or fell silent"
    understood = [agent for agent in there if agent.is_understood]
    if not understood:
        return f"no agent of lane {lane} speaks protocol {PROTOCOL_VERSION}: {_names(there)} must be upgraded"
    fit = [agent for agent in understood if agent.has_gpu] if require_gpu else understood
    if not fit:
        return f"no agent of lane {lane} has a GPU, which it requires: {_names(understood)} trains on the CPU"
    taking = [agent for agent in fit if agent.status is not AgentStatus.DRAINING]
    if not taking:
        return f"no agent of lane {lane} takes work: {_names(fit)} is draining"
    if any(agent.slots_busy < agent.slots_total for agent in taking):
        return ""
    busy, total = sum(agent.slots_busy for agent in taking), sum(agent.slots_total for agent in taking)
    return f"every agent of lane {lane} is busy ({busy} of {total} slots): {_names(taking)}"


def _names(agents: Sequence[AgentRecord]) -> str:
    named = ", ".join(agent.agent_id for agent in agents[:_NAMED])
    return named if len(agents) <= _NAMED else f"{named} and {len(agents) - _NAMED} more"
