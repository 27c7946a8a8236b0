"""Losses, one registry."""

from ktrdr.losses import cross_entropy, focal, huber, mse
from ktrdr.losses.base import LOSSES, Loss, OutputFormat

__all__ = ["LOSSES", "Loss", "OutputFormat", "cross_entropy", "focal", "huber", "mse"]
