"""What every event has in common."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

OperationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""Safe in routing keys, queue names and file names."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}$")]
"""Safe as one component of a path: no separator, no leading dot."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]


class Part(BaseModel):
    """A value inside an event: immutable; fields it does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(Part):
    """A fact that one process tells the others.

    A subclass names its ``type`` and ``version`` once; its fields are its schema. Adding an optional field
    is compatible; anything else needs a new version.
    """

    type: ClassVar[str]
    """As in ``ktrdr.training.requested``; the wire adds the version."""
    version: ClassVar[int] = 1
    durable: ClassVar[bool] = True
    """Whether it must survive a restart of the broker; if not, the newest wins and it may be dropped."""

    @classmethod
    def type_name(cls) -> str:
        """Return the type on the wire: ``ktrdr.training.requested.v1``."""
        return f"{cls.type}.v{cls.version}"

    def summary(self) -> str:
        """Return one line for the message list of a management UI."""
        raise NotImplementedError


class OperationEvent(Event):
    """An event about one attempt of one operation."""

    operation_id: OperationId
    attempt: Annotated[int, Field(ge=1)]


class ClaimEvent(OperationEvent):
    """What an agent says about an attempt that it holds; the three together are the fencing token."""

    claim_id: Name
    """Made by the agent when it took the request; an attempt is granted to one claim."""
    agent_id: Name
