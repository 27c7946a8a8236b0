import os
from pathlib import Path

import pytest
import torch

from ktrdr.errors import TrainingError
from ktrdr.training.device import open_device
from ktrdr.training.memory import peak_memory_bytes, reset_peak_memory
from ktrdr.training.reproducibility import reproducible

CPU = torch.device("cpu")


def draws(seed: int) -> list[torch.Tensor]:
    with reproducible(seed, device=CPU, threads=1) as randomness:
        return [
            torch.rand(4),
            torch.randperm(9, generator=randomness.order),
            torch.rand(4, generator=randomness.dropout),
        ]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_seed_alone_decides_what_is_drawn() -> None:
    first = draws(7)
    torch.manual_seed(99)
    torch.rand(3)
    assert same(draws(7), first)
    assert not any(torch.equal(a, b) for a, b in zip(draws(8), first, strict=True))


def test_seeds_of_63_bits_are_all_different() -> None:
    assert not same(draws(2**63 - 1), draws(2**62 - 1))


def test_the_global_state_is_restored_also_after_an_error() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    threads = torch.get_num_threads()

    def fail() -> None:
        with reproducible(1, device=CPU, threads=3):
            assert torch.get_num_threads() == 3
            assert torch.are_deterministic_algorithms_enabled()
            torch.rand(100)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_another_default_type_does_not_get_in() -> None:
    expected = draws(3)
    torch.set_default_dtype(torch.float64)
    try:
        assert same(draws(3), expected)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "not a device"),
        ("", "not a device"),
        ("cuda:99", "not available"),
        ("xpu", "not supported"),
        ("meta", "not supported"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_what_to_do(name: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        open_device(name)
    assert caught.value.fix


def test_the_processor_is_always_there() -> None:
    assert open_device("cpu") == CPU


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="Linux only")
def test_the_peak_is_that_since_the_reset() -> None:
    block = bytearray(b"x") * (200 << 20)
    high = peak_memory_bytes()
    del block
    reset_peak_memory()
    assert peak_memory_bytes() < high - (100 << 20)
    assert peak_memory_bytes() >= int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2
