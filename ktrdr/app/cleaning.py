"""`ktrdr clean`: what nobody needs any more, on this machine and in the database; looked for, or removed."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from pathlib import Path

from host_agent.leftovers import Kept, leftovers
from ktrdr.app.collecting import named_by_dead_letters
from ktrdr.backend.collecting import claim_blobs, collect_blobs, unneeded_blobs, why_not_to_collect
from ktrdr.backend.housekeeping import chores, tidy
from ktrdr.backend.refuse import Clean, Cleaning, Refuse
from ktrdr.backend.retention import Retention, in_words, limit_of
from ktrdr.backend.store import OperationStore
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.opening import open_blob_inventory
from ktrdr.blobs.store import BlobInventory
from ktrdr.blobs.uploads import ABANDONED_AFTER, Uploads
from ktrdr.blobs.verified import files_before
from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import KtrdrError, OperationNotFoundError
from ktrdr.models.directory import ModelDirectory
from ktrdr.settings import Settings


def cleaner(settings: Settings) -> Clean:
    """Return what cleans up for a server: one at a time, and away from its event loop."""
    one_at_a_time = asyncio.Lock()

    async def clean_up(*, apply: bool) -> Cleaning:
        async with one_at_a_time:
            return await asyncio.to_thread(clean_now, settings, apply=apply)

    return clean_up


def clean_now(settings: Settings, *, apply: bool) -> Cleaning:
    """See `clean`; blocks."""
    return asyncio.run(clean(settings, apply=apply))


async def clean(settings: Settings, *, apply: bool, clock: Clock | None = None) -> Cleaning:
    """Look for what nobody needs, and remove it if ``apply`` says so; what runs goes on meanwhile.

    Args:
        settings: where everything is, and for how long it is kept.
        apply: whether to remove it.
        clock: what counts as old.

    Raises:
        SettingsError: a setting is wrong.
        DatabaseUnavailableError: the database cannot be used.
        AgentError: the directories of agents cannot be used.
    """
    clock, found = clock or SystemClock(), Cleaning()
    with ExitStack() as stack:
        store = None
        if OperationStore.exists(settings):
            store = stack.enter_context(OperationStore.open(settings, clock=clock))
            found.refuse += _rows(store, Retention.from_settings(settings), apply=apply)
        # Those of a backend elsewhere are collected by that.
        if not (settings.blob_store or "").lower().startswith(("http://", "https://")):
            blobs = stack.enter_context(closing(open_blob_inventory(settings)))
            await _blobs(settings, store, blobs, found, apply=apply)
            if isinstance(blobs, DirectoryBlobStore):
                found.refuse += _uploads(settings, blobs, clock.now() - ABANDONED_AFTER, apply=apply)
    found.refuse += _of_agents(settings, store, clock, apply=apply)
    found.refuse += _logs(settings, clock, apply=apply)
    found.refuse += _replaced(settings, clock, apply=apply)
    found.refuse = [each for each in found.refuse if each.count]
    return found


def _rows(store: OperationStore, retention: Retention, *, apply: bool) -> list[Refuse]:
    with store.reading() as connection:
        found = [
            Refuse(chore.what, chore.why, chore.count(connection), None) for chore in chores(store, retention)
        ]
    if not apply:
        return found
    done = tidy(store, retention)
    return [Refuse(each.what, each.why, done[each.what], None) for each in found]


async def _blobs(
    settings: Settings, store: OperationStore | None, blobs: BlobInventory, found: Cleaning, *, apply: bool
) -> None:
    kept = Retention.from_settings(settings).blobs
    if store is None or kept is None:
        found.left_alone += ["blobs: there is no database here that knows which are needed"] * (store is None)
        return
    try:
        # The store in the home directory is that of the database in it; any other has to be made its own.
        why_not = why_not_to_collect(store, blobs, is_own=settings.blob_store is None)
        if why_not is not None:
            found.left_alone.append(f"blobs: {why_not}")
            return
        named = await named_by_dead_letters(settings)
        why = f"needed by no operation, put over {in_words(kept)} ago"
        if not apply:
            unneeded = unneeded_blobs(store, blobs, kept=kept, named=named)
            count, size = len(unneeded), sum(blob.size for blob in unneeded)
        else:
            claim_blobs(store, blobs)
            collected = collect_blobs(store, blobs, kept=kept, named=named)
            count, size = collected.removed, collected.bytes
            if collected.waiting:
                why_aside = (
                    f"{collected.waiting} set aside; they go in {in_words(kept)} if nothing needs them"
                )
                found.left_alone.append(f"blobs: {why_aside}")
    except KtrdrError as error:
        found.left_alone.append(f"blobs: {error}")
        return
    found.refuse.append(Refuse("blobs", why, count, size))


def _uploads(settings: Settings, blobs: DirectoryBlobStore, before: datetime, *, apply: bool) -> list[Refuse]:
    uploads = Uploads(blobs, limit_bytes=settings.max_blob_bytes)
    files = [*uploads.abandoned(before), *blobs.abandoned(before)]
    if apply:
        uploads.remove_abandoned(before)
        blobs.remove_abandoned(before)
    why = f"nobody went on with them for {in_words(ABANDONED_AFTER)}"
    return [_of_files("uploads", why, files)]


def _of_agents(
    settings: Settings, store: OperationStore | None, clock: Clock, *, apply: bool
) -> list[Refuse]:
    def is_over(operation_id: str) -> bool:
        try:
            return store is not None and store.get(operation_id).state.terminal
        except OperationNotFoundError:
            return False

    cache, aside, now = settings.cache_kept, settings.set_aside_kept, clock.now()
    kept = Kept(settings.cache_limit_bytes, limit_of(now, cache), limit_of(now, aside))
    with leftovers(settings.agents_dir, kept, is_over=is_over) as found:
        if apply:
            for each in found:
                each.remove()
    stopped = "of agents that do not run"
    unused = f"not used for {in_words(cache)}" if cache is not None else ""
    unread = f"; set aside over {in_words(aside)} ago" if aside is not None else ""
    abandoned = [(each.directory, 0) for each in found if each.is_abandoned]
    return [
        _of_files(
            "cached data",
            f"{stopped}; {', or '.join(filter(None, [unused, 'over the limit']))}",
            [file for each in found for file in each.datasets],
        ),
        _of_files(
            "claims",
            f"{stopped}, on operations that are over",
            [folder for each in found for folder in each.claims],
        ),
        _of_files(
            "unreadable claims", f"{stopped}{unread}", [one for each in found for one in each.set_aside]
        ),
        _of_files("agents' directories", f"of processes that are gone; {unused}, and empty", abandoned),
    ]


def _logs(settings: Settings, clock: Clock, *, apply: bool) -> list[Refuse]:
    kept: timedelta | None = Retention.from_settings(settings).logs
    if kept is None:
        return []
    files = files_before(settings.logs_dir.glob("*.log"), clock.now() - kept)
    if apply:
        for path, _ in files:
            path.unlink(missing_ok=True)
    return [_of_files("log files", f"not written to for {in_words(kept)}", files)]


def _replaced(settings: Settings, clock: Clock, *, apply: bool) -> list[Refuse]:
    kept: timedelta | None = Retention.from_settings(settings).operations
    if kept is None:
        return []
    directory, before = ModelDirectory(settings.models_dir), clock.now() - kept
    files = [
        (path, sum(file.lstat().st_size for file in path.rglob("*") if file.is_file()))
        for path in directory.replaced(before)
    ]
    if apply:
        directory.remove_replaced(before)
    why = f"directories that no operation had made, in the way of a model over {in_words(kept)} ago"
    return [_of_files("replaced versions", why, files)]


def _of_files(what: str, why: str, files: Sequence[tuple[Path, int]]) -> Refuse:
    return Refuse(what, why, len(files), sum(size for _, size in files))
