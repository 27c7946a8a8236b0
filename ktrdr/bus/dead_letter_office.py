"""Where dead letters are asked for: commands and clients of the HTTP API are answered alike."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from ktrdr.bus.dead_letter_box import DeadLetterBox, LetterChoice, Outcome, may_be_more
from ktrdr.bus.letter_records import (
    LetterOutcome,
    LetterRecord,
    WholeLetter,
    letter_outcome,
    letter_record,
    whole_letter,
)

MAX_LETTERS = 10_000
"""So many are looked at once, at most."""
MAX_SHOWN = 10
"""So many of one id are shown whole, at most."""


@dataclass(frozen=True, slots=True)
class LetterList:
    """Dead letters, oldest first."""

    letters: Sequence[LetterRecord]
    looked_at: int
    """How many there were to choose from."""
    may_be_more: bool
    """Whether there may be more in the box, behind those."""
    on_broker: bool
    """Whether they stay until somebody decides; else they are those of a process, and end with it."""


@dataclass(frozen=True, slots=True)
class FoundLetters:
    """The dead letters of one id: several if a message has died more than once."""

    letters: Sequence[WholeLetter]
    count: int
    """How many there are of that id, also beyond those that are shown."""


class DeadLetterOffice:
    """Opens the box for each question anew, and for one at a time: who looks holds what others would see.

    Args:
        open_box: opens it; raises `SettingsError` or `BusError`.
        on_broker: whether that is the box of a broker.
    """

    def __init__(
        self, open_box: Callable[[], AbstractAsyncContextManager[DeadLetterBox]], *, on_broker: bool = True
    ) -> None:
        self._open_box = open_box
        self._on_broker = on_broker
        self._turn = asyncio.Lock()

    async def list(self, *, reason: str | None, limit: int) -> LetterList:
        """Return the oldest so many, or those of them whose reason has that text in it.

        Raises:
            SettingsError: there is no broker.
            BusError: its box cannot be read.
        """
        async with self._box() as box:
            found = await box.look(limit)

        def told() -> list[LetterRecord]:
            return [letter_record(letter) for letter in LetterChoice(reason=reason).of(found)]

        letters = await asyncio.to_thread(told)
        return LetterList(letters, len(found), may_be_more(found, limit), self._on_broker)

    async def show(self, name: str, *, limit: int) -> FoundLetters:
        """Return the one whose id is, begins or ends with that, of the oldest so many.

        Raises:
            DeadLetterNotFoundError: there is none, or it may be several.
            SettingsError: there is no broker.
            BusError: its box cannot be read.
        """
        async with self._box() as box:
            found = await box.look(limit)

        def told() -> FoundLetters:
            letters = LetterChoice(ids=[name]).of(found)
            return FoundLetters([whole_letter(letter) for letter in letters[:MAX_SHOWN]], len(letters))

        return await asyncio.to_thread(told)

    async def redrive(self, choice: LetterChoice, *, limit: int) -> Sequence[LetterOutcome]:
        """Put those back to where they died; see `DeadLetterBox.redrive`."""
        async with self._box() as box:
            return await _told(await box.redrive(choice, limit))

    async def discard(self, choice: LetterChoice, *, limit: int) -> Sequence[LetterOutcome]:
        """Throw those away, for ever; see `DeadLetterBox.discard`."""
        async with self._box() as box:
            return await _told(await box.discard(choice, limit))

    @asynccontextmanager
    async def _box(self) -> AsyncIterator[DeadLetterBox]:
        async with self._turn, self._open_box() as box:
            yield box


async def _told(outcomes: Sequence[Outcome]) -> Sequence[LetterOutcome]:
    return await asyncio.to_thread(lambda: [letter_outcome(outcome) for outcome in outcomes])
