"""Dead letters, for admins: looked at, put back to where they died, or thrown away."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ktrdr.backend.api.access import Access
from ktrdr.backend.api.service import Service
from ktrdr.backend.tokens import Role
from ktrdr.bus.dead_letter_box import MAX_ID_CHARACTERS, PART_OF_ID, LetterChoice
from ktrdr.bus.dead_letter_office import MAX_LETTERS, MAX_SHOWN
from ktrdr.bus.letter_records import LetterOutcome, LetterRecord, WholeLetter

_NAMED_IN_AUDIT = 20
_ALL = "all"

_LIMIT = "Look at so many, the oldest first."
Limit = Annotated[int, Query(ge=1, le=MAX_LETTERS, description=_LIMIT)]
Reason = Annotated[str, Field(max_length=500, description="Only those whose reason has that text in it.")]
LetterId = Annotated[
    str,
    Path(
        pattern=PART_OF_ID,
        max_length=MAX_ID_CHARACTERS,
        description="Its id, or the unique beginning or end of that.",
        examples=["0192f3a1-7c1e-7d3b-9a55-3f0b6c2d1e4f"],
    ),
]


class WhichLetters(BaseModel):
    """Which dead letters are meant: `ids`, or `all`, or `all` with a `reason`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"all": True, "reason": "not the type of an event"}]},
    )

    ids: list[Annotated[str, Field(max_length=MAX_ID_CHARACTERS)]] | None = Field(
        None, max_length=MAX_LETTERS, description="Ids, or the unique beginning or end of each."
    )
    everything: bool = Field(False, alias=_ALL, description="All of them, instead of ids.")
    reason: Reason | None = None
    limit: int = Field(1000, ge=1, le=MAX_LETTERS, description=_LIMIT)

    @model_validator(mode="after")
    def _is_clear(self) -> "WhichLetters":
        if (self.ids is not None) == self.everything or (self.ids is not None and self.reason):
            raise ValueError("it is not clear which are meant: give `ids`, or `all`, or `all` with `reason`")
        return self

    @property
    def choice(self) -> LetterChoice:
        """The same for who looks for them."""
        return LetterChoice(self.ids, self.reason)


class LetterPage(BaseModel):
    """Dead letters, oldest first."""

    model_config = ConfigDict(from_attributes=True)

    success: Literal[True] = True
    letters: Sequence[LetterRecord]
    looked_at: int = Field(description="How many there were to choose from.")
    may_be_more: bool = Field(description="Whether there may be more, behind those.")
    on_broker: bool = Field(
        description="False: no broker is named, and these are of the bus within the backend, and end with it."
    )


class LetterAnswer(BaseModel):
    """The dead letters of one id: several if a message has died more than once."""

    model_config = ConfigDict(from_attributes=True)

    success: Literal[True] = True
    letters: Sequence[WholeLetter] = Field(description=f"At most {MAX_SHOWN}.")
    count: int = Field(description="How many there are of that id.")


class LetterOutcomes(BaseModel):
    """What became of each that was meant."""

    success: Literal[True] = True
    outcomes: Sequence[LetterOutcome]


def dead_letters_router(service: Service, access: Access) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/v1/dead-letters", tags=["installation"])
    reading, writing = [Depends(access.reading(Role.ADMIN))], [Depends(access.writing(Role.ADMIN))]
    office = service.dead_letters

    @router.get("", dependencies=reading, summary="List the dead letters, oldest first")
    async def list_letters(reason: Reason | None = None, limit: Limit = 1000) -> LetterPage:
        return LetterPage.model_validate(await office.list(reason=reason, limit=limit))

    @router.get("/{letter_id}", dependencies=reading, summary="Show a dead letter, with its event")
    async def show(letter_id: LetterId, limit: Limit = 1000) -> LetterAnswer:
        """Of what cannot be read, why, and how it begins."""
        return LetterAnswer.model_validate(await office.show(letter_id, limit=limit))

    @router.post("/redrive", dependencies=writing, summary="Put dead letters back to where they died")
    async def redrive(request: Request, which: WhichLetters) -> LetterOutcomes:
        """Under the same ids. One leaves the dead letters only when its queue has it for sure."""
        _note(request, which.choice)
        outcomes = await office.redrive(which.choice, limit=which.limit)
        _note(request, which.choice, outcomes)
        return LetterOutcomes(outcomes=outcomes)

    @router.post("/discard", dependencies=writing, summary="Throw dead letters away, for ever")
    async def discard(request: Request, which: WhichLetters) -> LetterOutcomes:
        return await thrown_away(request, which.choice, which.limit)

    @router.delete("/{letter_id}", dependencies=writing, summary="Throw a dead letter away, for ever")
    async def discard_one(request: Request, letter_id: LetterId, limit: Limit = 1000) -> LetterOutcomes:
        return await thrown_away(request, LetterChoice(ids=[letter_id]), limit)

    async def thrown_away(request: Request, choice: LetterChoice, limit: int) -> LetterOutcomes:
        _note(request, choice)
        outcomes = await office.discard(choice, limit=limit)
        _note(request, choice, outcomes)
        return LetterOutcomes(outcomes=outcomes)

    return router


def _note(request: Request, choice: LetterChoice, outcomes: Sequence[LetterOutcome] | None = None) -> None:
    """Have the audit log say which were meant, and what became of them once that is known."""
    meant = _named(choice.ids) if choice.ids is not None else _ALL
    if choice.reason is not None:
        meant = f"{meant} of reason '{choice.reason}'"
    if outcomes is not None:
        counted = Counter(outcome.fate for outcome in outcomes)
        became = ", ".join(f"{count} {fate}" for fate, count in counted.items()) or "none"
        ids = f" ({_named([outcome.id for outcome in outcomes])})" if choice.ids is None and outcomes else ""
        meant = f"{meant}: {became}{ids}"
    request.state.subject = meant


def _named(ids: Sequence[str]) -> str:
    more = len(ids) - _NAMED_IN_AUDIT
    return ", ".join(ids[:_NAMED_IN_AUDIT]) + (f" and {more} more" if more > 0 else "")
