"""Losses, one registry."""

from ktrdr.losses.base import LOSSES, Loss

__all__ = ["LOSSES", "Loss"]
