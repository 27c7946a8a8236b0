"""Label sources, one registry."""

from ktrdr.labels.base import LABELS, Labels, LabelSource

__all__ = ["LABELS", "LabelSource", "Labels"]
