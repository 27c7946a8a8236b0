"""What an epoch takes, and in which order."""

import numpy as np
import torch

from ktrdr.training.samples import RowOrder, Samples


def samples(count: int, weights: list[float] | None = None, window: int = 1) -> Samples:
    table = torch.arange(count + window - 1, dtype=torch.float32).unsqueeze(1)
    return Samples(
        table=table,
        ends=torch.arange(window - 1, count + window - 1),
        targets=torch.zeros(count, dtype=torch.int64),
        window=window,
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
    )


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_weights_every_sample_is_taken_once() -> None:
    order = RowOrder(samples(100), generator())
    first, second = order.draw(), order.draw()
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(100))
    assert not torch.equal(first, second)


def test_with_weights_samples_are_drawn_as_often_as_they_count() -> None:
    weights = [0.0, 1.0, 2.0, 5.0, 0.0]
    order = RowOrder(samples(5, weights), generator())
    counts = np.bincount(torch.cat([order.draw() for _ in range(8_000)]).numpy(), minlength=5)
    assert counts[0] == counts[4] == 0
    np.testing.assert_allclose(counts[1:4] / counts.sum(), [1 / 8, 2 / 8, 5 / 8], atol=0.01)


def test_the_same_seed_draws_the_same() -> None:
    weighted = samples(50, [1.0 + number % 3 for number in range(50)])
    assert torch.equal(RowOrder(weighted, generator()).draw(), RowOrder(weighted, generator()).draw())
    assert not torch.equal(RowOrder(weighted, generator()).draw(), RowOrder(weighted, generator(6)).draw())


def test_a_window_of_several_rows_is_given_with_the_oldest_row_first() -> None:
    given = samples(4, window=3).inputs(torch.tensor([3, 0]))
    assert given.squeeze(2).tolist() == [[3, 4, 5], [0, 1, 2]]


def test_a_window_of_one_row_is_that_row() -> None:
    assert samples(4).inputs(torch.tensor([3, 0])).tolist() == [[3], [0]]
