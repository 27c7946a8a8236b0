"""`ktrdr strategies check-leakage`: it finds what looks ahead, wherever that is, and accuses nobody else."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ktrdr.cli.main import app
from ktrdr.errors import DataError
from ktrdr.features.indicators import Indicator
from ktrdr.features.memberships import FloatArray, Membership
from ktrdr.labels import Labels, LabelSource
from ktrdr.language.leakage import LeakCheck, check_leakage
from ktrdr.market.bars import Bars
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe
from ktrdr.strategy import Strategy, load_strategy
from tests.unit.plugin_cases import install

ROOT = Path(__file__).parents[2]


class FarSighted(Indicator):
    """The next bar's close, but for the last bar."""

    @property
    def warmup_bars(self) -> int:
        return 0

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        return {"": bars["close"].shift(-1).ffill().to_numpy(dtype=np.float64)}


class CountsBars(Indicator):
    """How many bars there are."""

    @property
    def warmup_bars(self) -> int:
        return 0

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        return {"": np.full(len(bars), len(bars) / 8)}


class Ranked(Membership):
    """The share of all values, later ones too, that are lower."""

    def degree(self, values: FloatArray) -> FloatArray:
        return pd.Series(values).rank(pct=True).to_numpy(dtype=np.float64)


class Hasty(LabelSource):
    """The direction of the next ten bars, said to be known after one."""

    classes = ("BUY", "SELL")

    @property
    def horizon_bars(self) -> int:
        return 1

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        closes, times = bars["close"].to_numpy(), pd.DatetimeIndex(bars.index)
        return Labels(times[:-10], (closes[10:] < closes[:-10]).astype(np.int64), times[1:-9])


@pytest.fixture
def strategy() -> Strategy:
    return load_strategy(ROOT / "strategies" / "eurusd_two_timeframes.yaml").strategy


@pytest.fixture
def bars(random_bars: Callable[..., pd.DataFrame]) -> dict[str, Bars]:
    hourly = random_bars(700)
    return {"1h": hourly, "4h": resample(hourly, Timeframe.parse("1h"), Timeframe.parse("4h"))}


def nobody_cancels() -> None:
    """Go on."""


def leaking(strategy: Strategy, bars: Mapping[str, Bars]) -> dict[str, LeakCheck]:
    found = check_leakage(strategy, bars, {}, nobody_cancels)
    return {each.kind: each for each in found if each.leaks}


def with_plan(strategy: Strategy, **changes: Any) -> Strategy:
    return replace(strategy, feature_plan=replace(strategy.feature_plan, **changes))


def test_what_comes_with_it_does_not_look_ahead(strategy: Strategy, bars: dict[str, Bars]) -> None:
    checks = list(check_leakage(strategy, bars, {}, nobody_cancels))
    assert [each.leaks for each in checks] == [()] * len(checks)
    assert [each.faults for each in checks] == [()] * len(checks)
    assert [each.kind for each in checks] == [*["indicator"] * 4, *["membership"] * 8, "alignment", "label"]


def test_an_indicator_that_looks_ahead_is_named_and_so_are_its_features(
    strategy: Strategy, bars: dict[str, Bars]
) -> None:
    indicators = {**strategy.feature_plan.indicators, "roc_10": FarSighted()}
    found = leaking(with_plan(strategy, indicators=indicators), bars)
    assert set(found) == {"indicator", "alignment"}
    (leak,) = found["indicator"].leaks
    assert leak.feature == "roc_10"
    bar = bars["1h"].index.get_loc(pd.Timestamp(leak.time))
    assert float(leak.before) == pytest.approx(bars["1h"]["close"].iloc[bar + 1], rel=1e-5)
    assert leak.before != leak.after
    assert {each.feature for each in found["alignment"].leaks} <= {"1h_momentum_down", "1h_momentum_up"}


class LateStart(FarSighted):
    """The close, from the first bar on, though ten bars later is what it declares."""

    @property
    def warmup_bars(self) -> int:
        return 10

    def compute(self, bars: Bars) -> Mapping[str, FloatArray]:
        return {"": bars["close"].to_numpy(dtype=np.float64)}


class TooHigh(Membership):
    """Two of everything."""

    def degree(self, values: FloatArray) -> FloatArray:
        return np.where(np.isnan(values), np.nan, 2.0)


class Unsteady(LabelSource):
    """By chance."""

    classes = ("BUY", "SELL")

    @property
    def horizon_bars(self) -> int:
        return 0

    def compute(self, bars: Bars, check: Callable[[], None]) -> Labels:
        times = pd.DatetimeIndex(bars.index)
        return Labels(times, np.random.default_rng().integers(0, 2, len(bars)), times)


def test_a_part_that_breaks_its_contract_is_named(strategy: Strategy, bars: dict[str, Bars]) -> None:
    first, *others = strategy.feature_plan.columns
    broken = with_plan(
        replace(strategy, label=Unsteady(), label_source="unsteady"),
        indicators={**strategy.feature_plan.indicators, "roc_10": LateStart()},
        columns=(replace(first, membership=TooHigh()), *others),
    )
    checks = check_leakage(broken, bars, {}, nobody_cancels)
    said = {each.subject: " ".join(each.faults) for each in checks if each.faults}
    assert said.pop(first.feature_id).startswith("The result is 2 for ")
    assert said == {
        "roc_10 on 1h": "The result has its first value at bar 0, where warmup_bars declares 10.",
        "unsteady": "the labels are others each time they are computed",
    }


def test_a_membership_that_looks_ahead_is_named(strategy: Strategy, bars: dict[str, Bars]) -> None:
    first, *others = strategy.feature_plan.columns
    columns = (replace(first, membership=Ranked()), *others)
    found = leaking(with_plan(strategy, columns=columns), bars)
    assert {kind: each.subject for kind, each in found.items()} == {
        "membership": "1h_rsi_low",
        "alignment": "all 8 features together",
    }


def test_a_label_that_is_said_to_be_known_too_early_is_named(
    strategy: Strategy, bars: dict[str, Bars]
) -> None:
    found = leaking(replace(strategy, label=Hasty(), label_source="hasty"), bars)
    assert set(found) == {"label"}
    (leak,) = found["label"].leaks
    assert leak.feature == "hasty"
    assert "instead of" in leak.after


def test_what_depends_on_how_many_coarser_bars_there_are_is_found_where_they_are_joined(
    strategy: Strategy, bars: dict[str, Bars]
) -> None:
    indicators = {**strategy.feature_plan.indicators, "adx_14": CountsBars()}
    columns = [
        replace(column, output="") if column.indicator_id == "adx_14" else column
        for column in strategy.feature_plan.columns
    ]
    found = leaking(with_plan(strategy, indicators=indicators, columns=tuple(columns)), bars)
    assert found["indicator"].subject == "adx_14 on 4h"
    assert {each.feature for each in found["alignment"].leaks} == {"4h_buyers_weak", "4h_buyers_strong"}


def test_too_few_bars_are_an_error(strategy: Strategy, bars: dict[str, Bars]) -> None:
    with pytest.raises(DataError, match="too few"):
        list(
            check_leakage(
                strategy, {"1h": bars["1h"].iloc[:130], "4h": bars["4h"].iloc[:32]}, {}, nobody_cancels
            )
        )


LEAKING = '''
from ktrdr.features.indicators import Indicator


class Tomorrow(Indicator):
    """The next close."""

    @property
    def warmup_bars(self):
        return 0

    def compute(self, bars):
        return {"": bars["close"].shift(-1).ffill().to_numpy()}
'''


def test_a_plugin_that_looks_ahead_is_caught_by_the_command(tmp_path: Path) -> None:
    install(tmp_path, "ktrdr-tomorrow", LEAKING, {"ktrdr.indicators:tomorrow": "Tomorrow"})
    text = (ROOT / "strategies" / "googl_daily.yaml").read_text()
    text = text.replace("  roc_5: { type: roc, period: 5 }", "  roc_5: { type: tomorrow }")
    (tmp_path / "leaking.yaml").write_text(text)
    command = [
        sys.executable,
        "-m",
        "ktrdr.cli.main",
        "strategies",
        "check-leakage",
        "--bars",
        "300",
        "--json",
    ]
    variables = {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "KTRDR_DATA_DIR": str(ROOT / "data"),
        "KTRDR_HOME": str(tmp_path),
    }
    said = subprocess.run(
        [*command, "--bars", "300", str(tmp_path / "leaking.yaml")],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 1, said.stderr
    checks = json.loads(said.stdout)["checks"]
    accused = {each["subject"]: each["leaks"] for each in checks if each["leaks"]}
    assert set(accused) == {"roc_5 on 1d", "all 7 features together"}
    (leak,) = accused["roc_5 on 1d"]
    assert leak["feature"] == "roc_5"
    assert leak["before"] != leak["after"]
    assert leak["time"].endswith("+00:00")


def test_the_command_says_of_each_part_that_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRDR_DATA_DIR", str(ROOT / "data"))
    file = str(ROOT / "strategies" / "eurusd_context.yaml")
    said = CliRunner().invoke(app, ["strategies", "check-leakage", file, "--bars", "500"])
    assert said.exit_code == 0, said.output
    assert "✓ normalization 1h_share_roc_5_raw" in said.stdout
    assert "Nothing of eurusd_context looks into the future." in said.stderr
