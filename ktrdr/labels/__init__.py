"""Label sources, one registry; importing this package fills it."""

from ktrdr.labels import forward_return, triple_barrier, zigzag
from ktrdr.labels.base import LABELS, Labels, LabelSource

__all__ = ["LABELS", "LabelSource", "Labels", "forward_return", "triple_barrier", "zigzag"]
