"""Whether the database has been away for so long that others had better do what waits for it."""

from sqlalchemy import update

from ktrdr.backend.tables import configuration
from ktrdr.backend.transactions import Transactions
from ktrdr.backend.work import Work
from ktrdr.clock import Clock
from ktrdr.errors import DatabaseUnavailableError, StorageFullError

_PATIENCE_S = 10.0
"""A restart or a failover is waited for: what is given back is counted, and comes again in another order."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0


class Outage:
    """What those who need the database tell each other of it.

    Args:
        transactions: how it is written.
        clock: for pauses and durations.
    """

    def __init__(self, transactions: Transactions, *, clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock
        self._since: float | None = None

    def failed(self) -> None:
        """Take note that the database was not there for somebody."""
        if self._since is None:
            self._since = self._clock.monotonic()

    def worked(self) -> None:
        """Take note that it was."""
        self._since = None

    @property
    def lasts(self) -> bool:
        """Whether it was there for nobody for a while."""
        return self._since is not None and self._clock.monotonic() - self._since >= _PATIENCE_S

    async def wait_for_end(self) -> None:
        """Return once the database can be written."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._transactions.change(_write_nothing)
            except (DatabaseUnavailableError, StorageFullError):
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                self.worked()
                return


def _write_nothing(work: Work) -> None:
    # A database that can only be read refuses this too.
    work.connection.execute(update(configuration).where(configuration.c.name == "").values(value=""))
