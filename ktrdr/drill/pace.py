"""How long things take in a drill: shorter than in life, so that nobody waits for hours."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of the scratch installation, in seconds."""

    heartbeat_s: int = 2
    cut_s: float = 7.0
    """The network is cut for so long: both sides have missed their heartbeats by then."""
    lease_s: float = 15.0
    """Longer than the cut, which must cost no attempt; an agent that is killed is missed after it."""
    accept_within_s: float = 4.0
    cancelled_within_s: float = 0.5
    """What is promised of a cancellation, until the run has ended."""
    keep_s: float = 3.0
    """Confirmed messages lie for so long before they are read back."""
    hold_s: float = 60.0
    """A consumer holds a message for so long, and a bit, where that is what is checked."""
    agents_ready_within_s: float = 120.0
    """From a cold disk, with the drivers of several GPUs, importing torch may take a minute."""
    job_within_s: float = 30.0
    """A job of a second is done; on a machine that is busy with something else."""
