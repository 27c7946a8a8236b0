"""`evaluation.parquet`: each labelled row that was used, and what the model says of it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ktrdr.market.times import to_microseconds
from ktrdr.training.labelled_rows import LabelledRows
from ktrdr.training.split import PARTS, Split


def encode_evaluation(
    rows: LabelledRows, split: Split, predictions: npt.NDArray[np.float32], classes: Sequence[str]
) -> bytes:
    """Return the table as Parquet; equal content gives equal bytes with one version of Arrow.

    Columns: ``timestamp`` (open time, UTC), ``symbol`` where there are several, ``part``, ``close``,
    ``label``, ``prediction``; for classification the last two are class names, and a probability
    ``p_<CLASS>`` follows for each class.

    Args:
        rows: all labelled rows; those that were purged are left out.
        split: which rows are in which part.
        predictions: (row, output) of all labelled rows: probabilities, or values.
        classes: names of the classes; none for regression.
    """
    used = np.concatenate([split.rows(part) for part in PARTS])
    parts = np.repeat(np.arange(len(PARTS)), [len(split.rows(part)) for part in PARTS])
    columns: dict[str, pa.Array] = {
        "timestamp": pa.array(to_microseconds(rows.times[used])).cast(pa.timestamp("us", tz="UTC")),
        **({"symbol": _names(rows.symbol_numbers[used], rows.symbols)} if len(rows.symbols) > 1 else {}),
        "part": _names(parts, PARTS),
        "close": pa.array(rows.closes[used]),
    }
    outputs, targets = predictions[used], rows.targets[used]
    if classes:
        columns["label"] = _names(targets, classes)
        columns["prediction"] = _names(outputs.argmax(axis=1), classes)
        columns |= {f"p_{name}": pa.array(outputs[:, number]) for number, name in enumerate(classes)}
    else:
        columns["label"] = pa.array(targets)
        columns["prediction"] = pa.array(outputs[:, 0])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd", store_schema=False)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def _names(numbers: npt.NDArray[np.generic], names: Sequence[str]) -> pa.Array:
    # As a dictionary, which Parquet has too: a tenth of the time that as many strings take.
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(names, pa.string()))
