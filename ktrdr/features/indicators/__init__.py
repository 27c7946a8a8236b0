"""Technical indicators, one registry; importing this package fills it."""

from ktrdr.features.indicators import (
    channels,
    ichimoku,
    momentum,
    money_flow,
    oscillators,
    supertrend,
    trend,
    volatility,
    volume,
    zigzag,
)
from ktrdr.features.indicators.base import INDICATORS, Indicator

__all__ = [
    "INDICATORS",
    "Indicator",
    "channels",
    "ichimoku",
    "momentum",
    "money_flow",
    "oscillators",
    "supertrend",
    "trend",
    "volatility",
    "volume",
    "zigzag",
]
