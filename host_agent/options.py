"""What an agent may be told about how to work."""

from dataclasses import dataclass
from datetime import timedelta

from ktrdr.events.references import MAX_INLINE_BYTES
from ktrdr.settings import MIB, Settings


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How an agent works; the defaults are those of the settings."""

    lanes: tuple[str, ...] = ("any",)
    """The lanes that it takes requests from, the preferred one first."""
    slots: int = 1
    """Trainings at a time."""
    device: str = "auto"
    threads: int = 1
    """Torch threads of each runner."""
    prewarm: bool = True
    """Start the runners with the agent rather than with their first job."""
    lease_s: float = 30.0
    presence_interval_s: float = 5.0
    cancel_grace_s: float = 3.0
    publish_timeout_s: float = 5.0
    inline_limit_bytes: int = MIB
    max_model_bytes: int = 2048 * MIB
    cache_limit_bytes: int = 1024 * MIB
    """Of fetched datasets; those that were not used for longest go first."""
    cache_kept: timedelta | None = None
    """After their last use; None: for ever."""
    set_aside_kept: timedelta | None = None
    """What could not be read; None: for ever."""
    log_level: str = "info"
    """Least severe line that a runner sends."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.lanes:
            raise ValueError("an agent needs a lane to take requests from")
        if self.slots < 1:
            raise ValueError("an agent needs a slot to train in")
        if self.inline_limit_bytes > MAX_INLINE_BYTES:
            raise ValueError(f"a model of more than {MAX_INLINE_BYTES:,} bytes cannot travel inline")

    @classmethod
    def from_settings(
        cls, settings: Settings, *, lanes: tuple[str, ...] = ("any",), prewarm: bool = True
    ) -> "AgentOptions":
        """Return the options that an installation's settings choose."""
        return cls(
            lanes=lanes,
            slots=settings.slots,
            device=settings.device,
            threads=settings.threads,
            prewarm=prewarm,
            lease_s=settings.lease_s,
            presence_interval_s=settings.presence_interval_s,
            cancel_grace_s=settings.cancel_grace_s,
            publish_timeout_s=settings.publish_timeout_s,
            inline_limit_bytes=settings.inline_limit_bytes,
            max_model_bytes=settings.max_model_bytes,
            cache_limit_bytes=settings.cache_limit_bytes,
            cache_kept=settings.cache_kept,
            set_aside_kept=settings.set_aside_kept,
            log_level=settings.log_level,
        )
