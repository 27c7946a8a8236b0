"""Blobs that nothing needs: found, and taken away without taking them from whoever is about to need them.

Needed is what a recorded operation names: its bars, for as long as it is recorded, so that its model can be
made again, or itself be repeated; the checkpoint of one that has not ended; what a dead letter names. Which
blob will be the result of an operation is not known before its agent says so: so what was put since the
submission of the oldest operation that has not ended may be one, and stays.

Everything else goes that was not put for a while (``KTRDR_KEEP_BLOBS_DAYS``). Who submits puts the bars again
before it records that it needs them; so what is old and not named is not about to be.

What a database does not name may be needed by another. So it collects only in a store that is its own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import func, select

from ktrdr.backend.configuration import read_value, set_value
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import operations
from ktrdr.backend.work import Work
from ktrdr.blobs.store import BlobEntry, BlobInventory
from ktrdr.events import BlobRef
from ktrdr.ids import RandomIds

_log = structlog.get_logger()

_IDENTITY = "database"
"""Its name in the configuration."""
_AT_ONCE = 200
"""Requests, each with a strategy file, in memory."""
_CLOCKS_DIFFER = timedelta(hours=1)
"""At most, those of the database's writers, and of a bucket."""
_NAMED = re.compile(r'"blob:([0-9a-f]{64})"', re.ASCII)
_UNFINISHED = [state for state in State if not state.terminal]


@dataclass(frozen=True, slots=True)
class Needs:
    """What must stay."""

    named: frozenset[str]
    since: datetime | None
    """What was put since may be a result; None: nothing is expected."""

    def include(self, blob: BlobEntry) -> bool:
        """Return whether somebody needs it, or may."""
        return blob.sha256 in self.named or (self.since is not None and blob.modified >= self.since)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection has done."""

    removed: int
    bytes: int
    """Of what was removed."""
    waiting: int
    """Set aside, and not removed yet: in a bucket each lies once more for as long."""


def unneeded_blobs(
    store: OperationStore, blobs: BlobInventory, *, kept: timedelta, named: frozenset[str]
) -> list[BlobEntry]:
    """Return the blobs that a collection would take now, or set aside. Blocks.

    Args:
        store: who needs what.
        blobs: what there is.
        kept: after it was last put, each stays at least so long.
        named: by dead letters.
    """
    before = store.now() - kept
    # First what there is, then who needs it: what is put between the two is young.
    old = [blob for blob in blobs.entries() if blob.modified < before]
    needs = _needs(store, named) if old else Needs(named, None)
    return [blob for blob in old if not needs.include(blob)]


def collect_blobs(
    store: OperationStore, blobs: BlobInventory, *, kept: timedelta, named: frozenset[str]
) -> Collected:
    """Take away what nothing needs, and put back what is aside and needed; as `unneeded_blobs`. Blocks.

    Delivery: whoever is killed meanwhile leaves each blob where it was, aside, or gone; what is aside can be
    read, and is put back or removed by the next. Several may do so at once.

    Raises:
        BlobError: the store does not answer; what is done is done.
    """
    before = store.now() - kept
    entries = [blob for blob in blobs.entries() if blob.is_aside or blob.modified < before]
    if not entries:
        return Collected(0, 0, 0)
    needs = _needs(store, named)
    removed = size = waiting = 0
    for blob in entries:
        if needs.include(blob):
            if blob.is_aside:
                blobs.restore(blob.sha256)
            continue
        aside = blob if blob.is_aside else blobs.set_aside(blob.sha256, before)
        if aside is None:
            continue  # it was put meanwhile
        if aside.modified >= before:
            waiting += 1
            continue
        blobs.discard(blob.sha256)
        removed, size = removed + 1, size + blob.size
        _log.debug("blob removed", sha256=blob.sha256, bytes=blob.size)
    return Collected(removed, size, waiting)


def claim_blobs(store: OperationStore, blobs: BlobInventory) -> None:
    """Make the blobs of this store this database's to collect, unless they are another's. Blocks.

    Raises:
        BlobError: the store does not answer.
    """
    blobs.claim(store.change(partial(_identity, RandomIds().token())))


def why_not_to_collect(store: OperationStore, blobs: BlobInventory, *, is_own: bool = False) -> str | None:
    """Return why this database must not collect the blobs of this store, in words; None: it may. Blocks.

    Args:
        store: of the database.
        blobs: belong to whoever has claimed them.
        is_own: whether nobody else can have put any there, claimed or not.

    Raises:
        BlobError: the store does not answer.
    """
    owner = blobs.owner()
    if owner is None:
        return None if is_own else "no ktrdr serve has made the blob store its own yet"
    with store.reading() as connection:
        this = read_value(connection, _IDENTITY)
    if owner == this:
        return None
    return (
        f"the blob store belongs to another database ({owner}; this is {this}); if that one is gone for "
        "good, remove what is called `owner` from the store"
    )


def _identity(proposed: str, work: Work) -> str:
    """Return by what this database is told from others, for as long as it lives."""
    known = read_value(work.connection, _IDENTITY)
    if known is None:
        set_value(work, _IDENTITY, proposed)
    return known or proposed


def _needs(store: OperationStore, named: frozenset[str]) -> Needs:
    with store.reading() as connection:
        oldest = connection.execute(
            select(func.min(operations.c.created_at)).where(operations.c.state.in_(_UNFINISHED))
        ).scalar_one()
    return Needs(
        named=named.union(_named_by_operations(store)),
        since=oldest - _CLOCKS_DIFFER if oldest is not None else None,
    )


def _named_by_operations(store: OperationStore) -> Iterator[str]:
    last = ""
    while True:
        query = (
            select(operations.c.id, operations.c.state, operations.c.request, operations.c.checkpoint)
            .where(operations.c.id > last)
            .order_by(operations.c.id)
            .limit(_AT_ONCE)
        )
        # A transaction for each page: none holds up the cleaning of the database for long.
        with store.reading() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return
        for row in rows:
            # Found in the text: to parse all of it would take a hundred times as long.
            yield from _NAMED.findall(row.request)
            if row.checkpoint and not State(row.state).terminal:
                yield BlobRef.model_validate_json(row.checkpoint).sha256
        last = rows[-1].id
