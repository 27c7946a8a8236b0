"""The feature stage: against pandas by hand, at three sizes, in memory, and shared by strategies."""

import json
import multiprocessing
import resource
import statistics
import sys
from typing import Any

import numpy as np
import pandas as pd
import psutil

from benchmarks.measure import Result, alternate
from benchmarks.plain_features import plain_features
from ktrdr.features.compute import (
    Compute,
    FeatureMatrix,
    compute_anew,
    compute_features,
    compute_indicators,
    drop_warmup,
)
from ktrdr.features.indicator_cache import IndicatorCache
from ktrdr.features.plan import FeaturePlan
from ktrdr.market.bars import Bars
from ktrdr.strategy import parse_strategy

_INDICATORS: dict[str, tuple[str, dict[str, Any]]] = {
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
    "mfi_14": ("mfi", {"period": 14}),
    "aroon_14": ("aroon", {"period": 14}),
    "distance": ("distancefromma", {"period": 50}),
    "cmf_21": ("cmf", {"period": 21}),
    "volume_20": ("volumeratio", {"period": 20}),
    "fisher": ("fishertransform", {}),
    "rvi": ("rvi", {}),
    "supertrend": ("supertrend", {}),
}
_SIZES = (6_000, 100_000, 1_000_000)
_PLAIN_SIZE = 100_000
_STRATEGIES = 10
_MIB = 2**20


def measure() -> list[Result]:
    plan = _plan()
    bars = [_random_walk(size) for size in _SIZES]
    plain_bars = _random_walk(_PLAIN_SIZE)
    _check_that_both_compute_the_same(plan, plain_bars)

    small, middle, large = (
        statistics.median(taken)
        for taken in alternate(*(lambda data=data: _stage(plan, data) for data in bars), rounds=3)
    )
    ours, theirs = alternate(
        lambda: _stage(plan, plain_bars), lambda: plain_features(plain_bars, _INDICATORS), rounds=3
    )
    needed, size = _memory(len(bars[-1]))
    hashes = {"1h": "of these bars"}
    shared, alone = alternate(
        lambda: _indicators_of_ten(plan, plain_bars, IndicatorCache(64 * _MIB).on(hashes)),
        lambda: _indicators_of_ten(plan, plain_bars, compute_anew),
        rounds=3,
    )
    columns = len(plan.columns)
    fast, plain = statistics.median(ours), statistics.median(theirs)
    per_bar = middle / _SIZES[1]
    return [
        Result(
            f"features, {_PLAIN_SIZE:,} bars ({len(_INDICATORS)} indicators, {columns} features)",
            fast,
            "the same in pandas by hand",
            plain,
            "≤ 0.1",
            fast <= 0.1 * plain,
        ),
        Result(
            f"features, {_SIZES[2]:,} bars",
            large,
            f"10 x {_SIZES[1]:,} bars",
            10 * middle,
            "≤ 5 s, ratio ≤ 1.5",
            large <= 5 and large <= 15 * middle,
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
        Result(
            f"MiB beyond the bars, {_SIZES[2]:,} bars x {columns} features",
            needed,
            "the matrix itself",
            size,
            "≤ 3",
            needed <= 3 * size,
        ),
        Result(
            f"indicators of {_STRATEGIES} strategies that share them, {_PLAIN_SIZE:,} bars",
            statistics.median(shared),
            "each for itself",
            statistics.median(alone),
            "≤ 0.2",
            statistics.median(shared) <= 0.2 * statistics.median(alone),
            "docs/decisions/0025",
        ),
    ]


def _stage(plan: FeaturePlan, bars: Bars) -> FeatureMatrix:
    tables = {"1h": bars}
    values = compute_indicators(plan, tables, lambda: None)
    matrix, _ = drop_warmup(compute_features(plan, values, tables, lambda: None))
    return matrix


def _check_that_both_compute_the_same(plan: FeaturePlan, bars: Bars) -> None:
    """The averages of both start differently, which is forgotten after some bars."""
    matrix, plain = _stage(plan, bars), plain_features(bars, _INDICATORS)
    assert tuple(f"1h_{name}" for name in plain.columns) == matrix.feature_ids
    np.testing.assert_allclose(matrix.values[-1000:], plain.to_numpy()[-1000:], rtol=1e-3, atol=1e-5)


def _memory(bars: int) -> tuple[float, float]:
    """Return the MiB that the stage needs beyond its bars at most, and those of its matrix."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_memory, (bars,))


def _measure_memory(bars: int) -> tuple[float, float]:
    """In a process of its own, whose most is that of the stage."""
    plan, table = _plan(), _random_walk(bars)
    _stage(plan, table.iloc[:1000])
    before = psutil.Process().memory_info().rss
    matrix = _stage(plan, table)
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return (most - before) / _MIB, matrix.values.nbytes / _MIB


def _indicators_of_ten(plan: FeaturePlan, bars: Bars, compute: Compute) -> None:
    """Do what ten strategies need that share their indicators."""
    for _ in range(_STRATEGIES):
        compute_indicators(plan, {"1h": bars}, lambda: None, compute=compute)


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


def _plan() -> FeaturePlan:
    indicators = {name: {"type": kind, **parameters} for name, (kind, parameters) in _INDICATORS.items()}
    memberships = {"low": [-100, 0, 50], "high": {"type": "gaussian", "parameters": [50, 20]}}
    text = json.dumps(
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
    return parse_strategy(text, source="benchmark").strategy.feature_plan
