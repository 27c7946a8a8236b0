"""Recorded journals: what was submitted, cancelled and said in a world, and when; one step a line."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ktrdr.events.message import Message


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened."""

    at: float
    """Seconds since the beginning."""
    what: Literal["submitted", "cancelled", "said"]
    operation_id: str | None = None
    seed: int | None = None
    """Of what was submitted."""
    exchange: str | None = None
    routing_key: str | None = None
    message: Message | None = None


def save(path: Path, steps: Iterable[Step]) -> None:
    """Write a journal."""
    lines = [json.dumps(_plain(step), sort_keys=True) for step in sorted(steps, key=lambda step: step.at)]
    path.write_text("\n".join(lines) + "\n")


def load(path: Path) -> list[Step]:
    """Read a journal."""
    return [_step(json.loads(line)) for line in path.read_text().splitlines()]


def _plain(step: Step) -> dict[str, Any]:
    plain = _known(step, but="message")
    if (message := step.message) is not None:
        plain["message"] = {
            **_known(message, but="user_id"),
            "body": base64.b64encode(message.body).decode(),
            "headers": dict(message.headers),
        }
        if message.timestamp is not None:
            plain["message"]["timestamp"] = message.timestamp.isoformat()
    return plain


def _known(record: Step | Message, *, but: str) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record) if field.name != but}
    return {name: value for name, value in values.items() if value is not None}


def _step(plain: dict[str, Any]) -> Step:
    if (message := plain.get("message")) is None:
        return Step(**plain)
    values = {**message, "body": base64.b64decode(message["body"])}
    if "timestamp" in values:
        values["timestamp"] = datetime.fromisoformat(values["timestamp"])
    return Step(**{**plain, "message": Message(**values)})
