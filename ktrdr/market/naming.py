"""Names of files of data that are there, for errors about one that is not."""

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 10


def did_you_mean(name: str, there: Iterable[str]) -> str:
    """Return ``" Did you mean '…'?"`` with the nearest name, whatever its case; nothing if none is near."""
    folded = {other.casefold(): other for other in there}
    near = get_close_matches(name.casefold(), folded, n=1)
    return f" Did you mean '{folded[near[0]]}'?" if near else ""


def listed(names: Iterable[str]) -> str:
    """Return the first ten names, and how many more there are."""
    every = list(names)
    more = len(every) - _LISTED
    return ", ".join(every[:_LISTED]) + (f" and {more} more" if more > 0 else "")
