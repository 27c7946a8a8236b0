"""Where an operation runs, when that turns out to be elsewhere than was decided."""

from typing import Any

from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.work import Work
from ktrdr.training.execution_mode_selector import Place


def placed_here(work: Work, operation: OperationRecord, reason: str) -> dict[str, Any]:
    """Return what changes of an operation whose run is heard on the bus of this transaction's owner.

    Args:
        work: the transaction.
        operation: as it is.
        reason: why it runs there, in words.
    """
    if operation.place is None or work.owner is None:
        return {}
    place = Place.HOST if work.owner == BROKER_OWNER else Place.LOCAL
    return {} if place is operation.place else {"place": place, "place_reason": reason}
