"""`evaluation.parquet`: the labelled rows that were used, with the model's answer to each."""

from dataclasses import dataclass, fields, replace
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ktrdr.errors import ModelCorruptError
from ktrdr.models.bundle import EVALUATION_FILE
from ktrdr.models.metadata import ModelMetadata, SplitRecord

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PARTS = ("train", "validation", "test")
TEST = PARTS.index("test")


@dataclass(frozen=True, slots=True)
class _TimedRows:
    times_ms: Integers
    """Open times of the bars, milliseconds since 1970, UTC."""
    parts: Integers
    """Positions in `PARTS`."""
    close: Floats
    symbols: Integers
    """Positions in the metadata's training symbols."""

    def of_symbol(self, number: int) -> Self:
        """Return the rows of one symbol."""
        mine = self.symbols == number
        return replace(self, **{field.name: getattr(self, field.name)[mine] for field in fields(self)})

    def __len__(self) -> int:
        return len(self.times_ms)

    @property
    def tested(self) -> int:
        """How many rows the test part has, which is the last."""
        return int(np.count_nonzero(self.parts == TEST))

    @property
    def test(self) -> slice:
        """The rows of the test part."""
        return slice(len(self) - self.tested, len(self))


@dataclass(frozen=True, slots=True)
class ClassifiedRows(_TimedRows):
    """Rows of a classifier; arrays of one length, in order of time."""

    label: Integers
    """Class numbers."""
    prediction: Integers
    probabilities: Floats
    """(row, class)."""


@dataclass(frozen=True, slots=True)
class RegressedRows(_TimedRows):
    """Rows of a regression; arrays of one length, in order of time."""

    label: Floats
    """Returns, as shares of the price."""
    prediction: Floats


Rows: TypeAlias = ClassifiedRows | RegressedRows


def read_rows(parquet: bytes, metadata: ModelMetadata) -> Rows:
    """Read the evaluation and hold it against the metadata.

    Raises:
        ModelCorruptError: it cannot be read, or is not what the metadata says.
    """
    try:
        several = ["symbol"] if len(metadata.training_symbols) > 1 else []
        named = ["part", "label", "prediction", *several]
        file = pq.ParquetFile(pa.BufferReader(parquet), read_dictionary=named)
        _require_rows(file.metadata.num_rows, metadata.split)  # before anything is decompressed
        columns = ["timestamp", "close", *named]
        if metadata.output_type == "classification":
            columns += [f"p_{name}" for name in metadata.classes]
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise _corrupt(f"lacks the column {', '.join(missing)}")
        table = file.read(columns=columns)
        times_ms = _times_ms(table["timestamp"])
        parts = _positions(table["part"], PARTS, "part")
        close = _floats(table["close"])
        symbols = np.zeros(len(parts), dtype=np.int64)
        if several:
            symbols = _positions(table["symbol"], metadata.training_symbols, "symbol")
        if np.any(np.diff(times_ms) < 0) or np.any(np.diff(parts) < 0):
            raise _corrupt("is not in order of time")
        if metadata.output_type == "regression":
            return RegressedRows(
                times_ms, parts, close, symbols, _floats(table["label"]), _floats(table["prediction"])
            )
        return ClassifiedRows(
            times_ms,
            parts,
            close,
            symbols,
            _positions(table["label"], metadata.classes, "label"),
            _positions(table["prediction"], metadata.classes, "prediction"),
            np.column_stack([_floats(table[f"p_{name}"]) for name in metadata.classes]),
        )
    except KeyError as error:  # by Arrow, of a column that is to be read as a dictionary
        raise _corrupt(f"lacks the column {error.args[0].decode()}") from error
    except (pa.ArrowException, OSError, OverflowError) as error:
        raise _corrupt(f"cannot be read: {error}") from error


def _require_rows(rows: int, split: SplitRecord) -> None:
    expected = split.train.rows + split.validation.rows + split.test.rows
    if rows != expected or not split.test.rows:
        raise _corrupt(
            f"has {rows:,} rows; by the metadata it should have {expected:,}, some of them for the test"
        )


def _times_ms(column: pa.ChunkedArray) -> Integers:
    # Not safe, because a time may be given in nanoseconds.
    milliseconds = column.cast(pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.int64())
    return _numbers(milliseconds.combine_chunks()).astype(np.int64)


def _floats(column: pa.ChunkedArray) -> Floats:
    return _numbers(column.cast(pa.float64()).combine_chunks()).astype(np.float64)


def _positions(column: pa.ChunkedArray, names: tuple[str, ...], what: str) -> Integers:
    if not pa.types.is_dictionary(column.type):
        raise _corrupt(f"has a {what} that is not text")
    encoded = column.unify_dictionaries().combine_chunks()
    texts = encoded.dictionary.to_pylist()
    if not set(texts) <= set(names):
        raise _corrupt(f"has a {what} that is none of {', '.join(names)}")
    positions = np.array([names.index(text) for text in texts], dtype=np.int64)
    found: Integers = positions[_numbers(encoded.indices)]
    return found


def _numbers(array: pa.Array) -> npt.NDArray[np.generic]:
    if array.null_count:
        raise _corrupt("has empty cells")
    # Not to_numpy(), for which Arrow imports pandas.
    values: npt.NDArray[np.generic] = np.from_dlpack(array)
    if not np.isfinite(values).all():
        raise _corrupt("has cells that are not finite numbers")
    return values


def _corrupt(how: str) -> ModelCorruptError:
    return ModelCorruptError(
        f"The model's {EVALUATION_FILE} {how}.",
        fix="Train the model again; its report cannot be made from this.",
    )
