"""Blobs that nothing needs, collected by whoever is the backend of a database and a blob store."""

import asyncio

import structlog

from ktrdr.app.operating import dead_letter_box
from ktrdr.backend.collecting import Collected, claim_blobs, collect_blobs, why_not_to_collect
from ktrdr.backend.retention import Retention
from ktrdr.backend.store import OperationStore
from ktrdr.blobs.store import BlobInventory
from ktrdr.bus.dead_letter_box import may_be_more
from ktrdr.clock import Clock
from ktrdr.errors import BusError, KtrdrError
from ktrdr.events.mentioned import blobs_named_in
from ktrdr.settings import Settings

_log = structlog.get_logger()

_FIRST_S = 300.0
"""Not at once: what has come while nobody served is to be read first."""
_EVERY_S = 6 * 3600.0
_MOST_LETTERS = 10_000


async def keep_collecting(
    settings: Settings, store: OperationStore, blobs: BlobInventory, *, clock: Clock
) -> None:
    """Collect now and then, for ever, in a thread, beside the one that writes.

    Args:
        settings: what is kept for how long, and which broker has dead letters.
        store: knows what is needed.
        blobs: becomes this database's to collect, unless it is another's.
        clock: for pauses.
    """
    kept = Retention.from_settings(settings).blobs
    if kept is None:
        return
    await clock.sleep(_FIRST_S)
    while True:
        try:
            await asyncio.to_thread(claim_blobs, store, blobs)
            why_not = await asyncio.to_thread(why_not_to_collect, store, blobs)
            if why_not is None:
                named = await named_by_dead_letters(settings)
                _tell(await asyncio.to_thread(collect_blobs, store, blobs, kept=kept, named=named))
            else:
                _log.warning("blobs are not collected", reason=why_not)
        except KtrdrError as error:
            _log.warning("blobs are not collected for now", reason=str(error))
        except Exception:
            # What is not foreseen must not end it for ever, unseen.
            _log.exception("blobs could not be collected")
        await clock.sleep(_EVERY_S)


async def named_by_dead_letters(settings: Settings) -> frozenset[str]:
    """Return the hash of each blob that a dead letter on the broker names; none without a broker.

    Raises:
        BusError: the broker cannot be asked, or there are too many letters to look into all.
    """
    if settings.broker_url is None:
        return frozenset()
    async with dead_letter_box(settings) as box:
        letters = await box.look(_MOST_LETTERS)
    if may_be_more(letters, _MOST_LETTERS):
        raise BusError(
            "There are too many dead letters to look into all of them for blobs that they name.",
            fix="See what they are, and redrive or discard them: ktrdr dead list",
        )
    return frozenset().union(*(blobs_named_in(letter.message) for letter in letters))


def _tell(collected: Collected) -> None:
    if collected.removed or collected.waiting:
        _log.info(
            "blobs collected", removed=collected.removed, bytes=collected.bytes, set_aside=collected.waiting
        )
