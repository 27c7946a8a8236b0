"""What the runner can train on; ``python -m host_agent.devices`` prints it as JSON."""

import json
import sys

import psutil
import torch

from host_agent.frames import Ready


def describe_device(wanted: str, *, import_seconds: float) -> Ready:
    """Return the device to train on: the one wanted, or for ``auto`` the best there is.

    A device that is wanted by name and missing is returned as it is; the executor refuses it and says why.
    """
    device = _best() if wanted == "auto" else wanted
    if device.startswith("cuda") and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.device(device))
        return Ready(
            device=device,
            device_name=properties.name,
            memory_bytes=properties.total_memory,
            import_seconds=import_seconds,
        )
    name = "Apple GPU" if device == "mps" else f"{psutil.cpu_count() or 1} CPUs"
    return Ready(
        device=device,
        device_name=name,
        memory_bytes=psutil.virtual_memory().total,
        import_seconds=import_seconds,
    )


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def available_devices() -> list[Ready]:
    """Return every kind of device that there is, the one that ``auto`` means first."""
    names = dict.fromkeys((_best(), "cpu"))
    return [describe_device(name, import_seconds=0.0) for name in names]


if __name__ == "__main__":
    described = [
        {"device": found.device, "name": found.device_name, "memory_bytes": found.memory_bytes}
        for found in available_devices()
    ]
    sys.stdout.write(json.dumps(described))
