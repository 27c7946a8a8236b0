"""`ktrdr indicators` and its like: generated, complete, and without what takes long."""

import json
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ktrdr.cli.main import app
from ktrdr.cli.vocabulary import FAMILIES
from ktrdr.features.indicators import INDICATORS
from ktrdr.language.catalog import REGISTRIES, entries, entry
from ktrdr.language.example import example_of
from ktrdr.losses import LOSSES
from ktrdr.networks import NETWORKS


def ktrdr(*arguments: str) -> str:
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    return said.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_every_implementation_is_listed_with_all_its_parameters(family: str) -> None:
    listed = {each["name"]: each for each in json.loads(ktrdr(family, "--json"))}
    assert sorted(listed) == REGISTRIES[family].names()
    shown = ktrdr(family)
    for name, implementation in REGISTRIES[family]:
        assert [each["name"] for each in listed[name]["parameters"]] == list(implementation.model_fields)
        assert listed[name]["summary"]
        assert name in shown


@pytest.mark.parametrize("name", INDICATORS.names())
def test_an_indicators_listed_defaults_are_what_it_is_made_with(name: str) -> None:
    listed = entry(INDICATORS, name)
    made = INDICATORS.get(name)()
    given = {each.name: each.default for each in listed.parameters if not each.required}
    assert given == made.model_dump(mode="json")
    assert listed.warmup_bars == made.warmup_bars
    assert tuple(listed.outputs) == made.outputs


def test_one_is_shown_in_full_by_any_of_its_names() -> None:
    shown = ktrdr("indicators", "BBands")
    assert shown.startswith("bollingerbands\n")
    for words in (
        "standard deviations",
        "upper, middle, lower",
        "19 bars",
        "Bollinger on Bollinger Bands (2001)",
        "whole number, 2 to 200",
        "above 0, at most 10",
        "my_bollingerbands: {type: bollingerbands, period: 20",
    ):
        assert words in shown
    former = ktrdr("labels", "triple_barrier")
    assert "Formerly profit_target_atr." in former
    assert "label_lookahead has no effect" in ktrdr("labels", "zigzag")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_example_is_yaml_that_names_what_it_is_an_example_of(family: str) -> None:
    for each in entries(REGISTRIES[family]):
        document = yaml.safe_load(example_of(family, each))
        assert f": {each.name}" in example_of(family, each)
        assert isinstance(document, dict)


def test_the_examples_of_indicators_networks_and_losses_have_valid_parameters() -> None:
    for name in INDICATORS.names():
        (given,) = yaml.safe_load(example_of("indicators", entry(INDICATORS, name)))["indicators"].values()
        INDICATORS.get(given.pop("type")).model_validate(given)
    for name in NETWORKS.names():
        model: Any = yaml.safe_load(example_of("networks", entry(NETWORKS, name)))["model"]
        NETWORKS.get(model["type"]).model_validate(model["architecture"])
    assert yaml.safe_load(example_of("losses", entry(LOSSES, "huber"))) == {
        "training": {"loss": "huber", "huber_delta": 0.01}
    }


def test_an_unknown_name_is_an_error_with_the_nearest() -> None:
    said = CliRunner().invoke(app, ["indicators", "bolingerbands"])
    assert said.exit_code == 1
    assert "Did you mean 'bollingerbands'?" in said.stderr


def test_a_server_is_refused_as_what_is_listed_is_here() -> None:
    said = CliRunner().invoke(app, ["--server", "http://localhost:1", "labels"])
    assert said.exit_code == 1
    assert "works on the machine where it is run" in said.stderr
