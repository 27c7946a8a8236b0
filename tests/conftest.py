"""Fixtures that every test may use."""

from tests.small_disk import small_disk

__all__ = ["small_disk"]
