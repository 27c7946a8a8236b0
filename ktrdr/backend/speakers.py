"""Who may say what: the broker vouches for the user who published, and a user speaks for its own agent."""

from ktrdr.events import AgentPresence, ClaimEvent, Envelope

SHARED_AGENT_USER = "agent"
"""The broker's user that agents have in common, where each has not one of its own."""


class Speakers:
    """Decides whose word counts.

    Args:
        own_user: the broker's user that this backend is; None on a bus that knows no users.
    """

    def __init__(self, own_user: str | None) -> None:
        self._own_user = own_user

    def why_not_heard(self, envelope: Envelope) -> str | None:
        """Return why an agent's event does not count, or None if it does."""
        event = envelope.event
        if self._own_user is None or not isinstance(event, ClaimEvent | AgentPresence):
            return None
        user = envelope.message.user_id if envelope.message is not None else None
        if user is None:
            return f"It speaks for the agent {event.agent_id}, but does not say as which user."
        if user in (SHARED_AGENT_USER, event.agent_id, self._own_user):
            return None
        return f"The user {user} may not speak for the agent {event.agent_id}."
