"""The plug-in of docs/plugins.md: installed beside ktrdr, and trained with by real processes."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from ktrdr.errors import PluginError, StrategyError
from ktrdr.models.loaded import load_model
from ktrdr.strategy import load_strategy
from tests.e2e.installation import MOMENTUM, REPOSITORY, Installation
from tests.unit.plugin_cases import install

PAGE = (REPOSITORY / "docs" / "plugins.md").read_text()
FIRST = "  - { fuzzy_set: rsi, timeframes: all }\n"


@pytest.mark.xdist_group("cli")
def test_the_example_of_the_page_is_trained_with_and_its_model_says_so(tmp_path: Path) -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (project,) = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]
    named = {
        f"{group}:{name}": value.partition(":")[2]
        for group, points in project["project"]["entry-points"].items()
        for name, value in points.items()
    }
    assert len(code.strip().splitlines()) <= 12
    site = tmp_path / "site"
    install(site, project["project"]["name"], code, named, version=project["project"]["version"])
    text = MOMENTUM.read_text()
    text = text.replace("indicators:\n", "indicators:\n  height: { type: barrange }\n", 1)
    raw = "  - { raw_indicator: height, timeframes: all, normalization: zscore }\n"
    strategy = tmp_path / "with_plugin.yaml"
    strategy.write_text(text.replace(FIRST, FIRST + raw))

    with pytest.raises(StrategyError, match="unknown indicator type 'barrange'"):
        load_strategy(strategy)  # in this process, which does not have it
    with Installation(tmp_path) as installation:
        installation.variables["PYTHONPATH"] = f"{site}:{REPOSITORY}"
        options = ("--set", "training.epochs=2", "--end", "2017-04-30", "--json")
        trained = installation.train(*options, strategy=strategy)
        assert trained.wait() == 0, trained.stderr

    (metadata_file,) = installation.models.glob("*/*_v1/metadata.json")
    metadata = json.loads(metadata_file.read_text())
    assert "1h_height_raw" in metadata["resolved_features"]
    assert metadata["plugins"] == [
        {
            "group": "ktrdr.indicators",
            "name": "barrange",
            "distribution": "ktrdr-ranges",
            "version": "1.0",
        }
    ]
    assert "ktrdr-ranges" in (metadata_file.parent / "report.html").read_text()
    with pytest.raises(PluginError) as caught:
        load_model(metadata_file.parent)
    assert "needs 'barrange'" in caught.value.message
    assert caught.value.fix == "Install ktrdr-ranges==1.0 where ktrdr is installed."
