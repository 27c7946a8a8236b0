"""Every network type is trained, repeated, kept and loaded by what does so for all of them."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ktrdr.features.windows import Windows
from ktrdr.losses.focal import Focal
from ktrdr.models.bundle import unpack
from ktrdr.models.inference import predict
from ktrdr.models.loaded import load_model
from ktrdr.networks import NETWORKS, Network
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.flat import FlatParameters
from ktrdr.training.progress import SilentObserver
from ktrdr.training.steps import AutogradStep
from ktrdr.training.weighted_loss import WeightedLoss
from tests.unit.training_cases import QUICK, job

INPUTS, OUTPUTS, LENGTH = 6, 3, 5
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "mlp": {"hidden_layers": [8, 5]},
    "lstm": {"sequence_length": LENGTH, "hidden_size": 8, "num_layers": 2},
    "gru": {"sequence_length": LENGTH, "hidden_size": 8, "num_layers": 2},
    "transformer": {"sequence_length": LENGTH, "hidden_size": 8, "num_heads": 2, "feedforward_size": 16},
}
NETWORK_TYPES = list(ARCHITECTURES)


def test_every_network_type_is_tested() -> None:
    assert sorted(NETWORK_TYPES) == NETWORKS.names()


def network(name: str) -> Network:
    return NETWORKS.get(name).model_validate(ARCHITECTURES[name])


def batches(of: Network, count: int, rows: int = 32) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    shape = (rows, INPUTS) if of.window == 1 else (rows, of.window, INPUTS)
    return [
        (torch.randn(shape, generator=generator), torch.randint(0, OUTPUTS, (rows,), generator=generator))
        for _ in range(count)
    ]


def trained(of: Network, steps: int = 8) -> tuple[nn.Module, FlatParameters]:
    """Some steps of gradient descent, from one seed."""
    torch.manual_seed(11)
    module = of.build(INPUTS, OUTPUTS)
    flat = FlatParameters(module)
    step = AutogradStep(module, flat, WeightedLoss(Focal(), None))
    with step.grad_mode():
        for inputs, targets in batches(of, steps):
            step.begin(len(inputs))
            step(inputs, targets, torch.empty(len(inputs), OUTPUTS))
            flat.clip_gradient(1.0)
            flat.vector.sub_(flat.gradient, alpha=0.1)
    return module, flat


@pytest.mark.parametrize("name", NETWORK_TYPES)
def test_the_gradient_in_one_vector_is_that_of_the_parameters(name: str) -> None:
    of = network(name)
    torch.manual_seed(11)
    plain = of.build(INPUTS, OUTPUTS)
    viewed = deepcopy(plain)
    flat = FlatParameters(viewed)
    ((inputs, targets),) = batches(of, 1)
    outputs = torch.empty(len(inputs), OUTPUTS)
    step = AutogradStep(viewed, flat, WeightedLoss(Focal(), None))

    torch.manual_seed(5)  # of the dropout
    step.begin(len(inputs))
    with step.grad_mode():
        step(inputs, targets, outputs)
    torch.manual_seed(5)
    expected = plain.train()(inputs)
    WeightedLoss(Focal(), None).mean(expected, targets).backward()  # type: ignore[no-untyped-call]  # torch's

    torch.testing.assert_close(outputs, expected)
    gradient = torch.cat([p.grad.reshape(-1) for p in plain.parameters() if p.grad is not None])
    assert len(gradient) == of.parameter_count(INPUTS, OUTPUTS)
    torch.testing.assert_close(flat.gradient, gradient)


@pytest.mark.parametrize("name", NETWORK_TYPES)
def test_what_is_written_into_the_vector_is_what_the_network_computes_with(name: str) -> None:
    of = network(name)
    module, flat = trained(of)
    module.eval()
    ((inputs, _),) = batches(of, 1)
    before = module(inputs)
    kept = flat.vector.clone()
    flat.vector.mul_(0.5)
    assert not torch.allclose(module(inputs), before)
    flat.vector.copy_(kept)
    assert torch.equal(module(inputs), before)


@pytest.mark.parametrize("name", NETWORK_TYPES)
def test_the_same_seed_gives_the_same_weights_to_the_last_bit(name: str) -> None:
    first, again = (trained(network(name))[1].vector for _ in range(2))
    assert first.numpy().tobytes() == again.numpy().tobytes()
    assert first.isfinite().all()


@pytest.mark.parametrize("name", NETWORK_TYPES)
def test_predictions_do_not_depend_on_how_many_are_asked_for(name: str) -> None:
    of = network(name)
    module, _ = trained(of)
    table = np.random.default_rng(4).normal(size=(400, INPUTS)).astype(np.float32)
    inputs = Windows(table, np.arange(of.window - 1, 400), of.window)
    together = predict(module, inputs, "classification", lambda: None)
    for part in (slice(0, 1), slice(3, 90), slice(380, None)):
        alone = predict(module, inputs.part(part), "classification", lambda: None)
        np.testing.assert_array_equal(alone, together[part])
    module.eval()
    direct = module(torch.from_numpy(inputs.values())).softmax(1).detach().numpy()
    np.testing.assert_allclose(together, direct, atol=1e-5)


@pytest.mark.parametrize("name", NETWORK_TYPES)
def test_weights_that_were_kept_are_loaded_into_a_network_without_memory(name: str) -> None:
    of = network(name)
    module, _ = trained(of)
    before = torch.get_rng_state()
    with torch.device("meta"):
        loaded = of.build(INPUTS, OUTPUTS)
    loaded.load_state_dict(load(save(module.state_dict())), assign=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}
    ((inputs, _),) = batches(of, 1)
    assert torch.equal(loaded.eval()(inputs), module.eval()(inputs))


@pytest.mark.parametrize("name", NETWORK_TYPES)
def test_a_training_gives_the_same_bytes_again_and_a_model_that_says_the_same(
    name: str, eurusd: pd.DataFrame, tmp_path: Path
) -> None:
    bars = eurusd.iloc[:700]
    changes: dict[str, Any] = {key: value for key, value in QUICK.items() if "architecture" not in key}
    changes |= {"training.epochs": 2, "model.type": name, "model.architecture": ARCHITECTURES[name]}
    asked = replace(job(bars, tmp_path), overrides=changes)
    files = [TrainingExecutor().run(asked, SilentObserver(), ManualCancellation()).bundle for _ in range(2)]
    assert files[0] == files[1]

    directory = tmp_path / "model"
    directory.mkdir()
    for file, content in unpack(files[0]).items():
        (directory / file).write_bytes(content)
    found = load_model(directory).predict(bars)
    table = pq.read_table(pa.BufferReader((directory / "evaluation.parquet").read_bytes())).to_pandas()
    expected = table.set_index("timestamp")
    for column in found.columns:
        assert (found.loc[expected.index, column] == expected[f"p_{column}"]).all()
