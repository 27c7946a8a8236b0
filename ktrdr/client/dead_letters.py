"""Dead letters as commands see them: of the broker that this machine reaches, or of that of a server."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from pydantic import TypeAdapter

from ktrdr.bus.dead_letter_box import DeadLetterBox, LetterChoice, is_part_of_id, no_such_letter
from ktrdr.bus.dead_letter_office import DeadLetterOffice, FoundLetters, LetterList
from ktrdr.bus.letter_records import LetterOutcome
from ktrdr.client.server import Server
from ktrdr.errors import ServerUnreachableError
from ktrdr.settings import Settings


class DeadLetters(Protocol):
    """The dead letters of an installation; each looks at the oldest so many. Calls block."""

    def list(self, *, reason: str | None, limit: int) -> LetterList:
        """Return them, or those whose reason has that text in it."""

    def show(self, name: str, *, limit: int) -> FoundLetters:
        """Return the one whose id is, begins or ends with that; raises DeadLetterNotFoundError."""

    def redrive(self, choice: LetterChoice, *, limit: int) -> Sequence[LetterOutcome]:
        """Put those back to where they died."""

    def discard(self, choice: LetterChoice, *, limit: int) -> Sequence[LetterOutcome]:
        """Throw those away, for ever."""


class DeadLettersOfBroker:
    """See `DeadLetters`: those of the broker that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._office = DeadLetterOffice(self._open)

    def list(self, *, reason: str | None, limit: int) -> LetterList:
        """See `DeadLetters.list`."""
        return asyncio.run(self._office.list(reason=reason, limit=limit))

    def show(self, name: str, *, limit: int) -> FoundLetters:
        """See `DeadLetters.show`."""
        return asyncio.run(self._office.show(name, limit=limit))

    def redrive(self, choice: LetterChoice, *, limit: int) -> Sequence[LetterOutcome]:
        """See `DeadLetters.redrive`."""
        return asyncio.run(self._office.redrive(choice, limit=limit))

    def discard(self, choice: LetterChoice, *, limit: int) -> Sequence[LetterOutcome]:
        """See `DeadLetters.discard`."""
        return asyncio.run(self._office.discard(choice, limit=limit))

    def _open(self) -> AbstractAsyncContextManager[DeadLetterBox]:
        # Here, because most commands need no client of a broker.
        from ktrdr.app.operating import dead_letter_box

        return dead_letter_box(self._settings)


@dataclass(frozen=True, slots=True)
class _Outcomes:
    outcomes: list[LetterOutcome]


_LIST = TypeAdapter(LetterList)
_FOUND = TypeAdapter(FoundLetters)
_OUTCOMES = TypeAdapter(_Outcomes)


class DeadLettersOfServer:
    """See `DeadLetters`: those that a server reaches, for the role admin."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def list(self, *, reason: str | None, limit: int) -> LetterList:
        """See `DeadLetters.list`."""
        return self._server.get("/dead-letters", _LIST, reason=reason, limit=limit)

    def show(self, name: str, *, limit: int) -> FoundLetters:
        """See `DeadLetters.show`."""
        if not is_part_of_id(name):
            raise no_such_letter(name)  # nor could it be a part of an address
        return self._server.get(f"/dead-letters/{quote(name)}", _FOUND, limit=limit)

    def redrive(self, choice: LetterChoice, *, limit: int) -> Sequence[LetterOutcome]:
        """See `DeadLetters.redrive`; asked for once."""
        return self._done("redrive", choice, limit)

    def discard(self, choice: LetterChoice, *, limit: int) -> Sequence[LetterOutcome]:
        """See `DeadLetters.discard`; asked for once."""
        return self._done("discard", choice, limit)

    def _done(self, what: str, choice: LetterChoice, limit: int) -> Sequence[LetterOutcome]:
        # Another try would tell that they are not there, after the first has done it.
        try:
            return self._server.make(f"/dead-letters/{what}", _sent(choice, limit), _OUTCOMES).outcomes
        except ServerUnreachableError as error:
            raise ServerUnreachableError(
                f"{error.message} It may have been done.", fix="See which are left: ktrdr dead list"
            ) from error


def _sent(choice: LetterChoice, limit: int) -> Mapping[str, object]:
    if choice.ids is not None:
        return {"ids": list(choice.ids), "limit": limit}
    return {"all": True, "reason": choice.reason, "limit": limit}
