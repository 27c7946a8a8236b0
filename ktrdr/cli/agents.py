"""`ktrdr agents`: who is there to train."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ktrdr.cli.output import JsonOption, ago, err, out, print_json, print_warning, reporting_errors, table
from ktrdr.cli.settings import installation_for

if TYPE_CHECKING:
    from ktrdr.backend.records import AgentRecord, OperationRecord
    from ktrdr.events import RunningAttempt

_STYLES = {
    "ready": "green",
    "busy": "blue",
    "draining": "cyan",
    "detached": "yellow",
    "silent": "red",
    "stopped": "dim",
}


def agents(
    context: typer.Context,
    everyone: Annotated[
        bool, typer.Option("--all", help="Also those that have stopped or fell silent.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the host agents: device, lanes, slots, what each runs, when it was last heard of.

    A detached agent cannot be heard, and trains on: what it made is taken when it is back.
    """
    with reporting_errors(as_json=as_json):
        fleet = installation_for(context).agents()
    known, operations = fleet.agents, fleet.operations
    shown = known if everyone else [agent for agent in known if agent.status.can_be_reached]
    if as_json:
        print_json([_as_json(agent, operations) for agent in shown])
        return
    if known and not fleet.is_served:
        print_warning("no `ktrdr serve` runs here: this is what the last one heard")
    if not shown:
        away = f" {len(known)} stopped or fell silent: ktrdr agents --all" if known else ""
        err.print(f"No agents.{away or ' Start one: ktrdr agent'}")
        return
    listing = table("agent", "status", "device", "lanes", ">slots", ">heard of", "runs")
    for agent in shown:
        listing.add_row(
            agent.agent_id,
            Text(agent.status.value, style=_STYLES.get(agent.status.value, "")),
            f"{agent.device} ({agent.device_name})" if agent.device_name else agent.device,
            ", ".join(agent.lanes),
            f"{agent.slots_busy}/{agent.slots_total}",
            _heard_of(agent, fleet.now),
            "\n".join(_runs(attempt, operations) for attempt in agent.running),
        )
    out.print(listing)
    for agent in shown:
        if not agent.is_understood:
            print_warning(
                f"{agent.agent_id} speaks protocol {agent.protocol_version}: upgrade it, or this backend"
            )


def _heard_of(agent: "AgentRecord", now: datetime) -> str:
    return f"{ago(agent.last_seen, now)} ago"


def _runs(attempt: "RunningAttempt", operations: "Mapping[str, OperationRecord]") -> str:
    record = operations.get(attempt.operation_id)
    parts = [attempt.operation_id, f"attempt {attempt.attempt}"]
    progress = record.progress if record is not None else None
    if progress is not None and progress.attempt == attempt.attempt and progress.epochs:
        parts.append(f"epoch {progress.epoch}/{progress.epochs}")
    if record is not None and record.state.terminal:
        parts.append(record.state.value)
    if attempt.detached:
        parts.append("detached")
    return " · ".join(parts)


def _as_json(agent: "AgentRecord", operations: "Mapping[str, OperationRecord]") -> dict[str, Any]:
    return {
        "agent_id": agent.agent_id,
        "host": agent.host,
        "status": agent.status.value,
        "device": agent.device,
        "device_name": agent.device_name,
        "memory_bytes": agent.memory_bytes,
        "lanes": agent.lanes,
        "slots_total": agent.slots_total,
        "slots_busy": agent.slots_busy,
        "protocol_version": agent.protocol_version,
        "first_seen": agent.first_seen,
        "started_at": agent.started_at,
        "last_seen": agent.last_seen,
        "stopped_at": agent.stopped_at,
        "running": [_attempt_as_json(attempt, operations) for attempt in agent.running],
    }


def _attempt_as_json(
    attempt: "RunningAttempt", operations: "Mapping[str, OperationRecord]"
) -> dict[str, Any]:
    record = operations.get(attempt.operation_id)
    progress = record.progress if record is not None else None
    is_its = progress is not None and progress.attempt == attempt.attempt
    return {
        "operation_id": attempt.operation_id,
        "attempt": attempt.attempt,
        "claim_id": attempt.claim_id,
        "detached": attempt.detached,
        "state": record.state.value if record is not None else None,
        "epoch": progress.epoch if progress is not None and is_its else None,
        "epochs": progress.epochs if progress is not None and is_its else None,
    }
