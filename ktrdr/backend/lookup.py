"""Finding an operation by what a person types of its id."""

import re

from sqlalchemy import Connection, or_, select

from ktrdr.backend.records import OperationRecord
from ktrdr.backend.rows import operation_record, select_operations
from ktrdr.backend.tables import operations
from ktrdr.errors import OperationNotFoundError
from ktrdr.registry import nearest_name

_PART_OF_ID = re.compile(r"[A-Za-z0-9_.-]+")
_NAMED_CANDIDATES = 5
_SEE = "See what there is: ktrdr ops list."
_SEARCHED_FOR_NEAREST = 1000


def no_such_operation(operation_id: str) -> OperationNotFoundError:
    """Return the error that tells that there is none of that id."""
    return OperationNotFoundError(f"There is no operation '{operation_id}'.", fix=_SEE)


def find_operation(connection: Connection, text: str) -> OperationRecord:
    """Return the one operation whose id is, begins or ends with the text.

    Raises:
        OperationNotFoundError: there is none, or there are several; names some.
    """
    query = (
        select_operations()
        .where(
            or_(
                operations.c.id.startswith(text, autoescape=True),
                operations.c.id.endswith(text, autoescape=True),
            )
        )
        .order_by(operations.c.created_at.desc())
        .limit(_NAMED_CANDIDATES + 1)
    )
    # What cannot be of an id is not searched for: to SQLite's LIKE, a text ends where a NUL is.
    is_of_id = _PART_OF_ID.fullmatch(text) is not None
    found = [operation_record(row) for row in connection.execute(query)] if is_of_id else []
    exact = [operation for operation in found if operation.operation_id == text]
    if len(exact) == 1 or len(found) == 1:
        return (exact or found)[0]
    if found:
        names = ", ".join(operation.operation_id for operation in found[:_NAMED_CANDIDATES])
        more = ", …" if len(found) > _NAMED_CANDIDATES else ""
        raise OperationNotFoundError(
            f"'{text}' is the beginning or end of several operations: {names}{more}.",
            fix="Give more of the id.",
        )
    recent = select(operations.c.id).order_by(operations.c.created_at.desc()).limit(_SEARCHED_FOR_NEAREST)
    nearest = nearest_name(text, list(connection.execute(recent).scalars()))
    meant = f" Did you mean '{nearest}'?" if nearest else ""
    raise OperationNotFoundError(f"There is no operation '{text}'.{meant}", fix=_SEE)
