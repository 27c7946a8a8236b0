"""Numbers, times and sizes as people read them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

MISSING = "–"
_THIN = "\u202f"
_NBSP = "\u00a0"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Measure:
    """How a metric is called and written."""

    title: str
    share: bool = False
    """Whether it is a share, written in per cent."""
    higher_is_better: bool = True
    chosen: bool = False
    """Whether it is a setting rather than a measurement, so that trailing zeros would mean nothing."""


_MEASURES: Mapping[str, Measure] = {
    "accuracy": Measure("Accuracy", share=True),
    "balanced_accuracy": Measure("Balanced accuracy", share=True),
    "macro_f1": Measure("Macro F1"),
    "log_loss": Measure("Log loss", higher_is_better=False),
    "sign_accuracy": Measure("Sign accuracy", share=True),
    "r2": Measure("R²"),
    "mse": Measure("Mean squared error", higher_is_better=False),
    "mae": Measure("Mean absolute error", higher_is_better=False),
    "huber": Measure("Huber loss", higher_is_better=False),
    "train_loss": Measure("Training loss", higher_is_better=False),
    "val_loss": Measure("Validation loss", higher_is_better=False),
    "train_accuracy": Measure("Training accuracy", share=True),
    "val_accuracy": Measure("Validation accuracy", share=True),
    "learning_rate": Measure("Learning rate", chosen=True),
}


def measure(name: str) -> Measure:
    """Return how a metric is written; an unknown one as a number, less being better of a loss."""
    plain = name.replace("_", " ")
    return _MEASURES.get(name) or Measure(plain[:1].upper() + plain[1:], higher_is_better="loss" not in name)


def in_usual_order(names: Iterable[str]) -> list[str]:
    """Return names of metrics with the best known first; the others follow as they come."""
    usual = list(_MEASURES)
    return sorted(names, key=lambda name: usual.index(name) if name in usual else len(usual))


def metric(value: float | None, name: str) -> str:
    """Return a metric's value."""
    if value is None:
        return MISSING
    kind = measure(name)
    return percent(value) if kind.share else plain(value) if kind.chosen else number(value)


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with so many significant digits."""
    if value is None:
        return MISSING
    if math.isfinite(value) and 1e-4 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{decimals}f}".replace(",", _THIN).replace("-", "−")
    if not value or not math.isfinite(value):
        return f"{value:.0f}".replace("-", "−")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}{_NBSP}×{_NBSP}10{str(int(exponent)).translate(_SUPERSCRIPTS)}".replace("-", "−")


def plain(value: float) -> str:
    """Return a number that someone chose, without the zeros that a measured one would have."""
    return f"{value:.4g}".replace("-", "−")


def count(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,}".replace(",", _THIN).replace("-", "−")


def counted(value: int, noun: str) -> str:
    """Return ``1 row``, ``2 rows``."""
    return f"{count(value)} {noun}" + ("" if value == 1 else "s")


def percent(share: float | None, decimals: int = 1) -> str:
    """Return a share in per cent."""
    return MISSING if share is None else f"{100 * share:.{decimals}f}{_NBSP}%".replace("-", "−")


def points(share: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def date_time(time: datetime) -> str:
    """Return a time in UTC, to the minute, where the reader knows that it is UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"


def utc(time: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{date_time(time)} UTC"


def duration(seconds: float) -> str:
    """Return a duration."""
    if seconds < 1:
        return f"{1000 * seconds:.0f}{_NBSP}ms" if seconds >= 0.001 else f"<{_NBSP}1{_NBSP}ms"
    if seconds < 60:
        return f"{seconds:.2f}{_NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{_NBSP}h {minutes:02d}{_NBSP}min" if hours else f"{minutes}{_NBSP}min {rest:02d}{_NBSP}s"


def size(byte_count: int) -> str:
    """Return a size in bytes."""
    value = float(byte_count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f}{_NBSP}B" if unit == "B" else f"{value:.1f}{_NBSP}{unit}"
        value /= 1000
    return f"{value:.1f}{_NBSP}GB"


def english_list(items: list[str]) -> str:
    """Return ``a``, ``a and b``, or ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
