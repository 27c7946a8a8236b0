"""The label and the network of docs/plugins.md keep their contracts."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from ktrdr.labels import LabelSource
from ktrdr.labels.causality import find_label_leak
from ktrdr.labels.contract import label_faults
from ktrdr.language.catalog import parameters_of
from ktrdr.networks import Network
from ktrdr.networks.contract import require_sound
from tests.unit.label_cases import go_on

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()


def of_the_page(name: str) -> Any:
    (code,) = [
        code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"class {name}(" in code
    ]
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) <= 10
    defined: dict[str, Any] = {"__name__": "ktrdr_of_the_page"}
    exec(code, defined)
    return defined[name]


def test_the_label_is_known_when_it_says(eurusd: pd.DataFrame) -> None:
    label = of_the_page("NextBar")()
    assert isinstance(label, LabelSource)
    bars = eurusd.iloc[:500]
    assert label_faults(label, bars, go_on) == ()
    assert find_label_leak(label, bars, go_on, cuts=5) is None


def test_the_network_can_be_trained_and_loaded() -> None:
    network = of_the_page("Direct")(dropout=0.2)
    assert isinstance(network, Network)
    require_sound(network.build(5, 3), network, 5, 3)
    (parameter,) = parameters_of(type(network))
    assert (parameter.name, parameter.default) == ("dropout", 0.1)
