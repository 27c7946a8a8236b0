"""Runs drills one after the other, and leaves nothing behind."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import structlog

from ktrdr.bus.management import ManagementView, look_at
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.clock import Clock, SystemClock
from ktrdr.drill import advice
from ktrdr.drill.catalog import FIRST
from ktrdr.drill.names import new_prefix
from ktrdr.drill.pace import Pace
from ktrdr.drill.results import BrokenPromiseError, Outcome, Result, UncheckableError
from ktrdr.drill.scene import Drill, Scene
from ktrdr.drill.scratch import clear, clear_after_the_dead, record_broker, scratch_directory
from ktrdr.drill.scratch_broker import ScratchBroker, Server, scratch_broker
from ktrdr.drill.site import Site, opened
from ktrdr.errors import BusError, KtrdrError
from ktrdr.ids import IdFactory, RandomIds

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be drilled."""

    url: str
    """As for `RabbitMQBus`."""
    drills: Sequence[Drill]
    with_long: bool = False
    inline_limit_bytes: int = 0
    """Models up to this size are to travel in messages."""
    prefix_in_use: str = "ktrdr"
    """Of the installation that the user has, or will have."""
    management_url: str | None = None
    """As for `look_at`."""
    pace: Pace = field(default_factory=Pace)


class Watcher(Protocol):
    """Is told how it goes."""

    def connected(self, server: Server, prefix: str) -> None:
        """The broker answers; all names begin with the prefix."""

    def begun(self, drill: Drill) -> None:
        """A drill begins."""

    def ended(self, drill: Drill, result: Result) -> None:
        """A drill has ended, or was not even begun."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    server: Server
    prefix: str
    results: tuple[tuple[Drill, Result], ...]
    cleared: tuple[str, ...]
    """Prefixes of earlier drills that were killed, whose names are gone now too."""
    left: tuple[str, ...]
    """Names that could not be deleted."""

    def count(self, outcome: Outcome) -> int:
        """Return how many drills ended so."""
        return sum(result.outcome is outcome for _, result in self.results)


async def run_drills(
    wish: Wish,
    *,
    stop: asyncio.Event,
    watcher: Watcher,
    clock: Clock | None = None,
    ids: IdFactory | None = None,
) -> Report:
    """Run drills under a prefix of their own and remove everything, also when they are stopped.

    Args:
        wish: which, and where.
        stop: when set, the drill that runs is broken off, and none follows.
        watcher: is told how it goes.
        clock: time.
        ids: identifiers.

    Raises:
        SettingsError: the URL cannot be used.
        BusUnavailableError: the broker cannot be reached, or its management API, where that is named.
        AccessRefusedError: one of them does not let this user in.
    """
    clock, ids = clock or SystemClock(), ids or RandomIds()
    prefix = new_prefix(clock.now(), ids)
    with scratch_directory(prefix) as directory:
        async with scratch_broker(wish.url, prefix) as broker:
            await asyncio.to_thread(record_broker, directory, broker)
            watcher.connected(broker.server, prefix)
            view = await _management(wish, broker)
            cleared = await clear_after_the_dead(broker, view, clock.now())
            run = _Run(
                wish, broker, view, prefix, directory, stop=stop, watcher=watcher, clock=clock, ids=ids
            )
            try:
                results = await run.all()
            finally:
                left = await clear(broker, directory)
    return Report(broker.server, prefix, results, cleared, left)


async def _management(wish: Wish, broker: ScratchBroker) -> ManagementView | None:
    if wish.management_url is None:
        return None
    # Both ports of a broker usually show the same certificate.
    cafile = parse_qs(urlsplit(wish.url.split()[0]).query).get("cafile", [None])[0]
    return await look_at(wish.management_url, vhost=broker.vhost, user=broker.user, cafile=cafile)


class _Run:
    """One run of some drills."""

    def __init__(
        self,
        wish: Wish,
        broker: ScratchBroker,
        view: ManagementView | None,
        prefix: str,
        directory: Path,
        *,
        stop: asyncio.Event,
        watcher: Watcher,
        clock: Clock,
        ids: IdFactory,
    ) -> None:
        self._wish = wish
        self._broker = broker
        self._view = view
        self._prefix = prefix
        self._directory = directory
        self._stop = stop
        self._watcher = watcher
        self._clock = clock
        self._ids = ids
        self._site: Site | None = None
        self._no_site = UncheckableError("There is no installation to try it with.")
        self._obstacle: Result | None = None
        """Why no further drill can be tried."""

    async def all(self) -> tuple[tuple[Drill, Result], ...]:
        """Try every drill that was wished for."""
        results = []
        async with AsyncExitStack() as stack:
            bus = self._new_bus("drill")
            stack.push_async_callback(bus.close)
            scene = Scene(
                broker=self._broker,
                bus=bus,
                new_bus=self._new_bus,
                management=self._view,
                prefix_in_use=self._wish.prefix_in_use,
                inline_limit_bytes=self._wish.inline_limit_bytes,
                pace=self._wish.pace,
                clock=self._clock,
                ids=self._ids,
                site=self._ready_site,
            )
            for drill in self._wish.drills:
                began = self._clock.monotonic()
                if (result := self._not_begun(drill)) is None:
                    self._watcher.begun(drill)
                    result = await self._try(drill, scene)
                    result = replace(result, took_s=self._clock.monotonic() - began)
                    if result.outcome in (Outcome.FAILED, Outcome.UNCHECKED):
                        await self._see_that_the_broker_is_there()
                self._watcher.ended(drill, result)
                results.append((drill, result))
                if drill is FIRST and result.outcome is Outcome.PASSED:
                    await self._open_site(stack, bus)
                elif drill is FIRST and self._obstacle is None:
                    self._obstacle = Result(Outcome.UNCHECKED, "nothing can be tried without the first")
        return tuple(results)

    async def _open_site(self, stack: AsyncExitStack, bus: RabbitMQBus) -> None:
        """Begin early, so that agents get ready while what needs none is tried."""
        if self._stop.is_set() or not any(drill.needs_site for drill in self._wish.drills):
            return
        site = opened(self._broker, bus, self._wish.url, self._prefix, self._directory, self._wish.pace)
        try:
            self._site = await stack.enter_async_context(site)
        except KtrdrError as error:
            self._no_site = UncheckableError(f"No installation can be set up to try it with: {error}")

    def _not_begun(self, drill: Drill) -> Result | None:
        if self._stop.is_set():
            return Result(Outcome.SKIPPED, "interrupted")
        if drill.is_long and not self._wish.with_long:
            return Result(Outcome.SKIPPED, f"it takes some {drill.limit_s / 60:.0f} min: say --long")
        return self._obstacle

    async def _try(self, drill: Drill, scene: Scene) -> Result:
        """Run a drill to its end, or until the run is stopped."""
        trying = asyncio.create_task(self._judge(drill, scene), name=f"drill {drill.name}")
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({trying, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not trying.done():
                return Result(Outcome.SKIPPED, "interrupted")
            return trying.result()
        finally:
            for task in (trying, stopped):
                task.cancel()
            await asyncio.gather(trying, stopped, return_exceptions=True)

    async def _judge(self, drill: Drill, scene: Scene) -> Result:
        broken = Outcome.UNCHECKED if drill.only_measures else Outcome.FAILED
        try:
            if drill.needs_site:
                await self._ready_site()
            async with asyncio.timeout(drill.limit_s):
                kept = await drill.run(scene)
        except UncheckableError as error:
            return Result(Outcome.UNCHECKED, error.message, error.changes)
        except BrokenPromiseError as error:
            return Result(broken, error.message, error.changes)
        except KtrdrError as error:
            return Result(broken, error.message, advice.explain(error, self._broker))
        except TimeoutError:
            return Result(broken, f"It was not done within {drill.limit_s:g} s.")
        except Exception as error:
            _log.exception("drill is defective", drill=drill.name)
            return Result(Outcome.UNCHECKED, f"defect: {type(error).__name__}: {error}")
        outcome = Outcome.MEASURED if drill.only_measures else Outcome.PASSED
        return Result(outcome, kept.detail, figures=kept.figures)

    async def _see_that_the_broker_is_there(self) -> None:
        try:
            await self._broker.check_it_answers()
        except BusError as error:
            self._obstacle = Result(Outcome.UNCHECKED, f"the broker has gone away: {error.message}")

    async def _ready_site(self) -> Site:
        if self._site is None:
            raise self._no_site
        await self._site.ready()
        return self._site

    def _new_bus(self, name: str) -> RabbitMQBus:
        return RabbitMQBus(self._wish.url, name=name, prefix=self._prefix)
