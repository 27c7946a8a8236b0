"""Every drill, in the order in which they are run."""

from collections.abc import Sequence

from ktrdr.drill.promises import (
    cancelled,
    confirmed,
    consumers,
    cut_off,
    duplicates,
    expired,
    figures,
    killed,
    large,
    permissions,
    poison,
    policies,
    truncated,
    unroutable,
)
from ktrdr.drill.scene import Drill
from ktrdr.errors import SettingsError

FIRST = permissions.DRILL
"""Without it no other can be tried, so it is never left out."""

DRILLS: tuple[Drill, ...] = (
    FIRST,
    policies.DRILL,
    unroutable.DRILL,
    confirmed.DRILL,
    large.DRILL,
    consumers.TAKEN_AWAY_DRILL,
    figures.DRILL,
    poison.DRILL,
    cancelled.DRILL,
    expired.DRILL,
    duplicates.DRILL,
    truncated.DRILL,
    cut_off.DRILL,
    killed.DRILL,
    consumers.HELD_DRILL,
)


def chosen(names: Sequence[str]) -> tuple[Drill, ...]:
    """Return the drills of these names, or all if there are none, in their order and with the first.

    Raises:
        SettingsError: there is no drill of a name.
    """
    known = [drill.name for drill in DRILLS]
    if unknown := [name for name in names if name not in known]:
        raise SettingsError(f"There is no drill '{unknown[0]}'.", fix=f"Choose from: {', '.join(known)}.")
    return tuple(drill for drill in DRILLS if not names or drill is FIRST or drill.name in names)
