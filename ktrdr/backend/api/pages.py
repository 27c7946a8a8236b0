"""Cursors: where a page of a list ended, as text that clients hand back unread."""

import base64
import binascii
import json
from datetime import datetime
from http import HTTPStatus

from ktrdr.backend.api.problems import Problem
from ktrdr.backend.listing import Position


def to_cursor(position: Position) -> str:
    """Return the text of a position."""
    plain = json.dumps([position.created_at.isoformat(), position.operation_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def from_cursor(cursor: str) -> Position:
    """Return the position of a text.

    Raises:
        Problem: it is no cursor.
    """
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        at, operation_id = json.loads(plain)
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None or not isinstance(operation_id, str):
            raise ValueError
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            "invalid-cursor",
            "This is not a cursor.",
            fix="Use `next_cursor` of the page before, as it is; leave it out for the first page.",
        ) from error
    return Position(moment, operation_id)
