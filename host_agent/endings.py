"""How an attempt ends, in the runner's pipe and in the agent's journal alike."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ktrdr.events.base import Count
from ktrdr.events.causes import FailureCause
from ktrdr.events.references import ModelManifest
from ktrdr.events.texts import Text, TextTail


class _Ending(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trained(_Ending):
    """There is a model: its packed bundle is in the claim's folder, safely on the disk."""

    kind: Literal["trained"] = "trained"
    manifest: ModelManifest


class Failed(_Ending):
    """There is no model, for a cause."""

    kind: Literal["failed"] = "failed"
    cause: FailureCause
    message: Text
    traceback: TextTail | None = None
    """For causes that are defects."""
    epoch: Count = 0
    """Epochs that were complete."""


class Cancelled(_Ending):
    """There is no model, because the attempt was told to stop."""

    kind: Literal["cancelled"] = "cancelled"
    epoch: Count = 0
    """Epochs that were complete."""


Ending = Annotated[Trained | Failed | Cancelled, Field(discriminator="kind")]
