"""Technical indicators, one registry; importing this package fills it."""

from ktrdr.features.indicators import momentum, trend, volatility, volume
from ktrdr.features.indicators.base import INDICATORS, Indicator

__all__ = ["INDICATORS", "Indicator", "momentum", "trend", "volatility", "volume"]
