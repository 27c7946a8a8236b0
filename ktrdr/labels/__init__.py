"""Label sources, one registry; importing this package fills it."""

from ktrdr.labels import context, forward_return, regime, triple_barrier, zigzag
from ktrdr.labels.base import LABELS, Labels, LabelSource, labels_at

__all__ = [
    "LABELS",
    "LabelSource",
    "Labels",
    "context",
    "forward_return",
    "labels_at",
    "regime",
    "triple_barrier",
    "zigzag",
]
