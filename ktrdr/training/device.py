"""The device to train on."""

import torch

from ktrdr.errors import TrainingError


def open_device(name: str) -> torch.device:
    """Return the torch device of that name (``cpu``, ``cuda``, ``cuda:1``, ``mps``).

    Raises:
        TrainingError: there is no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"'{name}' is not a device.", fix="Name cpu, cuda, cuda:N or mps.") from error
    match device.type:
        case "cpu":
            return torch.device("cpu")
        case "cuda":
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            available = (device.index or 0) < count
            found = f"torch {torch.__version__} sees {count} CUDA devices"
        case "mps":
            available = torch.backends.mps.is_available()
            found = f"torch {torch.__version__} sees no Metal device"
        case other:
            raise TrainingError(f"Training on '{other}' is not supported.", fix="Name cpu, cuda or mps.")
    if not available:
        raise TrainingError(
            f"The device '{name}' is not available: {found}.",
            fix="Train on cpu, or install a build of torch for the device.",
        )
    return device
