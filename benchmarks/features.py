"""The features stage at three sizes: linear, and a million bars of 12 indicators within two seconds."""

import json
import statistics

import numpy as np
import pandas as pd

from benchmarks.measure import Result, alternate
from ktrdr.features.compute import compute_features, compute_indicators, drop_warmup
from ktrdr.market.bars import Bars
from ktrdr.strategy import parse_strategy

_INDICATORS = {
    "rsi_14": ("rsi", {"period": 14}),
    "rsi_28": ("rsi", {"period": 28}),
    "roc_10": ("roc", {"period": 10}),
    "roc_24": ("roc", {"period": 24}),
    "macd": ("macd", {}),
    "adx_14": ("adx", {"period": 14}),
    "atr_14": ("atr", {"period": 14}),
    "bandwidth": ("bollingerbandwidth", {}),
    "cci_20": ("cci", {"period": 20}),
    "williams": ("williamsr", {"period": 14}),
    "stochastic": ("stochastic", {}),
    "momentum": ("momentum", {"period": 10}),
}
_SIZES = (6_000, 100_000, 1_000_000)


def measure() -> list[Result]:
    plan = parse_strategy(_strategy(), source="benchmark").strategy.feature_plan
    assert len(plan.indicators) == len(_INDICATORS)
    bars = [{"1h": _random_walk(size)} for size in _SIZES]

    def stage(data: dict[str, Bars]) -> None:
        values = compute_indicators(plan, data, lambda: None)
        drop_warmup(compute_features(plan, values, data, lambda: None))

    small, middle, large = (
        statistics.median(taken)
        for taken in alternate(*(lambda data=data: stage(data) for data in bars), rounds=3)
    )
    columns = len(plan.columns)
    per_bar = middle / _SIZES[1]
    return [
        Result(
            f"features, {_SIZES[2]:,} bars (12 indicators, {columns} features)",
            large,
            f"10 x {_SIZES[1]:,} bars",
            10 * middle,
            "≤ 2 s, ratio ≤ 1.5",
            large <= 2 and large <= 15 * middle,
        ),
        Result(
            f"features, {_SIZES[0]:,} bars",
            small,
            f"the same share of {_SIZES[1]:,} bars",
            per_bar * _SIZES[0],
            "≤ 3",
            small <= 3 * per_bar * _SIZES[0],
            "fixed costs show",
        ),
    ]


def _random_walk(size: int) -> Bars:
    random = np.random.default_rng(7)
    close = 1.1 * np.exp(np.cumsum(random.normal(0, 1e-3, size)))
    opens = np.concatenate(([close[0]], close[:-1]))
    spread = np.abs(random.normal(0, 5e-4, size)) * close
    index = pd.date_range("2000-01-01", periods=size, freq="h", tz="UTC", name="timestamp")
    return pd.DataFrame(
        {
            "open": opens,
            "high": np.maximum(opens, close) + spread,
            "low": np.minimum(opens, close) - spread,
            "close": close,
            "volume": random.uniform(1, 1000, size),
        },
        index=index,
    )


def _strategy() -> str:
    indicators = {name: {"type": kind, **parameters} for name, (kind, parameters) in _INDICATORS.items()}
    memberships = {"low": [-100, 0, 50], "high": {"type": "gaussian", "parameters": [50, 20]}}
    return json.dumps(
        {
            "name": "benchmark",
            "training_data": {
                "symbols": {"mode": "single", "symbol": "X"},
                "timeframes": {"mode": "single", "timeframe": "1h"},
            },
            "indicators": indicators,
            "fuzzy_sets": {name: {"indicator": name, **memberships} for name in indicators},
            "nn_inputs": [{"fuzzy_set": name, "timeframes": "all"} for name in indicators],
            "model": {"architecture": {"hidden_layers": [8]}},
            "training": {},
            "decisions": {},
        }
    )
