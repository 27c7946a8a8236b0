"""Implementations of other distributions: found, used, and no harm to others when they are broken."""

from collections.abc import Sequence
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from ktrdr.doctor import Health, examine_plugins
from ktrdr.errors import PluginError, UnknownNameError
from ktrdr.features.indicators import INDICATORS, Indicator
from ktrdr.registry import Registry
from tests.unit.plugin_cases import install

GOOD = '''
from ktrdr.features.indicators import Indicator


class Range(Indicator):
    """Height of each bar."""

    @property
    def warmup_bars(self):
        return 0

    def compute(self, bars):
        return {"": (bars["high"] - bars["low"]).to_numpy()}


class Unfinished(Indicator):
    """Computes nothing yet."""
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def registry_of(site: Path) -> "Registry[Indicator]":
    """Return a registry with one indicator of its own, which finds what is installed there."""

    def find(group: str) -> Sequence[EntryPoint]:
        found = (each for made in distributions(path=[str(site)]) for each in made.entry_points)
        return sorted((each for each in found if each.group == group), key=lambda each: each.name)

    registry: Registry[Indicator] = Registry("indicator type", Indicator, "ktrdr.indicators", find=find)
    registry.register("rsi", "rsiindicator")(INDICATORS.get("rsi"))
    return registry


def test_a_plugin_is_an_implementation_like_others(site: Path) -> None:
    install(site, "bar-ranges", GOOD, {"ktrdr.indicators:range": "Range"}, version="2.1")
    registry = registry_of(site)
    assert registry.names() == ["range", "rsi"]
    assert "RANGE" in registry
    implementation = registry.get("Range")
    assert implementation.__doc__ == "Height of each bar."
    assert registry.get("range") is implementation
    assert registry.name_of(implementation) == "range"
    assert [name for name, _ in registry] == ["range", "rsi"]
    assert str(registry.plugin_of("range")) == "bar-ranges 2.1"
    assert registry.plugin_of("rsi") is None
    with pytest.raises(UnknownNameError) as caught:
        registry.get("rnge")
    assert caught.value.nearest == "range"


@pytest.mark.parametrize(
    ("code", "value", "words"),
    [
        ("import nowhere_to_be_found", "Range", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemError('bad day')", "Range", "SystemError: bad day"),
        (GOOD, "Renamed", "AttributeError"),
        (GOOD, "Unfinished", "lacks compute, warmup_bars, which every Indicator has"),
        ("Range = 5", "Range", "is no subclass of ktrdr.features.indicators.base.Indicator"),
    ],
    ids=["import", "error", "attribute", "abstract", "no class"],
)
def test_a_broken_plugin_is_named_and_harms_no_other(
    code: str, value: str, words: str, site: Path, request: pytest.FixtureRequest
) -> None:
    # Modules stay imported, so each case has its own.
    name = f"broken-{request.node.callspec.id.replace(' ', '-')}"
    install(site, name, code, {"ktrdr.indicators:broken": value})
    install(site, f"good-{name}", GOOD, {"ktrdr.indicators:range": "Range"})
    registry = registry_of(site)
    assert registry.get("rsi") is INDICATORS.get("rsi")
    assert registry.get("range").__name__ == "Range"
    with pytest.raises(PluginError) as caught:
        registry.get("broken")
    assert f"{name} 1.0" in caught.value.message
    assert words in caught.value.message
    assert caught.value.fix == f"Correct {name}, or uninstall it."
    assert [name for name, _ in registry] == ["range", "rsi"]
    assert [str(each) for each in registry.faults()] == [str(caught.value)]


@pytest.mark.parametrize("name", ["rsi", "rsiindicator"])
def test_a_plugin_with_a_name_of_ours_is_an_error_that_names_both(name: str, site: Path) -> None:
    install(site, "other-rsi", GOOD, {f"ktrdr.indicators:{name}": "Range"})
    with pytest.raises(PluginError, match=rf"'{name}' .* of ktrdr itself and of other-rsi 1\.0"):
        registry_of(site).get(name)


def test_the_doctor_says_which_there_are_and_what_is_wrong(site: Path) -> None:
    install(site, "doctors-range", GOOD, {"ktrdr.indicators:range": "Range"})
    install(site, "doctors-rsi", GOOD, {"ktrdr.indicators:rsi": "Range"})
    found = list(examine_plugins({"indicators": registry_of(site)}))
    assert [(each.health, each.fix is None) for each in found] == [(Health.OK, True), (Health.PROBLEM, False)]
    assert found[0].detail == "range (indicators) of doctors-range 1.0"
    assert "doctors-rsi 1.0" in found[1].detail


def test_two_plugins_of_one_name_are_an_error_that_names_both(site: Path) -> None:
    install(site, "one-range", GOOD, {"ktrdr.indicators:range": "Range"})
    install(site, "two-range", GOOD, {"ktrdr.indicators:range": "Range"})
    registry = registry_of(site)
    with pytest.raises(PluginError) as caught:
        registry.get("range")
    assert "one-range 1.0" in caught.value.message
    assert "two-range 1.0" in caught.value.message
    assert registry.get("rsi") is INDICATORS.get("rsi")
