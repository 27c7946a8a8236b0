"""Everything that is wrong with a strategy is said in one go, each at its place, and nothing else."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ktrdr.errors import Problem, StrategyError
from ktrdr.strategy import parse_strategy

SAMPLE = (Path(__file__).parents[2] / "strategies" / "eurusd_momentum.yaml").read_text()


def problems(text: str, **overrides: Any) -> tuple[Problem, ...]:
    with pytest.raises(StrategyError) as caught:
        parse_strategy(text, source="s.yaml", overrides=overrides)
    return caught.value.problems


# Each `!` stands for one mistake on its line.
MISTAKES = """\
name: ../escape                                        # !
desciption: mistyped                                   # !
version: 3.0
training_data:
  symbols: { mode: several, symbol: 5 }                # !!
  timeframes: { mode: multi_timeframe, list: [1h, 4hours, 1h], base_timeframe: 1h }   # !!
  start_date: 2017-13-45                               # !
  date_range: { end: yesterday, ends: 2018-01-01 }    # !!
indicators:
  rsi_14: { type: rsii, period: 14 }                   # !
  macd: { type: macd, fast_peroid: 12, slow_period: 26.0, fast: 3, fast_period: 5 }   # !!!
  adx_14: { period: 14 }                               # !
  roc_24: { type: roc, period: 24, period: 25 }        # !
  ema.20: { type: ema }                                # !
  stochastic: { type: stochastic }
  sma_20: sma                                          # !
fuzzy_sets:
  rsi:
    indicator: rsi_14
    low: [50, 30, 10]                                  # !
    middle: [1, 2]                                     # !
    high: { type: triangel, parameters: [1, 2, 3], weight: 1 }   # !!
  change:
    indicator: roc_42                                  # !
    down: [a, b, c]                                    # !
  trend: { indicator: stochastic.m, up: { type: gaussian } }   # !!
  nothing: { indicator: roc_24 }                       # !
nn_inputs:
  - { fuzzy_set: rsy, timeframes: all }                # !
  - { fuzzy_set: trend, timeframes: [1h, 2h, 3h], normalization: zscore }   # !
  - { raw_indicator: roc_24.value, timeframes: 1h, normalization: log }   # !!
  - { timeframes: all }                                # !
  - { fuzzy_set: trend, raw_indicator: roc_24 }        # !
  - a string                                           # !
model:
  type: mpl                                            # !
  architecture: [32]                                   # !
  training: { epochs: 0, epoch: 3 }                    # !!
trainig:                                               # !
  epochs: 5
training:
  learning_rate: fast                                  # !
  batch_size: 0                                        # !
  optimizer: { type: adm, learning_rat: 1 }            # !!
  early_stopping: { patience: 0, monitor: loss }       # !!
  lr_scheduler: { type: cosine, gamma: 2 }             # !!
  data_split: { train: 0.9, validation: 0.3 }          # !
  loss: foccal                                         # !
  labels: { source: triple_barier }                    # !
decisions:
  output_format: regresion                             # !
  cost_model: { round_trip_cost: -1 }                  # !!
  filters: { min_signal_separation: -4, min_signal_separatio: 3 }    # !!
"""


def test_a_file_with_many_mistakes_is_told_all_of_them_at_their_lines() -> None:
    expected = {
        number: line.rpartition("#")[2].count("!") for number, line in enumerate(MISTAKES.splitlines(), 1)
    }
    found = problems(MISTAKES)
    told = Counter(each.line for each in found)
    wrong = [
        (number, MISTAKES.splitlines()[number - 1], [str(each) for each in found if each.line == number])
        for number, count in expected.items()
        if told[number] != count
    ]
    assert wrong == []
    assert told.total() > 50
    assert [(each.line, each.column) for each in found] == sorted((each.line, each.column) for each in found)
    assert all(each.message for each in found)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("  batch_size: 32", "  batch_size: 0", "0"),
        ("type: rsi\n", "type: rsy\n", "rsy"),
        ("[35, 50, 65]", "[65, 50, 35]", "[65"),
        ("parameters: [0, 0.25]", "parameters: [0, -1]", "[0, -1]"),
        ("fuzzy_set: volatility, timeframes: all", "fuzzy_set: volatility, timeframes: [1h, 1d]", "1d]"),
        ("  batch_size: 32", "  batch_siz: 32", "batch_siz:"),
        ("  optimizer: adam", "  optimizer: { type: adam, learning: 3 }", "learning:"),
        ("    hidden_layers: [32, 16]", "    hidden_layers: [32, 0]", "0]"),
        ("symbol: EURUSD", "symbol: ' '", "' '"),
    ],
)
def test_a_wrong_value_is_shown_where_it_stands_and_an_unknown_key_where_that_does(
    old: str, new: str, place: str
) -> None:
    assert SAMPLE.count(old) == 1
    text = SAMPLE.replace(old, new)
    (found,) = problems(text)
    assert found.line is not None
    assert found.column is not None
    assert text.splitlines()[found.line - 1][found.column - 1 :].startswith(place)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  optimizer: adam", "  optimizer: [adam]", "must be text or a mapping"),
        ("  batch_size: 32", "  early_stopping: x", "must be true or false or a mapping, not 'x'"),
        ("[35, 50, 65]", "{ type: gaussian, parameters: [50, 0] }", "sigma: must be above 0, not 0.0"),
        ("volatility, timeframes: all", "volatility, timeframes: [5]", "must be text, not 5"),
    ],
)
def test_what_a_value_may_be_is_said_in_words_of_the_file(old: str, new: str, message: str) -> None:
    text = SAMPLE.replace(
        "  early_stopping:\n    patience: 12\n    min_delta: 0.0001\n    monitor: val_loss\n", ""
    )
    (found,) = problems(text.replace(old, new))
    assert found.message == message


def test_a_mistyped_section_hides_nothing() -> None:
    text = SAMPLE.replace("indicators:\n", "indicatores:\n").replace("  batch_size: 32", "  batch_size: 0")
    found = problems(text)
    assert [(each.path, each.suggestion) for each in found] == [
        ("indicators", None),
        ("indicatores", "indicators"),
        ("training.batch_size", None),
    ]
    assert found[0].message == "is missing"


@pytest.mark.parametrize(
    "section", ["training_data", "indicators", "fuzzy_sets", "nn_inputs", "model", "training", "decisions"]
)
def test_a_section_that_is_something_else_is_one_problem(section: str) -> None:
    found = problems(SAMPLE.replace(f"\n{section}:\n", f"\n{section}: 5\nx-{section}:\n"))
    assert [each.path for each in found] == [section, f"x-{section}"]


def test_a_file_of_an_older_version_is_told_how_to_convert_it() -> None:
    former = """\
name: old
version: "1.0"
indicators:
  - { name: rsi, feature_id: rsi_14, period: 14 }
fuzzy_sets:
  rsi_14: { low: [0, 20, 40] }
"""
    (found,) = problems(former)
    assert (found.path, found.line, found.column) == ("indicators", 3, 1)
    assert "as in versions 1 and 2" in found.message
    assert "nn_inputs" in found.message


def test_a_wrong_key_in_a_section_of_its_own_does_not_make_up_others() -> None:
    """A value that is wrong is as if it were right for all that refers to it."""
    text = SAMPLE.replace("output_format: classification", "output_format: clasification")
    assert [each.path for each in problems(text)] == ["decisions.output_format"]
    text = SAMPLE.replace("train: 0.7,", "train: 1.7,")
    assert [each.path for each in problems(text)] == ["training.data_split.train"]
    text = SAMPLE.replace("    symbol: EURUSD\n", "    symbol: [EURUSD]\n")
    assert [each.path for each in problems(text)] == ["training_data.symbols.symbol"]


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("name: eurusd_momentum", "risk_management: {}\nname: eurusd_momentum", "risk_management"),
        ("    period: 24", "    period: 24\n    color: red", "indicators.roc_24.color"),
        ("  batch_size: 32", "  batch_size: 32\n  shuffle: true", "training.shuffle"),
        ("  type: mlp", "  type: mlp\n  input_size: 15", "model.input_size"),
        ("  optimizer: adam", "  optimizer: { type: adam, eps: 3 }", "training.optimizer.eps"),
    ],
)
def test_a_key_that_nothing_reads_is_a_warning_as_in_the_former_system_and_a_problem_when_strict(
    old: str, new: str, path: str
) -> None:
    text = SAMPLE.replace(old, new, 1)
    (warning,) = parse_strategy(text, source="s.yaml").warnings
    assert warning.path == path
    assert "nothing reads this key; allowed: " in warning.message
    with pytest.raises(StrategyError, match="nothing reads this key"):
        parse_strategy(text, source="s.yaml", strict=True)


def test_what_is_set_for_one_run_is_never_without_effect() -> None:
    (found,) = problems(SAMPLE, **{"training.shuffle": True})
    assert found.path == "--set training.shuffle"


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ("  loss: focal ", "  loss_function: focal ", ["training.loss_function"]),
        ("    signal_period: 9\n", "    signal_period: 9\n    period: 12\n", ["indicators.macd.period"]),
        ("name: eurusd_momentum", "hypothesis: it will\nname: eurusd_momentum", ["hypothesis"]),
        (
            "  architecture:\n    hidden_layers: [32, 16]\n    activation: relu\n    dropout: 0.2\n",
            "  hidden_layers: [32, 16]\n  dropout: 0.2\n",
            ["model.hidden_layers", "model.dropout"],
        ),
        (
            "    indicator: macd.histogram\n",
            "    indicator: macd\n    output: histogram\n",
            ["fuzzy_sets.macd_histogram.output"],
        ),
    ],
)
def test_older_forms_mean_what_they_meant_with_a_warning(old: str, new: str, paths: list[str]) -> None:
    assert SAMPLE.count(old) == 1
    former = parse_strategy(SAMPLE.replace(old, new), source="s.yaml")
    today = parse_strategy(SAMPLE, source="s.yaml")
    assert [warning.path for warning in former.warnings] == paths
    assert former.strategy == today.strategy


def test_a_loss_may_be_a_mapping_of_its_own_parameters() -> None:
    def loss(text: str) -> Any:
        return parse_strategy(text, source="s.yaml", strict=True).strategy.training.loss

    named = SAMPLE.replace("  focal_gamma: 2.0", "  focal_gamma: 3.0")
    mapping = SAMPLE.replace("  loss: focal ", "  loss: { type: focal, gamma: 3.0 } ")
    mapping = mapping.replace("  focal_gamma: 2.0\n", "")
    assert loss(named) == loss(mapping)
    wrong = mapping.replace("gamma: 3.0", "gamma: -1, gama: 2")
    assert [each.path for each in problems(wrong)] == ["training.loss.gamma", "training.loss.gama"]
    assert [each.path for each in problems(mapping.replace("type: focal, ", ""))] == ["training.loss.type"]


# --- overrides


def test_an_override_may_make_a_section() -> None:
    text = SAMPLE[: SAMPLE.index("  early_stopping:")] + SAMPLE[SAMPLE.index("  data_split:") :]
    changes = {"training.early_stopping.patience": 4, "training.early_stopping.monitor": "val_accuracy"}
    stopping = parse_strategy(text, source="s.yaml", overrides=changes).strategy.training.early_stopping
    assert stopping is not None
    assert (stopping.patience, stopping.monitor) == (4, "val_accuracy")


@pytest.mark.parametrize(
    ("path", "shown", "suggestion"),
    [
        ("trainin.epochs", "--set trainin", "training"),
        ("training.lr_sheduler.type", "--set training.lr_sheduler", "lr_scheduler"),
        ("training.early_stopping.patienc", "--set training.early_stopping.patienc", "patience"),
        ("indicators.rsi_41.period", "indicators.rsi_41", "rsi_14"),
    ],
)
def test_a_mistyped_override_names_the_nearest(path: str, shown: str, suggestion: str) -> None:
    (found,) = problems(SAMPLE, **{path: 5})
    assert (found.path, found.suggestion, found.line) == (shown, suggestion, None)
