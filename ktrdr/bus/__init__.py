"""The message bus: a port, and what implements it."""
