"""The JSON Schema of the language: it takes what is right, and refuses what is often wrong."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from typer.testing import CliRunner

from ktrdr.cli.main import app
from ktrdr.features.indicators import INDICATORS
from ktrdr.language.catalog import REGISTRIES, entries
from ktrdr.language.schema import language_schema, main
from tests.unit.test_strategy_documentation import CHANGES, EXAMPLE, with_change

ROOT = Path(__file__).parents[2]
STRATEGIES = sorted(ROOT.glob("strategies/*.yaml"))
SAMPLE = (ROOT / "strategies" / "eurusd_momentum.yaml").read_text()
SCHEMA = language_schema()
VALIDATOR = Draft7Validator(SCHEMA)


def complaints(text: str) -> list[tuple[str, str]]:
    # As JSON, so that dates are text.
    data: Any = json.loads(json.dumps(yaml.safe_load(text), default=str))
    found = VALIDATOR.iter_errors(data)
    return [(".".join(map(str, each.absolute_path)), each.message) for each in found]


def test_the_schema_in_the_repository_is_current_and_is_one() -> None:
    assert main(["--check", str(ROOT / "schemas")]) == 0
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.stem)
def test_every_bundled_strategy_is_right_and_names_the_schema(path: Path) -> None:
    text = path.read_text()
    assert complaints(text) == []
    named = re.match(r"# yaml-language-server: \$schema=(.+)\n", text)
    assert named is not None
    assert (path.parent / named[1]).resolve() == ROOT / "schemas" / "strategy.json"


@pytest.mark.parametrize("change", ["{}", *CHANGES], ids=range(len(CHANGES) + 1))
def test_every_example_of_the_documentation_is_right(change: str) -> None:
    changed = with_change(yaml.safe_load(EXAMPLE), yaml.safe_load(change))
    assert complaints(yaml.safe_dump(changed)) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("name: eurusd_momentum", "name: ../escape", "name"),
        ("training_data:", "trainig_data:", ""),
        ("    mode: single\n    symbol", "    mode: several\n    symbol", "training_data.symbols.mode"),
        ("    timeframe: 1h", "    timefrme: 1h", "training_data.timeframes"),
        ("type: rsi\n", "type: rsii\n", "indicators.rsi_14.type"),
        ("fast_period: 12", "fast_peroid: 12", "indicators.macd"),
        ("fast_period: 12", "fast_period: 1000", "indicators.macd.fast_period"),
        ("    period: 24", "    period: many", "indicators.roc_24.period"),
        ("    indicator: rsi_14\n", "", "fuzzy_sets.rsi"),
        ("[35, 50, 65]", "[35, 50]", "fuzzy_sets.rsi.neutral"),
        ("parameters: [0, 0.25]", "parameters: [0, 1, 2]", "fuzzy_sets.day_move.flat.parameters"),
        ("{ type: gaussian", "{ type: gausian", "fuzzy_sets.day_move.flat.type"),
        ("{ fuzzy_set: volatility,", "{ fuzy_set: volatility,", "nn_inputs.3"),
        ("volatility, timeframes: all", "volatility", "nn_inputs.3"),
        ("volatility, time", "volatility, normalization: zscore, time", "nn_inputs.3"),
        ("  type: mlp", "  type: mpl", "model.type"),
        ("    dropout: 0.2", "    dropout: 2", "model.architecture.dropout"),
        ("    dropout: 0.2", "    hidden_size: 64", "model.architecture"),
        ("optimizer: adam", "optimizer: adm", "training.optimizer"),
        ("  loss: focal", "  loss: foccal", "training.loss"),
        ("    patience: 12", "    patence: 12", "training.early_stopping"),
        ("{ train: 0.7,", "{ train: 70,", "training.data_split.train"),
        ("source: triple_barrier", "source: triple_barier", "training.labels.source"),
        ("    max_holding_period: 24", "    horizon: 24", "training.labels"),
        ("output_format: classification", "output_format: clasification", "decisions.output_format"),
    ],
)
def test_a_typical_mistake_is_marked_at_its_place(old: str, new: str, where: str) -> None:
    assert SAMPLE.count(old) == 1
    assert where in [place for place, _ in complaints(SAMPLE.replace(old, new))]


def test_old_names_and_keys_without_effect_are_taken_and_marked_as_such() -> None:
    assert complaints(SAMPLE.replace("fast_period: 12", "fast: 12") + "deployment: {}\n") == []
    macd = next(
        each["then"]
        for each in SCHEMA["definitions"]["indicator"]["allOf"]
        if "macd" in each["if"]["properties"]["type"]["enum"]
    )
    assert macd["properties"]["fast"]["deprecationMessage"] == "An old name; write `fast_period`."
    assert SCHEMA["properties"]["deployment"]["deprecated"]


def test_every_name_is_in_it_with_what_it_is() -> None:
    offered = SCHEMA["definitions"]["indicator"]["properties"]["type"]
    said = dict(zip(offered["enum"], offered["enumDescriptions"], strict=True))
    assert {each.name: each.summary for each in entries(INDICATORS)}.items() <= said.items()
    text = json.dumps(SCHEMA)
    for registry in REGISTRIES.values():
        assert [name for name in registry.names() if f'"{name}"' not in text] == []


def test_the_command_prints_it_or_writes_it_to_a_file(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["strategies", "schema"])
    assert json.loads(printed.stdout) == SCHEMA
    written = CliRunner().invoke(app, ["strategies", "schema", "--output", str(tmp_path / "s.json")])
    assert (written.exit_code, written.stdout) == (0, "")
    assert (tmp_path / "s.json").read_text() == printed.stdout
    refused = CliRunner().invoke(app, ["strategies", "schema", "--output", str(tmp_path)])
    assert refused.exit_code == 1
    assert "cannot be written" in refused.stderr
