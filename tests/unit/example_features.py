"""Feature matrices of the example strategies, with a hash that small differences of rounding leave alone.

Run as a module to write what `test_examples` compares with, after a change that is meant to change them::

    python -m tests.unit.example_features
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ktrdr.backend.preparation import PreparedTraining, prepare_training
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.features.compute import FeatureMatrix, compute_features, compute_indicators, drop_warmup
from ktrdr.market.context import read_context
from ktrdr.market.directory import BarDirectory
from ktrdr.strategy import load_strategy

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = tuple(sorted((REPOSITORY / "strategies").glob("*.yaml")))
GOLDEN = Path(__file__).with_name("example_features.json")


def feature_matrices(path: Path) -> dict[str, FeatureMatrix]:
    """Return the features of a strategy on the bundled bars, by symbol."""
    strategy = load_strategy(path).strategy
    directory = BarDirectory(REPOSITORY / "data")
    series = read_context(strategy.context, REPOSITORY / "data")
    context = {each.source_id: each.table for each in series}
    found = {}
    for symbol in strategy.symbols:
        bars = {
            timeframe: directory.load(symbol, timeframe, strategy.start, strategy.end)
            for timeframe in strategy.timeframes
        }
        values = compute_indicators(strategy.feature_plan, bars, lambda: None, context)
        matrix = compute_features(strategy.feature_plan, values, bars, lambda: None, context)
        found[symbol], _ = drop_warmup(matrix)
    return found


def describe(matrices: dict[str, FeatureMatrix]) -> dict[str, object]:
    """Return what is kept of the matrices."""
    return {
        symbol: {
            "rows": len(matrix.times),
            "first": matrix.times[0].isoformat(),
            "sha256": {
                feature_id: _hash(matrix.values[:, number])
                for number, feature_id in enumerate(matrix.feature_ids)
            },
        }
        for symbol, matrix in matrices.items()
    }


def _hash(values: npt.NDArray[np.float32]) -> str:
    # To 1/4096 of the largest: processors differ in the last digit of an exponential, and what lies on the
    # border of two steps by design (0, 1/2, 1) lies in the middle of one here.
    largest = float(np.abs(values).max()) or 1.0
    steps = np.floor(values.astype(np.float64) / largest * 4096 + 0.4321).astype(np.int64)
    return hashlib.sha256(steps.tobytes()).hexdigest()[:16]


def prepared(
    path: Path, home: Path, overrides: dict[str, object]
) -> tuple[PreparedTraining, DirectoryBlobStore]:
    """Return a strategy that is ready to be trained on the bundled bars."""
    blobs = DirectoryBlobStore(home / "blobs")
    training = prepare_training(
        path,
        strategies_dir=REPOSITORY / "strategies",
        data_dir=REPOSITORY / "data",
        blobs=blobs,
        overrides=overrides,  # type: ignore[arg-type]  # JSON
    )
    return training, blobs


if __name__ == "__main__":
    golden = {path.stem: describe(feature_matrices(path)) for path in EXAMPLES}
    GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
