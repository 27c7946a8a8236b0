"""Indicators that strategies share are computed once per dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ktrdr.features.compute import Table, compute_anew
from ktrdr.features.indicator_cache import IndicatorCache
from ktrdr.features.indicators import Indicator
from ktrdr.features.indicators.base import FloatArray
from ktrdr.features.indicators.momentum import Roc, Rsi
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.progress import SilentObserver
from tests.unit.training_cases import job

HOURLY = {"1h": "a" * 64}
PLENTY = 2**20


def computed(cache: IndicatorCache, indicator: Indicator, table: Table, **hashes: str) -> FloatArray:
    return cache.on(hashes or HOURLY)(indicator, table, "1h")[""]


def test_what_was_computed_on_a_table_is_there_for_the_next_who_asks(eurusd: pd.DataFrame) -> None:
    cache = IndicatorCache(PLENTY)
    first = computed(cache, Rsi(period=14), eurusd)
    assert computed(cache, Rsi(period=14), eurusd) is first
    np.testing.assert_array_equal(first, compute_anew(Rsi(period=14), eurusd, "1h")[""])


def test_other_parameters_another_type_and_other_bars_are_computed(eurusd: pd.DataFrame) -> None:
    cache = IndicatorCache(PLENTY)
    first = computed(cache, Rsi(period=14), eurusd)
    half = eurusd.iloc[:3000]
    assert not np.array_equal(computed(cache, Rsi(period=15), eurusd), first, equal_nan=True)
    assert not np.array_equal(computed(cache, Roc(period=14), eurusd), first, equal_nan=True)
    assert len(computed(cache, Rsi(period=14), half, **{"1h": "b" * 64})) == 3000
    assert computed(cache, Rsi(period=14), eurusd) is first


def test_nobody_can_change_what_is_kept(eurusd: pd.DataFrame) -> None:
    kept = computed(IndicatorCache(PLENTY), Rsi(), eurusd)
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1.0


def test_what_was_not_used_for_longest_goes_first_and_the_limit_holds(eurusd: pd.DataFrame) -> None:
    one = 8 * len(eurusd)
    cache = IndicatorCache(2 * one)
    old, new = computed(cache, Rsi(period=5), eurusd), computed(cache, Rsi(period=6), eurusd)
    assert computed(cache, Rsi(period=5), eurusd) is old  # used again, so that the other is the older one
    computed(cache, Rsi(period=7), eurusd)
    assert cache.size_bytes == 2 * one
    assert computed(cache, Rsi(period=5), eurusd) is old
    assert computed(cache, Rsi(period=6), eurusd) is not new


def test_what_is_larger_than_the_limit_is_not_kept(eurusd: pd.DataFrame) -> None:
    cache = IndicatorCache(100)
    first = computed(cache, Rsi(), eurusd)
    assert cache.size_bytes == 0
    assert computed(cache, Rsi(), eurusd) is not first


def test_what_is_larger_than_the_limit_drives_nothing_out(eurusd: pd.DataFrame) -> None:
    few = eurusd.iloc[:100]
    cache = IndicatorCache(8 * len(few))
    kept = computed(cache, Rsi(), few, **{"1h": "few"})
    computed(cache, Rsi(), eurusd)
    assert computed(cache, Rsi(), few, **{"1h": "few"}) is kept


def test_ten_strategies_that_one_runner_trains_on_the_same_bars_compute_each_indicator_once(
    eurusd: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []

    original = Rsi.compute

    def compute(self: Rsi, bars: pd.DataFrame) -> Mapping[str, FloatArray]:
        counted.append(self.model_dump_json())
        return original(self, bars)

    monkeypatch.setattr(Rsi, "compute", compute)
    executor = TrainingExecutor()
    bundles = []
    for number in range(10):
        overrides: dict[str, Any] = {"training.epochs": 1, "model.architecture.hidden_layers": [4 + number]}
        of = job(eurusd.iloc[:600], tmp_path, overrides=overrides)
        bundles.append(executor.run(of, SilentObserver(), ManualCancellation()).bundle)
    assert len(counted) == 1
    # What is shared changes nothing: an executor that has nothing kept makes the same bytes.
    assert TrainingExecutor().run(of, SilentObserver(), ManualCancellation()).bundle == bundles[-1]
