"""Identifiers, as a parameter: a simulation passes its own factory."""

import secrets
from datetime import datetime
from typing import Protocol

import uuid_utils

# Crockford's base 32: no i, l, o, u, so that an id can be read out and typed.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class IdFactory(Protocol):
    """Makes identifiers that never repeat."""

    def event_id(self) -> str:
        """Return a UUIDv7: unique, and sortable by time."""

    def operation_id(self, now: datetime) -> str:
        """Return an id that a person can tell apart: ``op-20261124-034501-k3f9x2mq``."""

    def token(self) -> str:
        """Return 8 random characters, for claims and instances."""

    def seed(self) -> int:
        """Return a seed for a training whose user gave none; short enough to type."""


class RandomIds:
    """Identifiers from the operating system's randomness."""

    def event_id(self) -> str:
        """Return a UUIDv7."""
        return str(uuid_utils.uuid7())

    def operation_id(self, now: datetime) -> str:
        """Return ``op-<date>-<time>-<8 random characters>``."""
        return f"op-{now:%Y%m%d-%H%M%S}-{self.token()}"

    def token(self) -> str:
        """Return 8 random characters (40 bits)."""
        bits = secrets.randbits(40)  # one call of the operating system, not eight
        return "".join(_ALPHABET[bits >> shift & 31] for shift in range(0, 40, 5))

    def seed(self) -> int:
        """Return a random number of at most 9 digits."""
        return secrets.randbelow(10**9)
