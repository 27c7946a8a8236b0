"""Does a network keep what `Network` promises? Asked before each training; needs torch."""

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from ktrdr.errors import PluginError
from ktrdr.networks.base import Network

_SAMPLES = 3


def require_sound(module: nn.Module, network: Network, inputs: int, outputs: int) -> None:
    """Check that a network can be trained, asked one by one, kept and loaded, on a few made-up inputs.

    Nothing is drawn from torch's generator, and the module stays as it is.

    Args:
        module: what the network has built, on the CPU.
        network: any, also of a plug-in.
        inputs: features of a row.
        outputs: classes, or 1.

    Raises:
        PluginError: says what is wrong first.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        fault = next(_faults(module, network, inputs, outputs), None)
    if fault is not None:
        kind = type(network)
        raise PluginError(
            f"The network {kind.__module__}.{kind.__qualname__} breaks its contract: {fault}.",
            fix="Correct it; `ktrdr.networks.Network` says what is expected.",
        )


def _faults(module: nn.Module, network: Network, inputs: int, outputs: int) -> Iterator[str]:
    yield from _faults_of_parameters(module, network.parameter_count(inputs, outputs))
    shape = (_SAMPLES, inputs) if network.window == 1 else (_SAMPLES, network.window, inputs)
    given = torch.linspace(-1, 1, _SAMPLES * network.window * inputs).reshape(shape)
    for dtype in (torch.float32, torch.float64):
        try:
            found, alone = _answers(module, given.to(dtype))
        except Exception as error:  # whatever its code does
            yield f"given inputs {shape} of {dtype}, it fails with {_said(error)}"
            return
        if fault := _fault_of_outputs(found, outputs, dtype):
            yield fault
            return
        if not torch.allclose(torch.cat(alone), found, rtol=1e-3, atol=1e-5):
            yield "what it answers to an input depends on the others of the batch"
    try:
        with torch.device("meta"):
            loaded = network.build(inputs, outputs)
        loaded.load_state_dict(module.state_dict(), assign=True)
        loaded_found, _ = _answers(loaded, given.double())
    except Exception as error:  # likewise
        yield f"it cannot be loaded from its weights: {_said(error)}"
        return
    if not torch.allclose(loaded_found, found, rtol=1e-9):
        yield "loaded from its weights, it answers otherwise: all that it computes with must be among them"


def _answers(module: nn.Module, given: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return what a copy of the module says to the inputs together, and to each alone."""
    copied = deepcopy(module).to(given.dtype).eval()
    return copied(given), [copied(given[at : at + 1]) for at in range(len(given))]


def _faults_of_parameters(module: nn.Module, said: int) -> Iterator[str]:
    parameters = list(module.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    if count != said:
        yield f"it has {count} parameters, but parameter_count says {said}"
    if not count:
        yield "it has no parameters to train"
    for name, parameter in module.named_parameters():
        if parameter.dtype != torch.float32:
            yield f"its parameter {name} is {parameter.dtype}, not torch.float32"
        if not parameter.requires_grad:
            yield f"its parameter {name} has no gradient; a buffer is what is not trained"


def _fault_of_outputs(found: object, outputs: int, dtype: torch.dtype) -> str | None:
    if not isinstance(found, Tensor):
        return f"it returns a {type(found).__name__}, not a tensor"
    if found.shape != (_SAMPLES, outputs):
        return f"for {_SAMPLES} inputs it returns {tuple(found.shape)}, not {(_SAMPLES, outputs)}"
    if found.dtype != dtype:
        return f"of inputs of {dtype} it makes outputs of {found.dtype}"
    if not found.isfinite().all():
        return "its outputs are not finite before it is trained"
    return None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
