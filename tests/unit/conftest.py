"""What many unit tests use: bars, real and random ones, and an HTTP API with a client of it."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

if TYPE_CHECKING:
    import httpx

    from tests.unit.api_cases import Api

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def eurusd() -> pd.DataFrame:
    """6,225 hourly bars of EUR/USD."""
    return pd.read_csv(REPOSITORY / "data" / "EURUSD_1h.csv", index_col="timestamp", parse_dates=True)


@pytest.fixture(scope="session")
def random_bars() -> Callable[..., pd.DataFrame]:
    """A function that makes bars of a random walk: the same seed, the same bars."""

    def make(rows: int, *, seed: int = 0, freq: str = "1h", step: float = 0.01) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        closes = 100 * np.exp(np.cumsum(rng.normal(0, step, rows)))
        opens = np.concatenate(([100.0], closes[:-1]))
        return pd.DataFrame(
            {
                "open": opens,
                "high": np.maximum(opens, closes) * (1 + rng.uniform(0, step, rows)),
                "low": np.minimum(opens, closes) * (1 - rng.uniform(0, step, rows)),
                "close": closes,
                "volume": rng.uniform(1, 1000, rows),
            },
            index=pd.date_range("2020-01-01", periods=rows, freq=freq, tz="UTC", name="timestamp", unit="us"),
        )

    return make


@pytest.fixture
def api(tmp_path: Path) -> Iterator["Api"]:
    """The HTTP API of a backend of this test's own."""
    # Here: most tests do without it.
    from tests.unit.api_cases import Api

    made = Api.make(tmp_path)
    with made.store:
        yield made


@pytest.fixture
async def client(api: "Api") -> AsyncIterator["httpx.AsyncClient"]:
    """A client of that API."""
    async with api.client() as made:
        yield made
