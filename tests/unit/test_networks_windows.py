"""Networks that are given windows of rows: shapes, parameters, and what they compute, written out."""

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from ktrdr.networks import NETWORKS, Network

FloatArray = npt.NDArray[np.float64]
SEQUENTIAL = ["gru", "lstm", "transformer"]
SMALL: dict[str, dict[str, Any]] = {
    "gru": {"sequence_length": 6, "hidden_size": 8},
    "lstm": {"sequence_length": 6, "hidden_size": 8},
    "transformer": {"sequence_length": 6, "hidden_size": 8, "num_heads": 2, "feedforward_size": 12},
}


def network(name: str, **changes: Any) -> Network:
    return NETWORKS.get(name)(**(SMALL[name] | changes))


def build(of: Network, inputs: int = 5, outputs: int = 3, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return of.build(inputs, outputs)


def windows(count: int, length: int = 6, features: int = 5, seed: int = 2) -> torch.Tensor:
    return torch.randn(count, length, features, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SEQUENTIAL)
@settings(max_examples=25)
@given(
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 4),
    length=st.integers(1, 30),
    layers=st.integers(1, 3),
    heads=st.integers(1, 4),
    per_head=st.integers(1, 12),
)
def test_shapes_and_parameter_counts_are_those_of_the_formulas(
    name: str, inputs: int, outputs: int, length: int, layers: int, heads: int, per_head: int
) -> None:
    shape: dict[str, Any] = {"sequence_length": length, "hidden_size": heads * per_head, "num_layers": layers}
    if name == "transformer":
        shape |= {"num_heads": heads, "feedforward_size": 7 * layers}
    given = NETWORKS.get(name)(**shape)
    module = given.build(inputs, outputs)
    assert given.window == length
    assert given.parameter_count(inputs, outputs) == sum(p.numel() for p in module.parameters())
    assert module(torch.randn(4, length, inputs)).shape == (4, outputs)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_a_window_of_one_row_may_come_as_the_row(name: str) -> None:
    module = build(network(name, sequence_length=1)).eval()
    rows = windows(3, length=1)
    assert torch.equal(module(rows[:, 0]), module(rows))


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_the_defaults_are_those_of_the_page(name: str) -> None:
    given = NETWORKS.get(name)(sequence_length=20)
    assert given.model_dump().items() >= {"hidden_size": 64, "num_layers": 2, "dropout": 0.2}.items()


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_every_row_of_the_window_and_their_order_count(name: str) -> None:
    module = build(network(name)).eval()
    given = windows(1)
    before = module(given)
    for row in range(6):
        changed = given.clone()
        changed[0, row, 0] += 1.0
        assert not torch.allclose(module(changed), before), row
    assert not torch.allclose(module(given[:, [1, 0, 2, 3, 4, 5]]), before)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_a_window_is_answered_by_itself_alone(name: str) -> None:
    module = build(network(name)).eval().double()
    given = windows(7).double()
    alone = torch.cat([module(given[at : at + 1]) for at in range(7)])
    torch.testing.assert_close(module(given), alone, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SEQUENTIAL)
@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_is_drawn_anew_in_training_only_and_without_a_warning(name: str, layers: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = build(network(name, num_layers=layers, dropout=0.5))
    given = windows(4)
    assert not torch.equal(module(given), module(given))
    module.eval()
    assert torch.equal(module(given), module(given))
    without = build(network(name, num_layers=layers, dropout=0.0))
    assert torch.equal(without(given), without(given))


def test_dropout_of_a_recurrent_network_is_between_layers_and_before_the_output() -> None:
    two = build(network("lstm", num_layers=2, dropout=0.3))
    assert isinstance(two.recurrent, nn.LSTM)
    assert two.recurrent.dropout == 0.3
    one = build(network("lstm", num_layers=1, dropout=0.3))
    assert isinstance(one.recurrent, nn.LSTM)
    assert one.recurrent.dropout == 0.0
    for module in (one, two):
        assert isinstance(module.dropout, nn.Dropout)
        assert module.dropout.p == 0.3


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_the_initial_weights_follow_torchs_random_state(name: str) -> None:
    weights = [nn.utils.parameters_to_vector(build(network(name), seed=s).parameters()) for s in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# --- what they compute ----------------------------------------------------------------------------


def weights_of(module: nn.Module) -> dict[str, FloatArray]:
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def sigmoid(values: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-values))


def lstm_by_definition(w: dict[str, FloatArray], rows: FloatArray, layer: int) -> FloatArray:
    weights, biases = w[f"recurrent.weight_ih_l{layer}"], w[f"recurrent.bias_ih_l{layer}"]
    back, back_biases = w[f"recurrent.weight_hh_l{layer}"], w[f"recurrent.bias_hh_l{layer}"]
    hidden = cell = np.zeros(back.shape[1])
    states = []
    for row in rows:
        i, f, g, o = np.split(weights @ row + biases + back @ hidden + back_biases, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        states.append(hidden)
    return np.array(states)


def gru_by_definition(w: dict[str, FloatArray], rows: FloatArray, layer: int) -> FloatArray:
    weights, biases = w[f"recurrent.weight_ih_l{layer}"], w[f"recurrent.bias_ih_l{layer}"]
    back, back_biases = w[f"recurrent.weight_hh_l{layer}"], w[f"recurrent.bias_hh_l{layer}"]
    hidden = np.zeros(back.shape[1])
    states = []
    for row in rows:
        r, z, n = np.split(weights @ row + biases, 3)
        r_back, z_back, n_back = np.split(back @ hidden + back_biases, 3)
        update = sigmoid(z + z_back)
        hidden = (1 - update) * np.tanh(n + sigmoid(r + r_back) * n_back) + update * hidden
        states.append(hidden)
    return np.array(states)


@pytest.mark.parametrize(("name", "definition"), [("lstm", lstm_by_definition), ("gru", gru_by_definition)])
def test_recurrent_networks_by_their_definition(name: str, definition: Any) -> None:
    module = build(network(name)).eval().double()
    weights = weights_of(module)
    for window in windows(3):
        states = window.double().numpy()
        for layer in range(2):
            states = definition(weights, states, layer)
        expected = weights["output.weight"] @ states[-1] + weights["output.bias"]
        found = module(window.double().unsqueeze(0))[0].tolist()
        assert found == pytest.approx(expected, rel=1e-12)


def transformer_by_definition(w: dict[str, FloatArray], rows: FloatArray, heads: int) -> FloatArray:
    def linear(name: str, values: FloatArray) -> FloatArray:
        return w[f"{name}.weight"] @ values + w[f"{name}.bias"]

    def norm(name: str, values: FloatArray) -> FloatArray:
        spread = math.sqrt(float(((values - values.mean()) ** 2).mean()) + 1e-5)
        return (values - values.mean()) / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(value: float) -> float:
        return value * (1 + math.erf(value / math.sqrt(2))) / 2

    states = [linear("embed", row) + w["positions"][at] for at, row in enumerate(rows)]
    size = len(states[0]) // heads
    for layer in ("layers.0", "layers.1"):
        normed = [norm(f"{layer}.attention_norm", state) for state in states]
        queries = [linear(f"{layer}.attention.queries", row) for row in normed]
        both = [np.split(linear(f"{layer}.attention.keys_values", row), 2) for row in normed]
        attended = []
        for asking in queries:
            seen = []
            for head in range(heads):
                of_head = slice(head * size, (head + 1) * size)
                scores = np.exp([asking[of_head] @ key[of_head] / math.sqrt(size) for key, _ in both])
                shares = scores / scores.sum()
                seen.append(
                    sum(share * value[of_head] for share, (_, value) in zip(shares, both, strict=True))
                )
            attended.append(linear(f"{layer}.attention.output", np.concatenate(seen)))
        states = [state + more for state, more in zip(states, attended, strict=True)]
        for at, state in enumerate(states):
            between = linear(f"{layer}.feedforward.0", norm(f"{layer}.feedforward_norm", state))
            between = np.array([gelu(value) for value in between.tolist()])
            states[at] = state + linear(f"{layer}.feedforward.3", between)
    return linear("output", norm("norm", states[-1]))


def test_a_transformer_by_its_definition() -> None:
    module = build(network("transformer")).eval().double()
    for window in windows(3):
        expected = transformer_by_definition(weights_of(module), window.double().numpy(), heads=2)
        assert module(window.double().unsqueeze(0))[0].tolist() == pytest.approx(expected, rel=1e-10)


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEQUENTIAL)
@pytest.mark.parametrize(
    "change",
    [
        {"sequence_length": None},
        {"sequence_length": 0},
        {"sequence_length": 20.0},
        {"sequence_length": [20]},
        {"hidden_size": [64, 32]},
        {"hidden_size": 0},
        {"num_layers": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"hiden_size": 8},
        {"hidden_layers": [8]},
    ],
)
def test_a_wrong_architecture_is_refused(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        network(name, **change)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_the_sequence_length_is_required(name: str) -> None:
    with pytest.raises(ValidationError, match=r"sequence_length\n  Field required"):
        NETWORKS.get(name)()


def test_the_size_of_a_transformer_must_be_a_multiple_of_its_heads() -> None:
    with pytest.raises(ValidationError, match=r"hidden_size \(64\) must be a multiple of num_heads \(5\)"):
        NETWORKS.get("transformer")(sequence_length=20, num_heads=5)
