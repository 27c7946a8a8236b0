"""What an agent that runs removes from its own directory: when it starts, and once a day."""

import asyncio
from datetime import timedelta
from pathlib import Path

import structlog

from host_agent.datasets import DatasetCache
from host_agent.set_aside import forget
from ktrdr.clock import Clock

_EVERY_S = 24 * 3600.0

_log = structlog.get_logger()


class Housekeeper:
    """Removes what was kept for long enough.

    Claims are no matter of age: each goes when the backend knows its end.

    Args:
        datasets: the cache.
        set_aside: where that is which could not be read.
        kept: for how long what could not be read is kept; None: for ever.
        clock: for pauses, and for what is old.
    """

    def __init__(
        self, *, datasets: DatasetCache, set_aside: Path, kept: timedelta | None, clock: Clock
    ) -> None:
        self._datasets = datasets
        self._set_aside = set_aside
        self._kept = kept
        self._clock = clock

    async def run(self) -> None:
        """Keep house, until this is cancelled."""
        while True:
            try:
                await asyncio.to_thread(self._tidy)
            except OSError as error:
                _log.warning("the agent's directory could not be tidied", reason=str(error))
            await self._clock.sleep(_EVERY_S)

    def _tidy(self) -> None:
        self._datasets.prune()
        before = self._clock.now() - self._kept if self._kept is not None else None
        if forgotten := forget(self._set_aside, before):
            _log.info("old unreadable records removed", records=forgotten)
