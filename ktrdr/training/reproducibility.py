"""Same job, same weights: seeded randomness, deterministic kernels, and nothing left behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Randomness:
    """Independent streams, so that drawing more from one changes nothing in another."""

    order: torch.Generator
    """Of the rows in each epoch; on the CPU."""
    dropout: torch.Generator
    """Of the dropout masks; on the device."""


@contextmanager
def reproducible(seed: int, *, device: torch.device, threads: int) -> Iterator[Randomness]:
    """Within it, what torch computes depends on the seed and the number of threads alone.

    Torch's global generator is seeded too, for initial weights and for networks with dropout modules of their
    own. Whatever torch's global state was before is restored at the end.
    """
    initial, order, dropout = (
        int(state) for state in np.random.SeedSequence(seed).generate_state(3, np.uint64)
    )
    before = _State.of(device)
    if device.type == "cuda":
        # cuBLAS is deterministic only with a fixed workspace, which it reads when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
        # Not `use_deterministic_algorithms`, which imports a compiler for the same effect: 1 s, and 115 MB.
        torch.set_deterministic_debug_mode("error")
        torch.backends.cudnn.benchmark = False
        torch.default_generator.manual_seed(initial)
        if device.type == "cuda":
            torch.cuda.manual_seed_all(initial)
        elif device.type == "mps":
            torch.mps.manual_seed(initial)
        yield Randomness(
            order=torch.Generator().manual_seed(order),
            dropout=torch.Generator(device).manual_seed(dropout),
        )
    finally:
        before.restore()


@dataclass(frozen=True, slots=True)
class _State:
    """Torch's global state, as far as a training changes it."""

    threads: int
    dtype: torch.dtype
    deterministic_mode: int
    cudnn_benchmark: bool
    cpu_generator: torch.Tensor
    device_type: str
    device_generators: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, device: torch.device) -> "_State":
        device_generators: tuple[torch.Tensor, ...] = ()
        if device.type == "cuda":
            device_generators = tuple(torch.cuda.get_rng_state_all())
        elif device.type == "mps":
            device_generators = (torch.mps.get_rng_state(),)
        return cls(
            threads=torch.get_num_threads(),
            dtype=torch.get_default_dtype(),
            deterministic_mode=torch.get_deterministic_debug_mode(),
            cudnn_benchmark=torch.backends.cudnn.benchmark,
            cpu_generator=torch.get_rng_state(),
            device_type=device.type,
            device_generators=device_generators,
        )

    def restore(self) -> None:
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)
        torch.set_deterministic_debug_mode(self.deterministic_mode)
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        torch.set_rng_state(self.cpu_generator)
        if self.device_type == "cuda":
            torch.cuda.set_rng_state_all(list(self.device_generators))
        elif self.device_type == "mps":
            torch.mps.set_rng_state(self.device_generators[0])
