"""What a trained network says of features: the one way, in evaluation and for users of the model."""

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ktrdr.features.windows import Windows

if TYPE_CHECKING:
    from torch import nn

OutputType = Literal["classification", "regression"]
Float32Array = npt.NDArray[np.float32]

_MIN_ROWS, _MAX_ROWS = 64, 4096  # with fewer, a large network is read from memory more than it computes
_MULTIPLICATIONS = 100_000_000  # some 50 ms of one core


def rows_at_a_time(parameters: int, window: int = 1) -> int:
    """Return how many inputs a network of so many parameters can be given between two checks, 50 ms apart.

    Over two million parameters, each used once per row of a window, it takes longer, up to 0.2 s.
    """
    return max(_MIN_ROWS // window, 1, min(_MAX_ROWS, _MULTIPLICATIONS // max(1, parameters * window)))


def predict(
    module: "nn.Module", inputs: Windows, output_type: OutputType, check: Callable[[], None]
) -> Float32Array:
    """Return class probabilities (input, class), or predicted values (input, 1).

    They are computed in double precision on the CPU and then rounded. In single precision the last bits would
    depend on how many rows are asked for at once, on threads and on the device.

    Args:
        module: the network; not changed.
        inputs: normalized; at least one.
        output_type: what the outputs are.
        check: called at least every 50 ms of work; raises to stop.
    """
    import torch

    double = deepcopy(module).to(device="cpu", dtype=torch.float64).eval()
    step = rows_at_a_time(sum(parameter.numel() for parameter in double.parameters()), inputs.length)
    chunks: list[Float32Array] = []
    with torch.inference_mode():
        for first in range(0, len(inputs), step):
            check()
            part = inputs.part(slice(first, first + step))
            outputs = double(torch.from_numpy(part.values().astype(np.float64)))
            if output_type == "classification":
                outputs = outputs.softmax(1)
            chunks.append(outputs.to(torch.float32).numpy())
    return np.concatenate(chunks)
