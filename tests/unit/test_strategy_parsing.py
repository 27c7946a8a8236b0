"""What a strategy file may say, and what it is told when it says something else."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktrdr.errors import Problem, StrategyError
from ktrdr.strategy import ParsedStrategy, Strategy, load_strategy, parse_strategy

STRATEGIES = Path(__file__).parents[2] / "strategies"

SAMPLE = (STRATEGIES / "eurusd_momentum.yaml").read_text()


def parse(text: str, overrides: Mapping[str, Any] | None = None, *, strict: bool = False) -> ParsedStrategy:
    return parse_strategy(text, source="s.yaml", overrides=overrides, strict=strict)


def changed(old: str, new: str, text: str = SAMPLE) -> str:
    assert text.count(old) == 1, f"{old!r} must stand once in the sample"
    return text.replace(old, new)


def problems(text: str, overrides: Mapping[str, Any] | None = None, *, strict: bool = False) -> list[Problem]:
    with pytest.raises(StrategyError) as caught:
        parse(text, overrides, strict=strict)
    return list(caught.value.problems)


def problem(text: str, overrides: Mapping[str, Any] | None = None) -> Problem:
    found = problems(text, overrides)
    assert len(found) == 1, found
    return found[0]


def line_of(text: str, fragment: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if fragment in line)


# --- what is right


@pytest.mark.parametrize("path", sorted(STRATEGIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bundled_strategy_is_valid_without_a_warning(path: Path) -> None:
    assert load_strategy(path, strict=True).warnings == ()


def test_features_are_in_the_order_of_inputs_then_timeframes_then_memberships() -> None:
    parsed = load_strategy(STRATEGIES / "eurusd_two_timeframes.yaml")
    assert parsed.strategy.feature_plan.feature_ids == (
        "1h_rsi_low",
        "1h_rsi_high",
        "4h_rsi_low",
        "4h_rsi_high",
        "1h_momentum_down",
        "1h_momentum_up",
        "4h_buyers_weak",
        "4h_buyers_strong",
    )


def test_raw_indicators_keep_the_dot_of_their_output() -> None:
    ids = load_strategy(STRATEGIES / "googl_daily.yaml").strategy.feature_plan.feature_ids
    assert ids[4] == "1d_adx_14.plus_di_raw"


def test_a_reference_without_an_output_means_the_primary_one() -> None:
    text = changed("indicator: adx_14.adx", "indicator: adx_14")
    columns = parse(text).strategy.feature_plan.columns
    assert [c.output for c in columns if c.fuzzy_set == "trend_strength"] == ["adx", "adx"]


def test_defaults_are_those_of_the_language() -> None:
    text = SAMPLE[: SAMPLE.index("training:\n  epochs")] + "training: {}\ndecisions: {}\n"
    options = parse(text).strategy.training
    assert (options.epochs, options.learning_rate, options.batch_size) == (100, 0.001, 32)
    assert (options.optimizer, options.weight_decay, options.gradient_clip) == ("adam", 1e-4, 1.0)
    assert options.early_stopping is None
    assert options.lr_scheduler is None
    assert parse(text).strategy.label_source == "zigzag"
    split = options.data_split
    assert (split.train, split.validation) == (0.7, 0.15)
    assert split.test == pytest.approx(0.15)


def test_training_options_of_the_model_section_count_where_the_top_level_is_silent() -> None:
    text = changed("    dropout: 0.2\n", "    dropout: 0.2\n  training:\n    epochs: 3\n    momentum: 0.5\n")
    parsed = parse(changed("optimizer: adam\n", "optimizer: sgd\n", text))
    assert parsed.strategy.training.epochs == 60
    assert parsed.strategy.training.momentum == 0.5
    (warning,) = parsed.warnings
    assert warning.path == "model.training.epochs"
    assert "training.epochs says otherwise" in warning.message
    assert warning.line == line_of(text, "epochs: 3")


def test_former_parameter_names_are_understood_with_a_warning() -> None:
    text = changed("fast_period: 12", "fast: 10")
    parsed = parse(text)
    macd: Any = parsed.strategy.feature_plan.indicators["macd"]
    assert macd.fast_period == 10
    assert [w.path for w in parsed.warnings] == ["indicators.macd.fast"]
    assert "fast_period" in parsed.warnings[0].message


def test_a_key_without_effect_is_a_warning_and_a_problem_when_strict() -> None:
    text = SAMPLE + "deployment:\n  target_symbols: {mode: universal}\n"
    (warning,) = parse(text).warnings
    assert (warning.path, warning.line) == ("deployment", line_of(text, "deployment:"))
    assert [found.path for found in problems(text, strict=True)] == ["deployment"]


def test_numbers_in_exponent_form_are_numbers() -> None:
    assert (
        parse(changed("learning_rate: 0.001", "learning_rate: 1e-3")).strategy.training.learning_rate == 1e-3
    )


def test_merges_and_anchors_are_read() -> None:
    text = changed(
        "  rsi_14:\n    type: rsi\n    period: 14\n", "  rsi_14: &rsi\n    type: rsi\n    period: 14\n"
    )
    text = changed("  macd:\n", "  slow:\n    <<: *rsi\n    period: 28\n  macd:\n", text)
    text = changed(
        "  - { fuzzy_set: rsi, ", "  - { raw_indicator: slow, timeframes: all }\n  - { fuzzy_set: rsi, ", text
    )
    slow: Any = parse(text).strategy.feature_plan.indicators["slow"]
    assert slow.period == 28


# --- the file


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match=r"gone\.yaml: cannot be read: No such file"):
        load_strategy(tmp_path / "gone.yaml")


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(StrategyError, match="not UTF-8"):
        load_strategy(path)


def test_what_is_not_yaml_is_refused_with_line_and_column() -> None:
    found = problem("name: x\nindicators: [1, 2\nmodel: {}\n")
    assert "not valid YAML" in found.message
    assert found.line == 3


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a list\n", "just text\n", "42\n"])
def test_what_is_not_a_mapping_is_refused(text: str) -> None:
    found = problem(text)
    assert "mapping" in found.message or "empty" in found.message


def test_a_key_that_is_there_twice_is_refused() -> None:
    text = changed("  batch_size: 32\n", "  batch_size: 32\n  epochs: 5\n")
    found = problem(text)
    assert found.message == "'epochs' is there twice"
    assert found.line == line_of(text, "epochs: 5")


def test_a_bomb_of_aliases_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "expands to more" in problem("\n".join(lines)).message


def test_a_document_within_itself_is_refused() -> None:
    assert "expands to more" in problem("name: &a\n  inner: *a\n").message


def test_deep_nesting_is_refused() -> None:
    assert "expands to more" in problem("name: " + "[" * 500 + "]" * 500).message


def test_tags_make_no_objects() -> None:
    found = problem(changed("description: Hourly", "description: !!python/object/apply:os.system [ls] #"))
    assert "could not determine a constructor" in found.message or "have no place" in found.message or found


# --- keys, types, parameters


@pytest.mark.parametrize(
    ("old", "new", "path", "suggestion"),
    [
        ("description: Hourly", "desciption: Hourly", "desciption", "description"),
        ("    symbol: EURUSD", "    simbol: EURUSD", "training_data.symbols.simbol", "symbol"),
        ("    timeframe: 1h", "    timefrme: 1h", "training_data.timeframes.timefrme", "timeframe"),
        ("    fast_period: 12", "    fast_peroid: 12", "indicators.macd.fast_peroid", "fast_period"),
        ("    dropout: 0.2", "    dropuot: 0.2", "model.architecture.dropuot", "dropout"),
        ("  epochs: 60", "  epoch: 60", "training.epoch", "epochs"),
        ("    patience: 12", "    patence: 12", "training.early_stopping.patence", "patience"),
        ("{ train: 0.7, val", "{ trian: 0.7, val", "training.data_split.trian", "train"),
        ("  focal_gamma: 2.0", "  focal_gama: 2.0", "training.focal_gama", "focal_gamma"),
        (
            "    pt_multiplier: 3.0",
            "    pt_multiplyer: 3.0",
            "training.labels.pt_multiplyer",
            "pt_multiplier",
        ),
        (
            "  confidence_threshold",
            "  confidence_treshold",
            "decisions.confidence_treshold",
            "confidence_threshold",
        ),
        (
            "{ fuzzy_set: volatility, time",
            "{ fuzy_set: volatility, time",
            "nn_inputs.3.fuzy_set",
            "fuzzy_set",
        ),
    ],
)
def test_an_unknown_key_is_an_error_with_its_line_and_the_nearest_name(
    old: str, new: str, path: str, suggestion: str
) -> None:
    text = changed(old, new)
    found = next(found for found in problems(text) if found.path == path)
    assert "unknown key" in found.message
    assert found.suggestion == suggestion
    assert found.line == line_of(text, new)
    assert found.describe("s.yaml").startswith(f"s.yaml:{found.line}:")
    assert found.describe("s.yaml").endswith(f"(did you mean '{suggestion}'?)")


@pytest.mark.parametrize(
    ("old", "new", "path", "suggestion"),
    [
        ("type: rsi\n", "type: rsii\n", "indicators.rsi_14.type", "rsi"),
        (
            "type: bollingerbandwidth",
            "type: bolingerbandwidth",
            "indicators.bandwidth_20.type",
            "bollingerbandwidth",
        ),
        (
            "[35, 50, 65] ",
            "{ type: triangle, parameters: [35, 50, 65] } ",
            "fuzzy_sets.rsi.neutral.type",
            "triangular",
        ),
        ("  type: mlp", "  type: mpl", "model.type", "mlp"),
        ("loss: focal ", "loss: foccal ", "training.loss", "focal"),
        ("optimizer: adam", "optimizer: adm", "training.optimizer", "adam"),
        ("source: triple_barrier", "source: tripple_barrier", "training.labels.source", "triple_barrier"),
        ("indicator: rsi_14", "indicator: rsi_41", "fuzzy_sets.rsi.indicator", "rsi_14"),
        (
            "indicator: macd.histogram",
            "indicator: macd.histogramm",
            "fuzzy_sets.macd_histogram.indicator",
            "histogram",
        ),
        ("fuzzy_set: day_move", "fuzzy_set: day_moves", "nn_inputs.4.fuzzy_set", "day_move"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest_one(
    old: str, new: str, path: str, suggestion: str
) -> None:
    text = changed(old, new)
    found = problem(text)
    assert (found.path, found.suggestion) == (path, suggestion)
    assert "available: " in found.message
    assert found.line == line_of(text, new.strip())


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        (
            "    period: 24",
            "    period: 24.0",
            "indicators.roc_24.period",
            "must be a whole number, not 24.0",
        ),
        (
            "    period: 24",
            "    period: '24'",
            "indicators.roc_24.period",
            "must be a whole number, not '24'",
        ),
        ("    period: 24", "    period: 0", "indicators.roc_24.period", "at least 1, not 0"),
        ("[35, 50, 65]", "[35, 50]", "fuzzy_sets.rsi.neutral", "has 3 parameters"),
        ("[35, 50, 65]", "[65, 50, 35]", "fuzzy_sets.rsi.neutral", "a ≤ b ≤ c must hold"),
        ("[35, 50, 65]", "[35, fifty, 65]", "fuzzy_sets.rsi.neutral", "list of numbers"),
        ("parameters: [0, 0.25]", "parameters: [0, -1]", "fuzzy_sets.day_move.flat.parameters", "sigma"),
        ("  batch_size: 32", "  batch_size: -1", "training.batch_size", "at least 1"),
        ("train: 0.7,", "train: 0.8,", "training.data_split", "sum 1"),
        ("    timeframe: 1h", "    timeframe: hourly", "training_data.timeframes.timeframe", "hourly"),
        ("volatility, timeframes: all", "volatility, timeframes: [1d]", "nn_inputs.3.timeframes.0", "1d"),
        (
            "{ fuzzy_set: volatility,",
            "{ fuzzy_set: volatility, raw_indicator: rsi_14,",
            "nn_inputs.3",
            "exactly one",
        ),
        ("indicator: rsi_14", "indicator: rsi_14.value", "fuzzy_sets.rsi.indicator", "single output"),
        (
            "mode: single\n    symbol: EURUSD",
            "mode: multi_symbol",
            "training_data.symbols.list",
            "is missing",
        ),
        (
            "mode: single\n    symbol: EURUSD",
            "mode: single\n    list: [EURUSD, GBPUSD]",
            "training_data.symbols.list",
            "needs mode: multi_symbol",
        ),
        (
            "mode: single\n    symbol: EURUSD",
            "mode: multi_symbol\n    list: [EURUSD, GBPUSD, EURUSD]",
            "training_data.symbols.list",
            "names EURUSD twice",
        ),
        (
            "mode: single\n    symbol: EURUSD",
            "mode: multi_symbol\n    symbol: USDJPY\n    list: [EURUSD, GBPUSD]",
            "training_data.symbols.symbol",
            "contradicts list",
        ),
        ("name: eurusd_momentum", "name: ../escape", "name", "pattern"),
        (
            "output_format: classification",
            "output_format: clasification",
            "decisions.output_format",
            "classification",
        ),
    ],
)
def test_a_wrong_value_is_an_error_at_its_place(old: str, new: str, path: str, words: str) -> None:
    found = problem(changed(old, new))
    assert found.path == path
    assert words in found.message
    assert found.line is not None


def test_a_missing_section_is_named() -> None:
    text = SAMPLE[: SAMPLE.index("decisions:")]
    assert [(found.path, found.message) for found in problems(text)] == [("decisions", "is missing")]


def test_all_problems_are_reported_in_one_go_in_the_order_of_the_file() -> None:
    text = changed("type: rsi\n", "type: rsx\n")
    text = changed("  type: mlp", "  type: mlq", text)
    text = changed("  batch_size: 32", "  batch_size: 0", text)
    found = problems(text)
    assert [p.path for p in found] == ["indicators.rsi_14.type", "model.type", "training.batch_size"]
    assert [p.line for p in found] == sorted(p.line or 0 for p in found)


def test_a_feature_twice_is_an_error() -> None:
    text = changed(
        "  - { fuzzy_set: rsi, ", "  - { fuzzy_set: rsi, timeframes: [1h] }\n  - { fuzzy_set: rsi, "
    )
    found = problem(text)
    assert (found.path, found.message) == (
        "nn_inputs.1",
        "makes 1h_rsi_oversold, which an item before it makes too",
    )


def test_an_unused_indicator_is_a_warning() -> None:
    text = changed("  roc_24:\n", "  idle:\n    type: rsi\n  roc_24:\n")
    assert [(w.path, w.message) for w in parse(text).warnings] == [
        ("indicators.idle", "is not used by any feature")
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("source: triple_barrier", "source: forward_return #", "needs decisions.output_format: regression"),
        ("loss: focal ", "loss: huber ", "is a loss for regression; use cross_entropy or focal"),
    ],
)
def test_labels_and_losses_must_fit_the_output_format(old: str, new: str, words: str) -> None:
    text = changed(old, new)
    text = text.replace("    pt_multiplier: 3.0\n    sl_multiplier: 3.0\n    max_holding_period: 24\n", "")
    assert words in problem(text).message


def test_regression_needs_a_cost_model() -> None:
    text = (STRATEGIES / "googl_daily.yaml").read_text()
    text = "\n".join(line for line in text.splitlines() if "cost_model" not in line)
    assert problem(text).path == "decisions.cost_model"


# --- overrides


def test_overrides_change_values_before_they_are_checked() -> None:
    parsed = parse(
        SAMPLE,
        {"training.epochs": 5, "indicators.rsi_14.period": 21, "model.architecture.hidden_layers.0": 8},
    )
    strategy: Strategy = parsed.strategy
    network: Any = strategy.network
    rsi: Any = strategy.feature_plan.indicators["rsi_14"]
    assert (strategy.training.epochs, network.hidden_layers, rsi.period) == (5, (8, 16), 21)
    assert isinstance(parsed.effective["training"], dict)
    assert parsed.effective["training"]["epochs"] == 5
    assert parsed.sha256 == parse(SAMPLE).sha256


def test_an_override_may_add_a_key_that_has_a_default() -> None:
    assert parse(SAMPLE, {"training.gradient_clip": 0.5}).strategy.training.gradient_clip == 0.5


@pytest.mark.parametrize(
    ("path", "value", "suggestion"),
    [
        ("training.epoch", 5, "epochs"),
        ("trainin.epochs", 5, "training"),
        ("training.early_stopping.patienc", 1, "patience"),
    ],
)
def test_an_override_of_nothing_is_an_error_that_names_the_nearest(
    path: str, value: int, suggestion: str
) -> None:
    found = problem(SAMPLE, {path: value})
    assert found.suggestion == suggestion
    assert found.line is None


def test_a_wrong_override_is_shown_as_one() -> None:
    found = problem(SAMPLE, {"training.epochs": "many"})
    assert found.path == "--set training.epochs"


# --- anything at all

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in items for place in ((*path, key), *_places(value, (*path, key)))]


_PLACES = _places(yaml.safe_load(SAMPLE))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(_PLACES), st.sampled_from(["drop", "rename", "replace"]), _VALUES),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_a_file_says_it_is_read_or_refused(changes: list[tuple[tuple[Any, ...], str, Any]]) -> None:
    data = yaml.safe_load(SAMPLE)
    for path, change, value in changes:
        here = data
        for part in path[:-1]:
            try:
                here = here[part]
            except (KeyError, IndexError, TypeError):
                break
        else:
            key = path[-1]
            if not isinstance(here, dict | list) or (isinstance(here, dict) and key not in here):
                continue
            if isinstance(here, list) and (not isinstance(key, int) or key >= len(here)):
                continue
            if change == "drop":
                del here[key]
            elif change == "rename" and isinstance(here, dict):
                here[str(value)[:20]] = here.pop(key)
            else:
                here[key] = value
    text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    # Whatever else it raises fails the test.
    with suppress(StrategyError):
        assert parse(text).strategy.feature_plan.columns


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_refused_as_a_strategy_error(text: str) -> None:
    with pytest.raises(StrategyError):
        parse(text)
