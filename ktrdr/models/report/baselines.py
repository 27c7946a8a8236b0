"""What each baseline says of the test rows, as far as the rows tell."""

import numpy as np

from ktrdr.models.metadata import ModelMetadata
from ktrdr.models.report.rows import ClassifiedRows, Floats, Integers, RegressedRows, Rows

_TITLES = {
    "majority_class": "majority class",
    "training_mean": "training mean",
    "last_return_sign": "last return's sign",
}


def baseline_title(name: str) -> str:
    """Return a baseline's name as people say it."""
    return _TITLES.get(name) or name.replace("_", " ")


def baseline_names(metadata: ModelMetadata) -> list[str]:
    """Return the baselines, the simplest first; JSON has them by the alphabet."""
    usual = list(_TITLES)
    return sorted(metadata.baselines, key=lambda name: usual.index(name) if name in usual else len(usual))


def class_guess(baseline: str, rows: ClassifiedRows, metadata: ModelMetadata) -> Integers | None:
    """Return the class that a baseline says of each test row; None if that is not known."""
    classes = metadata.classes
    if baseline == "majority_class":
        counts = np.bincount(rows.label[rows.parts == 0], minlength=len(classes))
        return np.full(rows.tested, counts.argmax())
    if baseline == "last_return_sign" and {"BUY", "HOLD", "SELL"} <= set(classes):
        by_sign = np.array([classes.index(name) for name in ("SELL", "HOLD", "BUY")])
        guess: Integers = by_sign[np.sign(_last_returns(rows)).astype(np.int64) + 1]
        return guess
    return None


def value_guess(baseline: str, rows: RegressedRows) -> Floats | None:
    """Return the value that a baseline says of each test row; None if that is not known."""
    if baseline == "training_mean":
        return np.full(rows.tested, rows.label[rows.parts == 0].mean())
    return _last_returns(rows) if baseline == "last_return_sign" else None


def _last_returns(rows: Rows) -> Floats:
    # Since the symbol's row before, which is the bar before except where rows were left out.
    by_symbol = np.argsort(rows.symbols, kind="stable")
    close = rows.close[by_symbol]
    is_first = np.diff(rows.symbols[by_symbol], prepend=-1) != 0
    before = np.where(is_first, close, np.roll(close, 1))
    returns = np.empty(len(rows))
    returns[by_symbol] = close / before - 1
    return returns[rows.test]
