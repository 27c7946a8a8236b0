"""Why an attempt failed, as a closed set; the retry policy is keyed on it."""

from enum import StrEnum


class FailureCause(StrEnum):
    """Why an attempt did not end in a model."""

    STRATEGY_ERROR = "strategy_error"
    """The strategy is wrong: another attempt would fail the same way."""
    DATA_ERROR = "data_error"
    """The bars are wrong or too few for this strategy."""
    TRAINING_DIVERGED = "training_diverged"
    """The loss became NaN or infinite."""
    OUT_OF_MEMORY = "out_of_memory"
    """The runner, or its device, ran out of memory."""
    DISK_FULL = "disk_full"
    """The agent could not write its result."""
    BLOB_UNAVAILABLE = "blob_unavailable"
    """The agent could not fetch the training data."""
    RUNNER_CRASHED = "runner_crashed"
    """The runner process was killed or ended without a result."""
    AGENT_SHUTDOWN = "agent_shutdown"
    """The agent was told to stop before the attempt was done."""
    AGENT_RESTARTED = "agent_restarted"
    """The agent died and found the attempt in its claim journal when it started again."""
    LEASE_EXPIRED = "lease_expired"
    """Nothing was heard of the attempt for the length of its lease."""
    NOT_ACCEPTED = "not_accepted"
    """Nobody accepted the request before its deadline."""
    BROKER_UNREACHABLE = "broker_unreachable"
    """The request could not be published."""
    RESULT_REJECTED = "result_rejected"
    """The result did not pass verification: its size or a hash is wrong."""
    INTERNAL_ERROR = "internal_error"
    """A defect of this program; the traceback tells where."""

    @property
    def retryable(self) -> bool:
        """Whether another attempt may end differently."""
        return self not in _FINAL

    @property
    def is_of_infrastructure(self) -> bool:
        """Whether it lies with machines and what is between them, and not with the training."""
        return self in _INFRASTRUCTURE


_FINAL = frozenset(
    {
        FailureCause.STRATEGY_ERROR,
        FailureCause.DATA_ERROR,
        FailureCause.TRAINING_DIVERGED,
        FailureCause.INTERNAL_ERROR,
    }
)
_INFRASTRUCTURE = frozenset(
    {
        FailureCause.DISK_FULL,
        FailureCause.BLOB_UNAVAILABLE,
        FailureCause.AGENT_SHUTDOWN,
        FailureCause.AGENT_RESTARTED,
        FailureCause.LEASE_EXPIRED,
        FailureCause.BROKER_UNREACHABLE,
    }
)
