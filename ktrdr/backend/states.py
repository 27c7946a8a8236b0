"""The states of an operation: one table, in which every transition is named for the event that causes it."""

from enum import StrEnum


class State(StrEnum):
    """Where an operation is between its submission and its one end."""

    PENDING = "pending"
    """Recorded; its request is not on the bus yet."""
    QUEUED = "queued"
    """The request of its current attempt waits in a lane, or for the end of the pause before a retry."""
    RUNNING = "running"
    """A claim holds its current attempt."""
    CANCELLING = "cancelling"
    """The claim has been told to stop."""
    COMPLETED = "completed"
    """Its model is registered."""
    FAILED = "failed"
    """It ended without a model; the cause says why."""
    CANCELLED = "cancelled"
    """It was stopped on request."""

    @property
    def terminal(self) -> bool:
        """Whether the operation has ended; nothing changes it any more."""
        return self in _TERMINAL


_TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})


class Trigger(StrEnum):
    """What happens to an operation; the value reads as the label of an edge."""

    DISPATCHED = "dispatched"
    """The broker confirmed the request of the current attempt."""
    ACCEPTED = "accepted"
    """A claim was heard of first for the current attempt, and has the grant."""
    RECONCILED = "reconciled"
    """A claim whose lease had expired is back, before another has accepted the attempt that was to follow."""
    ACCEPT_DEADLINE_PASSED = "accept deadline passed"
    """Nobody accepted the request in time; it is dispatched again."""
    ATTEMPT_FAILED_RETRYABLE = "attempt failed, retryable"
    """The attempt failed for a cause that another attempt may not meet."""
    ATTEMPT_FAILED = "attempt failed"
    """The attempt failed for a cause that every attempt would meet."""
    LEASE_EXPIRED = "lease expired"
    """Nothing was heard of the claim for the length of its lease."""
    ATTEMPTS_EXHAUSTED = "attempts exhausted"
    """The last attempt allowed has failed, or its lease has expired."""
    MODEL_PERSISTED = "model persisted"
    """The first valid model was registered, whichever attempt made it."""
    MODEL_DISCARDED = "model discarded"
    """A result came after the cancellation and was not taken."""
    CANCEL_REQUESTED = "cancel requested"
    """A person, or their program, wants it stopped."""
    RUN_CANCELLED = "run cancelled"
    """The claim says that it has stopped as told."""
    FELL_BACK = "fell back"
    """It was to run on a host, and is to run beside the backend."""
    TAKEN_OVER = "taken over"
    """The process whose bus carried it has died or left; another goes on with it."""


TRANSITIONS: dict[tuple[State, Trigger], State] = {
    (State.PENDING, Trigger.DISPATCHED): State.QUEUED,
    # An agent may be quicker to accept than we are to note that the broker confirmed.
    (State.PENDING, Trigger.ACCEPTED): State.RUNNING,
    (State.PENDING, Trigger.RECONCILED): State.RUNNING,
    (State.PENDING, Trigger.ATTEMPT_FAILED): State.FAILED,
    (State.PENDING, Trigger.ATTEMPT_FAILED_RETRYABLE): State.QUEUED,
    (State.PENDING, Trigger.ATTEMPTS_EXHAUSTED): State.FAILED,
    (State.PENDING, Trigger.MODEL_PERSISTED): State.COMPLETED,
    (State.PENDING, Trigger.CANCEL_REQUESTED): State.CANCELLED,
    (State.PENDING, Trigger.FELL_BACK): State.PENDING,
    (State.PENDING, Trigger.TAKEN_OVER): State.PENDING,
    (State.QUEUED, Trigger.DISPATCHED): State.QUEUED,
    (State.QUEUED, Trigger.ACCEPTED): State.RUNNING,
    (State.QUEUED, Trigger.RECONCILED): State.RUNNING,
    (State.QUEUED, Trigger.ACCEPT_DEADLINE_PASSED): State.QUEUED,
    (State.QUEUED, Trigger.ATTEMPT_FAILED): State.FAILED,
    (State.QUEUED, Trigger.ATTEMPT_FAILED_RETRYABLE): State.QUEUED,
    (State.QUEUED, Trigger.ATTEMPTS_EXHAUSTED): State.FAILED,
    (State.QUEUED, Trigger.MODEL_PERSISTED): State.COMPLETED,
    (State.QUEUED, Trigger.CANCEL_REQUESTED): State.CANCELLED,
    (State.QUEUED, Trigger.FELL_BACK): State.PENDING,
    (State.QUEUED, Trigger.TAKEN_OVER): State.PENDING,
    (State.RUNNING, Trigger.ATTEMPT_FAILED): State.FAILED,
    (State.RUNNING, Trigger.ATTEMPT_FAILED_RETRYABLE): State.QUEUED,
    (State.RUNNING, Trigger.LEASE_EXPIRED): State.QUEUED,
    (State.RUNNING, Trigger.ATTEMPTS_EXHAUSTED): State.FAILED,
    (State.RUNNING, Trigger.MODEL_PERSISTED): State.COMPLETED,
    (State.RUNNING, Trigger.CANCEL_REQUESTED): State.CANCELLING,
    (State.RUNNING, Trigger.FELL_BACK): State.PENDING,
    (State.RUNNING, Trigger.TAKEN_OVER): State.RUNNING,
    (State.CANCELLING, Trigger.RUN_CANCELLED): State.CANCELLED,
    (State.CANCELLING, Trigger.MODEL_DISCARDED): State.CANCELLED,
    # However the run ends, the user asked for the end.
    (State.CANCELLING, Trigger.ATTEMPT_FAILED): State.CANCELLED,
    (State.CANCELLING, Trigger.ATTEMPT_FAILED_RETRYABLE): State.CANCELLED,
    (State.CANCELLING, Trigger.ATTEMPTS_EXHAUSTED): State.CANCELLED,
    (State.CANCELLING, Trigger.LEASE_EXPIRED): State.CANCELLED,
    (State.CANCELLING, Trigger.TAKEN_OVER): State.CANCELLED,
}


def apply(state: State, trigger: Trigger) -> State:
    """Return the state after the trigger.

    What has no edge changes nothing: messages come late, twice and out of order, and terminal states absorb
    them all.
    """
    return TRANSITIONS.get((state, trigger), state)


def mermaid() -> str:
    """Return the table as a Mermaid state diagram."""
    triggers: dict[tuple[State, State], list[str]] = {}
    for (before, trigger), after in TRANSITIONS.items():
        triggers.setdefault((before, after), []).append(trigger.value)
    lines = ["stateDiagram-v2", f"    [*] --> {State.PENDING}: submitted"]
    lines += [
        f"    {before} --> {after}: {'<br/>'.join(labels)}" for (before, after), labels in triggers.items()
    ]
    lines += [f"    {state} --> [*]" for state in State if state.terminal]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(mermaid())
