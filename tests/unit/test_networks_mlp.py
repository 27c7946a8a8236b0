import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ktrdr.networks import NETWORKS
from ktrdr.networks.mlp import Mlp


def test_each_hidden_layer_is_linear_activation_dropout_and_the_last_is_linear() -> None:
    module = Mlp(hidden_layers=(64, 32), dropout=0.3, activation="tanh").build(12, 3)
    assert [str(layer) for layer in module.children()] == [
        "Linear(in_features=12, out_features=64, bias=True)",
        "Tanh()",
        "Dropout(p=0.3, inplace=False)",
        "Linear(in_features=64, out_features=32, bias=True)",
        "Tanh()",
        "Dropout(p=0.3, inplace=False)",
        "Linear(in_features=32, out_features=3, bias=True)",
    ]


@pytest.mark.parametrize("hidden", [(), (1,), (64, 32), (5, 4, 3, 2)])
def test_the_parameter_count_is_that_of_the_network(hidden: tuple[int, ...]) -> None:
    network = Mlp(hidden_layers=hidden)
    built = sum(parameter.numel() for parameter in network.build(7, 3).parameters())
    assert network.parameter_count(7, 3) == built


@pytest.mark.parametrize(
    ("activation", "layer"),
    [("relu", nn.ReLU), ("tanh", nn.Tanh), ("sigmoid", nn.Sigmoid), ("leaky_relu", nn.LeakyReLU)],
)
def test_every_activation_is_that_of_torch(activation: Any, layer: type[nn.Module]) -> None:
    module = Mlp(hidden_layers=(4,), activation=activation).build(2, 3)
    assert isinstance(list(module.children())[1], layer)


def test_the_initial_weights_follow_torchs_random_state() -> None:
    network = Mlp(hidden_layers=(4,))
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(nn.utils.parameters_to_vector(network.build(2, 3).parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"hidden_layers": 64},
        {"hidden_layers": "64"},
        {"hidden_layers": ["64"]},
        {"hidden_layers": [64.0]},
        {"hidden_layers": [0]},
        {"hidden_layers": [4097]},
        {"hidden_layers": [8] * 33},
        {"hidden_layers": [8], "dropout": 1.0},
        {"hidden_layers": [8], "dropout": -0.1},
        {"hidden_layers": [8], "activation": "swish"},
        {"hidden_layers": [8], "droput": 0.1},
    ],
)
def test_a_wrong_architecture_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Mlp(**parameters)


def test_a_list_of_units_as_yaml_gives_it_is_accepted() -> None:
    assert Mlp.model_validate({"hidden_layers": [64, 32]}) == Mlp(hidden_layers=(64, 32))
    assert NETWORKS.get("MLP") is Mlp


_IN_A_PROCESS = """
import sys
from ktrdr.networks import NETWORKS
import ktrdr.losses

networks = [NETWORKS.get("mlp")(hidden_layers=[8])]
networks += [NETWORKS.get(name)(sequence_length=9) for name in ("lstm", "gru", "transformer")]
for network in networks:
    network.parameter_count(2, 3)
print("torch" in sys.modules)
import torch
with torch.device("meta"):
    for network in networks:
        network.build(2, 3)
print("sympy" in sys.modules)
"""


def test_checking_an_architecture_imports_no_torch_and_loading_one_no_compiler() -> None:
    ran = subprocess.run([sys.executable, "-c", _IN_A_PROCESS], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["False", "False"]
