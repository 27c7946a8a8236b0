"""The base of everything that a strategy file parametrises."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Parameters(BaseModel):
    """Checked, immutable parameters; a name that is not a field is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    former_names: ClassVar[Mapping[str, str]] = {}
    """Spellings that older strategy files use → the field they mean; accepted with a warning."""

    ignored_names: ClassVar[Mapping[str, str]] = {}
    """Names that older strategy files use → why they have no effect; left out with a warning."""

    def without_effect(self) -> Mapping[str, str]:
        """Return the parameters that were given and that nothing reads beside the others → why."""
        return {}
