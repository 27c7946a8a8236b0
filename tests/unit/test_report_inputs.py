"""What is refused, because no honest report can be made of it."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pytest

from ktrdr.errors import ModelCorruptError
from ktrdr.models.bundle import BUNDLE_FILES, EVALUATION_FILE, METADATA_FILE, STRATEGY_FILE
from ktrdr.models.report import render_report
from ktrdr.models.report.rows import ClassifiedRows, RegressedRows, read_rows
from tests.unit.report_cases import CONTEXT, as_parquet, classified, regressed

ChangeFiles = Callable[[Mapping[str, bytes]], Mapping[str, bytes]]
ChangeTable = Callable[[pa.Table], pa.Table]


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_a_missing_file_is_named(name):
    files = {key: content for key, content in classified().files.items() if key != name}
    with pytest.raises(ModelCorruptError, match=f"no {name}"):
        render_report(files, CONTEXT)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (METADATA_FILE, b"{"),
        (METADATA_FILE, b"{}"),
        (STRATEGY_FILE, b"name: \xff\xfe"),
        (EVALUATION_FILE, b""),
        (EVALUATION_FILE, b"PAR1 and no more"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(name, content):
    with pytest.raises(ModelCorruptError, match=name):
        render_report({**classified().files, name: content}, CONTEXT)


def test_a_truncated_evaluation_is_refused():
    whole = classified().files[EVALUATION_FILE]
    broken = whole[:2_000] + bytes(2_000) + whole[4_000:]
    with pytest.raises(ModelCorruptError, match="evaluation"):
        render_report({**classified().files, EVALUATION_FILE: broken}, CONTEXT)


def _with(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(
        table.schema.get_field_index(column), column, pa.array(values, table[column].type)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(1), "5,939 rows; by the metadata it should have 5,940"),
        (lambda t: t.drop_columns("close"), "lacks the column close"),
        (lambda t: t.drop_columns("p_SELL"), "lacks the column p_SELL"),
        (lambda t: t.drop_columns("part"), "lacks the column part"),
        (lambda t: t.take(pa.array(np.arange(len(t))[::-1])), "not in order of time"),
        (lambda t: _with(t, "part", 5, "test"), "not in order of time"),
        (lambda t: _with(t, "part", 5, "holdout"), "part that is none of train, validation, test"),
        (lambda t: _with(t, "label", 5, "PANIC"), "label that is none of BUY, HOLD, SELL"),
        (lambda t: _with(t, "prediction", 5, None), "empty cells"),
        (lambda t: _with(t, "close", 5, None), "empty cells"),
        (lambda t: _with(t, "p_BUY", 5, float("nan")), "not finite"),
        (lambda t: _with(t, "close", 5, float("inf")), "not finite"),
        (lambda t: t.set_column(3, "label", pa.array(np.zeros(len(t)))), "label that is not text"),
        (lambda t: t.set_column(2, "close", pa.array(["dear"] * len(t))), "cannot be read"),
        (lambda t: t.set_column(0, "timestamp", pa.array(["today"] * len(t))), "cannot be read"),
    ],
)
def test_rows_that_are_not_what_the_metadata_says_are_refused(change: ChangeTable, message):
    case = classified()
    with pytest.raises(ModelCorruptError, match=message):
        read_rows(as_parquet(change(case.evaluation)), case.metadata)


def test_a_model_without_test_rows_is_refused():
    case = classified()
    split = case.metadata.split.model_dump()
    split["validation"]["rows"] += split["test"]["rows"]
    split["test"]["rows"] = 0
    changed = case.changed(split=split)
    with pytest.raises(ModelCorruptError, match="some of them for the test"):
        render_report(changed.files, CONTEXT)


def test_a_membership_function_that_does_not_exist_is_refused():
    case = classified()
    features = [feature.model_dump() for feature in case.metadata.features]
    for wrong in ({"membership_type": "sigmoid"}, {"membership_parameters": (1.0,)}):
        changed = case.changed(features=[{**features[0], **wrong}])
        with pytest.raises(ModelCorruptError, match="1h_rsi_level_oversold"):
            render_report(changed.files, CONTEXT)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_may_have_any_unit(unit):
    case = classified()
    times = case.evaluation["timestamp"].cast(pa.timestamp(unit, tz="UTC"))
    rows = read_rows(as_parquet(case.evaluation.set_column(0, "timestamp", times)), case.metadata)
    assert rows.times_ms[0] == int(case.metadata.split.train.start.timestamp() * 1000)


def test_classified_rows_are_what_was_written():
    case = classified()
    rows = read_rows(case.files[EVALUATION_FILE], case.metadata)
    assert isinstance(rows, ClassifiedRows)
    table = case.evaluation
    names = np.array(case.metadata.classes)
    assert names[rows.label].tolist() == table["label"].to_pylist()
    assert names[rows.prediction].tolist() == table["prediction"].to_pylist()
    assert rows.close.tolist() == table["close"].to_pylist()
    np.testing.assert_allclose(rows.probabilities.sum(axis=1), 1, atol=1e-6)
    assert rows.tested == case.metadata.split.test.rows
    assert set(rows.parts[rows.test]) == {2}


def test_regressed_rows_are_what_was_written():
    case = regressed()
    rows = read_rows(case.files[EVALUATION_FILE], case.metadata)
    assert isinstance(rows, RegressedRows)
    assert rows.label.tolist() == case.evaluation["label"].to_pylist()
    assert rows.prediction.tolist() == case.evaluation["prediction"].to_pylist()


def test_rows_in_several_row_groups_are_read_as_one():
    case = classified()
    table = case.evaluation
    halves = pa.concat_tables([table.slice(0, 3_000), table.slice(3_000)])
    sink = pa.BufferOutputStream()
    with pa.parquet.ParquetWriter(sink, table.schema) as writer:
        for batch in halves.to_batches():
            writer.write_table(pa.table(batch), row_group_size=1_000)
    rows = read_rows(sink.getvalue().to_pybytes(), case.metadata)
    whole = read_rows(case.files[EVALUATION_FILE], case.metadata)
    assert isinstance(rows, ClassifiedRows)
    assert isinstance(whole, ClassifiedRows)
    assert np.array_equal(rows.label, whole.label)
    assert np.array_equal(rows.parts, whole.parts)
