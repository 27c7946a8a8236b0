"""What every event has in common."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

OperationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""Safe in routing keys, queue names and file names."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}$")]
"""Safe as one component of a path: no separator, no leading dot."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

# Every number fits a column of a database, a header of AMQP and a timedelta, whoever sends it.
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Ordinal = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""A number that counts from 1."""
ByteCount = Annotated[int, Field(ge=0, le=2**53 - 1)]
Seconds = Annotated[float, Field(ge=0, le=1e10)]
PositiveSeconds = Annotated[float, Field(gt=0, le=1e10)]


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the years 1 to 9999 in UTC") from error


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]


class Part(BaseModel):
    """A value inside an event: immutable; fields it does not know are ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        # JSON has no word for NaN and the infinities, so databases and browsers would choke on them.
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


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
    """One training that a user asked for."""
    attempt: Ordinal
    """Which try at it."""


class ClaimEvent(OperationEvent):
    """What an agent says about an attempt that it holds; the three together are the fencing token."""

    claim_id: Name
    """Made by the agent when it took the request; an attempt is granted to one claim."""
    agent_id: Name
    """Stays the same when the agent starts again."""
