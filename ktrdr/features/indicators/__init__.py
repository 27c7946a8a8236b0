"""Technical indicators, one registry."""

from ktrdr.features.indicators.base import INDICATORS, Indicator

__all__ = ["INDICATORS", "Indicator"]
