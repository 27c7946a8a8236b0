"""What people do with dead letters: look, put back to where they died, or throw away."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Protocol, TypeVar

from ktrdr.bus.dead_letters import FROM_QUEUE_HEADER, FROM_USER_HEADER, REASON_HEADER
from ktrdr.bus.port import Bus, Delivery
from ktrdr.bus.topology import DEAD_LETTERS, DEFAULT_EXCHANGE
from ktrdr.errors import BusError, BusUnavailableError, DeadLetterNotFoundError, UnroutableError
from ktrdr.events.message import Message

_MAX_HELD_BYTES = 256 * 1024 * 1024
PART_OF_ID = r"^[A-Za-z0-9_.@+-]*[A-Za-z0-9][A-Za-z0-9_.@+-]*$"
"""What may be the beginning or the end of an id; at most `MAX_ID_CHARACTERS` of it."""
MAX_ID_CHARACTERS = 128
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}")


@dataclass(frozen=True, eq=False)
class DeadLetter:
    """A message in the box; two that say the same are two."""

    message: Message

    @cached_property
    def id(self) -> str:
        """What people name it by: its message id, or a hash of its body if that is none to be typed."""
        if _PLAIN_ID.fullmatch(self.message.message_id):
            return self.message.message_id
        return f"sha256-{hashlib.sha256(self.message.body).hexdigest()[:12]}"

    @property
    def reason(self) -> str:
        """Why it is here; empty if nobody has said so."""
        return str(self.message.headers.get(REASON_HEADER, ""))

    @property
    def from_queue(self) -> str | None:
        """Where it died."""
        queue = self.message.headers.get(FROM_QUEUE_HEADER)
        return str(queue) if queue else None

    @property
    def from_user(self) -> str | None:
        """Who published it, as the broker has checked it: not who rejected it."""
        user = self.message.headers.get(FROM_USER_HEADER) or self.message.user_id
        return str(user) if user else None

    def revived(self) -> Message:
        """Return the message as it was when it lived: the same id, without the story of its death."""
        # Brokers and buses write that story into headers that begin so; what events carry does not.
        living = {name: value for name, value in self.message.headers.items() if not name.startswith("x-")}
        return replace(self.message, headers=living, expiration_s=None)


class Fate(StrEnum):
    """What became of a dead letter that was chosen."""

    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one dead letter."""

    letter: DeadLetter
    fate: Fate
    problem: str | None = None
    """Why it was kept."""


class _Named(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def reason(self) -> str: ...


L = TypeVar("L", bound=_Named)


@dataclass(frozen=True, slots=True)
class LetterChoice:
    """Which dead letters are meant."""

    ids: Sequence[str] | None = None
    """Those of these ids, or of the beginning or end of one id alone; None: all."""
    reason: str | None = None
    """Only those whose reason has that text in it, in capitals or not."""

    def of(self, letters: Sequence[L]) -> list[L]:
        """Return those of them that are meant; two letters may have the same id.

        Raises:
            DeadLetterNotFoundError: no letter has an id that is named, or several different ones may.
        """
        chosen = list(letters)
        if self.ids is not None:
            known = {letter.id for letter in letters}
            full = {_full_id(wanted, known) for wanted in self.ids}
            chosen = [letter for letter in chosen if letter.id in full]
        if self.reason is not None:
            wanted = self.reason.casefold()
            chosen = [letter for letter in chosen if wanted in letter.reason.casefold()]
        return chosen


def is_part_of_id(text: str) -> bool:
    """Return whether an id may begin or end so."""
    return len(text) <= MAX_ID_CHARACTERS and re.fullmatch(PART_OF_ID, text) is not None


def no_such_letter(name: str) -> DeadLetterNotFoundError:
    """Return the error that tells that there is none of that name."""
    return DeadLetterNotFoundError(
        f"There is no dead letter '{name}'.",
        fix="See which there are: ktrdr dead list. Someone who looks at the same time may hold it.",
    )


def _full_id(wanted: str, known: set[str]) -> str:
    if wanted in known:
        return wanted
    found = sorted(each for each in known if each.startswith(wanted) or each.endswith(wanted))
    if not found or not is_part_of_id(wanted):
        raise no_such_letter(wanted)
    if len(found) > 1:
        some = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise DeadLetterNotFoundError(f"'{wanted}' may be {some}.", fix="Name more of it.")
    return found[0]


def may_be_more(letters: Sequence[DeadLetter], limit: int) -> bool:
    """Return whether a look that had this limit, and found these, may have left some out."""
    return len(letters) >= limit or sum(len(letter.message.body) for letter in letters) >= _MAX_HELD_BYTES


class DeadLetterBox:
    """The queue of dead letters on a bus.

    Whoever looks holds what he sees until he is done, so of two who look at once each sees only a part. What
    is not settled by then, or when the connection is lost, is in the box again.

    Args:
        bus: may read the box, and write to the queues that letters go back to.
        timeout_s: limit of one publish.
        queue: the box.
    """

    def __init__(self, bus: Bus, *, timeout_s: float, queue: str = DEAD_LETTERS) -> None:
        self._bus = bus
        self._timeout_s = timeout_s
        self._queue = queue

    async def look(self, limit: int) -> list[DeadLetter]:
        """Return the dead letters, oldest first: at most ``limit``, and at most some 256 MiB of them.

        `may_be_more` tells whether that may be why there are no more.

        Raises:
            BusError: the box cannot be read.
        """
        async with self._holding(limit) as held:
            return [DeadLetter(delivery.message) for delivery in held]

    async def redrive(self, choice: LetterChoice, limit: int) -> list[Outcome]:
        """Put the chosen of the oldest ``limit`` back to where they died.

        Delivery: a letter leaves the box once its queue has confirmed it. Whoever is killed in between leaves
        it in both, under one message id.

        Raises:
            BusUnavailableError: the connection was lost; what was not redriven by then is in the box.
            DeadLetterNotFoundError: one that is named is not there; nothing was done.
            BusError: the box cannot be read.
        """
        return await self._settle(choice, limit, self._redrive)

    async def discard(self, choice: LetterChoice, limit: int) -> list[Outcome]:
        """Throw the chosen of the oldest ``limit`` away, for ever.

        Raises:
            DeadLetterNotFoundError: one that is named is not there; nothing was done.
            BusError: the box cannot be read.
        """
        return await self._settle(choice, limit, _discard)

    async def _settle(self, choice: LetterChoice, limit: int, settle: "_Settle") -> list[Outcome]:
        outcomes = []
        # All are held before the first is settled: one that dies again at once would come round for ever.
        async with self._holding(limit) as held:
            # In a thread: an id may have to be made of a body, and there may be megabytes of them.
            for letter in await asyncio.to_thread(choice.of, list(held)):
                outcome = await settle(letter, held[letter])
                if outcome.fate is not Fate.KEPT:
                    del held[letter]
                outcomes.append(outcome)
        return outcomes

    async def _redrive(self, letter: DeadLetter, delivery: Delivery) -> Outcome:
        if letter.from_queue is None:
            return Outcome(letter, Fate.KEPT, "it does not say in which queue it died")
        try:
            await self._bus.publish(
                letter.revived(),
                exchange=DEFAULT_EXCHANGE,
                routing_key=letter.from_queue,
                mandatory=True,
                timeout_s=self._timeout_s,
            )
        except UnroutableError:
            return Outcome(letter, Fate.KEPT, f"there is no queue '{letter.from_queue}' any more")
        except BusUnavailableError:
            raise
        except BusError as error:
            return Outcome(letter, Fate.KEPT, str(error))
        await delivery.ack()
        return Outcome(letter, Fate.REDRIVEN)

    @asynccontextmanager
    async def _holding(self, limit: int) -> AsyncIterator[dict[DeadLetter, Delivery]]:
        """Take what is there; what the caller leaves in the mapping is given back, in order."""
        held: dict[DeadLetter, Delivery] = {}
        size = 0
        try:
            while len(held) < limit and size < _MAX_HELD_BYTES:
                delivery = await self._bus.get(self._queue)
                if delivery is None:
                    break
                held[DeadLetter(delivery.message)] = delivery
                size += len(delivery.message.body)
            yield held
        finally:
            # Over a connection that was lost, nothing needs to be given back: the broker has it again.
            with suppress(BusError):
                for delivery in held.values():
                    await delivery.nack()


async def _discard(letter: DeadLetter, delivery: Delivery) -> Outcome:
    await delivery.ack()
    return Outcome(letter, Fate.DISCARDED)


_Settle = Callable[[DeadLetter, Delivery], Awaitable[Outcome]]
