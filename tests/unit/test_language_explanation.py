"""`ktrdr strategies explain`: what it says is what a training does."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ktrdr.cli.main import app
from ktrdr.errors import DataError
from ktrdr.features.compute import compute_features, compute_indicators, drop_warmup
from ktrdr.features.windows import complete_windows
from ktrdr.language.explained import Explanation
from ktrdr.language.explanation import explain
from ktrdr.market.bars import Bars
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe
from ktrdr.strategy import Strategy, load_strategy
from ktrdr.training.labelled_rows import match
from ktrdr.training.split import Split, split_rows

STRATEGIES = Path(__file__).parents[2] / "strategies"


def read(name: str, **overrides: Any) -> tuple[Strategy, Explanation]:
    parsed = load_strategy(STRATEGIES / f"{name}.yaml", overrides)
    return parsed.strategy, explain(parsed)


def nothing() -> None:
    """Nobody cancels."""


def split_of(strategy: Strategy, bars: Mapping[str, Bars]) -> tuple[int, Split]:
    """Do what a training does up to its split; return the rows of warm-up too."""
    plan, base = strategy.feature_plan, bars[strategy.base_timeframe]
    values = compute_indicators(plan, bars, nothing)
    matrix, dropped = drop_warmup(compute_features(plan, values, bars, nothing), max_gaps=1)
    window = strategy.network.window
    ends = complete_windows(
        matrix, pd.DatetimeIndex(base.index), Timeframe.parse(strategy.base_timeframe), window
    )
    rows = match("X", matrix, ends, window, strategy.label.compute(base, nothing), base)
    shares = strategy.training.data_split
    return dropped, split_rows(rows.times, rows.known_at, shares.train, shares.validation)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("googl_daily", {}),
        ("googl_daily", {"training.labels.horizon": 33, "training.data_split": {"train": 0.5, "test": 0.35}}),
        ("googl_daily", {"model": {"type": "gru", "architecture": {"sequence_length": 12}}}),
    ],
    ids=["as it is", "a longer horizon", "windows"],
)
def test_with_one_bar_less_than_it_says_there_is_nothing_to_train(
    name: str, overrides: dict[str, Any], random_bars: Callable[..., pd.DataFrame]
) -> None:
    strategy, explanation = read(name, **overrides)
    needed = explanation.bars.at_least
    bars = random_bars(needed, freq="1D")
    dropped, split = split_of(strategy, {"1d": bars})
    assert dropped == explanation.first_bar
    assert min(len(split.train), len(split.validation), len(split.test)) == 10
    with pytest.raises(DataError):
        split_of(strategy, {"1d": bars.iloc[:-1]})


def test_bars_that_only_the_labels_need_count_too() -> None:
    needed = []
    for span in (2, 300, 400):
        _, explanation = read("eurusd_momentum", **{"training.labels.vol_span": span})
        needed.append(explanation.bars.at_least)
    assert needed[2] - needed[1] == 100
    assert needed[1] - needed[0] == 300 - 1 - explanation.first_bar


def test_the_first_bar_is_the_first_with_every_feature_also_of_a_coarser_timeframe(
    random_bars: Callable[..., pd.DataFrame],
) -> None:
    strategy, explanation = read("eurusd_two_timeframes")
    hourly = random_bars(800)
    tables = {"1h": hourly, "4h": resample(hourly, Timeframe.parse("1h"), Timeframe.parse("4h"))}
    values = compute_indicators(strategy.feature_plan, tables, nothing)
    matrix = compute_features(strategy.feature_plan, values, tables, nothing)
    first = {
        name: int(np.isnan(matrix.values[:, column]).argmin())
        for column, name in enumerate(matrix.feature_ids)
    }
    assert {each.feature_id: each.first_bar for each in explanation.features} == first
    assert explanation.first_bar == max(first.values())


def test_it_says_features_in_order_with_their_formulas() -> None:
    _, explanation = read("eurusd_momentum", **{"indicators.rsi_14.period": 21})
    first, *_, last = explanation.features
    assert (first.feature_id, last.feature_id) == ("1h_rsi_oversold", "1h_day_move_up")
    assert first.formula == "trapezoidal(a=-1, b=0, c=30, d=45) of rsi(period=21, source=close)"
    assert explanation.features[3].formula.endswith(
        "of macd(fast_period=12, slow_period=26, signal_period=9, source=close).histogram"
    )
    assert len(explanation.features) == explanation.network.inputs == 12
    # 12 → 32 → 16 → 3
    assert explanation.network.parameter_count == 13 * 32 + 33 * 16 + 17 * 3
    assert explanation.training.optimizer == "adam(learning_rate=0.001, weight_decay=0.0001)"
    assert explanation.training.loss == "focal(gamma=2)"
    assert (explanation.label.source, explanation.label.horizon_bars) == ("triple_barrier", 24)


def test_a_feature_of_a_series_beside_the_bars_says_so_and_waits_for_no_bar() -> None:
    _, explanation = read("eurusd_context")
    by_id = {each.feature_id: each for each in explanation.features}
    positions = by_id["1h_positions_balanced"]
    assert positions.formula.endswith("of sma(period=3, source=close) on cot_DEMO_net_pct")
    assert (positions.context, positions.context_rows, positions.first_bar) == ("cot_DEMO_net_pct", 3, 0)
    assert explanation.first_bar == by_id["1h_rsi_low"].first_bar == 14


def test_it_says_which_series_there_are_beside_the_bars_and_since_when_their_rows_are_known() -> None:
    _, explanation = read("eurusd_context", **{"context_data.1.publication_lag": "2d"})
    told = {series.source_id: series.definition for series in explanation.context}
    assert told == {
        "yield_spread_DEMO_RATE_DAILY_DEMO_RATE_MONTHLY": (
            "fred/DEMO_RATE_DAILY.csv less fred/DEMO_RATE_MONTHLY.csv, "
            "each value known when published, or 2d after its date where the file does not say"
        ),
        "cot_DEMO_net_pct": (
            "net positions of cot/DEMO.csv, ranked among 52 reports, each known when the report was published"
        ),
        "GOOGL": "bars of GOOGL 1d, each known at its close",
    }
    said = CliRunner().invoke(app, ["strategies", "explain", str(STRATEGIES / "eurusd_context.yaml")])
    assert "GOOGL bars of GOOGL 1d, each known at its close" in " ".join(said.stdout.split())


def test_the_command_prints_it_for_people_and_for_scripts() -> None:
    file = str(STRATEGIES / "googl_daily.yaml")
    said = CliRunner().invoke(app, ["strategies", "explain", file, "--set", "training.analytics=true"])
    assert said.exit_code == 0
    for words in (
        "GOOGL",
        "bollingerbandwidth(period=20",
        "minmax",
        "273 parameters",
        "at most 10 bars of 1d",
    ):
        assert words in said.stdout
    assert "warning: " in said.stderr
    assert "training.analytics" in said.stderr
    told = json.loads(CliRunner().invoke(app, ["strategies", "explain", file, "--json"]).stdout)
    assert told["network"]["parameter_count"] == 273
    assert [each["first_bar"] for each in told["features"]] == [14, 14, 5, 20, 27, 27, 19]


def test_a_strategy_that_is_wrong_is_not_explained_but_its_problems_are() -> None:
    file = str(STRATEGIES / "googl_daily.yaml")
    said = CliRunner().invoke(app, ["strategies", "explain", file, "--set", "model.type=mpl"])
    assert said.exit_code == 1
    assert "did you mean 'mlp'?" in said.stderr


def test_looking_at_the_language_does_not_wait_for_torch() -> None:
    program = """
import sys
from typer.testing import CliRunner
from ktrdr.cli.main import app
for command in sys.argv[1:]:
    assert CliRunner().invoke(app, command.split()).exit_code == 0, command
assert "torch" not in sys.modules
"""
    names = ("indicators --json", "networks")
    momentum = STRATEGIES / "eurusd_momentum.yaml"
    commands = [*names, f"strategies explain {momentum}", f"strategies validate {momentum}"]
    subprocess.run([sys.executable, "-c", program, *commands], check=True, timeout=60)
