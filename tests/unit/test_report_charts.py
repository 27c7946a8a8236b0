"""What the charts show."""

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ktrdr.features.memberships import Gaussian, Trapezoidal, Triangular
from ktrdr.models.bundle import EVALUATION_FILE
from ktrdr.models.metadata import FeatureRecord
from ktrdr.models.report.charts.calibration import calibration_figures
from ktrdr.models.report.charts.history import history_figures
from ktrdr.models.report.charts.memberships import membership_figures
from ktrdr.models.report.charts.regression import regression_figures, regression_timeline
from ktrdr.models.report.charts.timeline import timeline_figure
from ktrdr.models.report.figure import Figure, literal, packed, to_script_json
from ktrdr.models.report.palette import OTHERS, class_roles, colour
from ktrdr.models.report.rows import ClassifiedRows, RegressedRows, read_rows
from tests.unit.report_cases import CLASSES, Case, classified, regressed

HOUR_MS = 3_600_000


def classified_rows() -> ClassifiedRows:
    case = classified()
    rows = read_rows(case.files[EVALUATION_FILE], case.metadata)
    assert isinstance(rows, ClassifiedRows)
    return rows


def regressed_rows() -> RegressedRows:
    case = regressed()
    rows = read_rows(case.files[EVALUATION_FILE], case.metadata)
    assert isinstance(rows, RegressedRows)
    return rows


def unpacked(values: Any) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"]))
    return data.reshape([int(n) for n in values["shape"].split(",")]) if "shape" in values else data


def traces(figure: Figure, **wanted: object) -> list[dict[str, Any]]:
    return [
        dict(trace)
        for trace in figure.traces
        if all(trace.get(key) == value for key, value in wanted.items())
    ]


# --- over time ------------------------------------------------------------------------------------


def test_the_price_line_is_the_close_of_every_row():
    rows = classified_rows()
    (price,) = traces(timeline_figure(rows, CLASSES, "EURUSD"), name="EURUSD")
    assert np.array_equal(unpacked(price["x"]), rows.times_ms)
    np.testing.assert_allclose(unpacked(price["y"]), rows.close, rtol=1e-7)


def test_each_cell_of_the_strip_has_the_class_of_its_row():
    rows = classified_rows()
    (strip,) = traces(timeline_figure(rows, CLASSES, "EURUSD"), type="heatmap")
    edges, grid = unpacked(strip["x"]), unpacked(strip["z"])
    cells = np.searchsorted(edges, rows.times_ms)
    assert np.array_equal(edges[cells], rows.times_ms)
    assert np.array_equal(grid[0, cells], rows.prediction)
    assert np.array_equal(grid[1, cells], rows.label)
    assert [strip["text"][1][cell] for cell in cells[:50]] == [CLASSES[label] for label in rows.label[:50]]


def test_the_strip_has_holes_where_the_market_is_closed():
    rows = classified_rows()
    (strip,) = traces(timeline_figure(rows, CLASSES, "EURUSD"), type="heatmap")
    edges, grid = unpacked(strip["x"]), unpacked(strip["z"])
    hole = np.isnan(grid[0])
    assert np.all(np.diff(edges)[~hole] == HOUR_MS)
    gaps = np.diff(rows.times_ms) - HOUR_MS
    assert np.diff(edges)[hole].tolist() == gaps[gaps > 0].tolist()


def test_the_shares_of_a_group_add_up_to_one_and_its_bars_meet():
    figure = timeline_figure(classified_rows(), CLASSES, "EURUSD")
    for axis in ("y3", "y4"):
        bars = traces(figure, type="bar", yaxis=axis)
        assert [bar["name"] for bar in bars] == list(CLASSES)
        np.testing.assert_allclose(sum(unpacked(bar["y"]) for bar in bars), 1, atol=1e-6)
        middle, width = unpacked(bars[0]["x"]), unpacked(bars[0]["width"])
        breaks = (middle[1:] - width[1:] / 2) - (middle[:-1] + width[:-1] / 2)
        assert np.count_nonzero(breaks > 1) == 2  # where rows were purged between the parts
        assert np.all(breaks > -1)


def test_the_views_show_one_part_with_its_prices():
    rows = classified_rows()
    figure = timeline_figure(rows, CLASSES, "EURUSD")
    assert [view.title for view in figure.views] == ["All", "Train", "Validation", "Test"]
    update = json.loads(figure.views[-1].update)
    start, end = update["xaxis.range"]
    assert start == rows.times_ms[rows.test.start]
    assert end == rows.times_ms[-1] + HOUR_MS
    low, high = update["yaxis.range"]
    assert low < rows.close[rows.test].min() < rows.close[rows.test].max() < high


def test_the_bands_of_a_regression_hold_four_fifths_of_each_group():
    rows = regressed_rows()
    figure = regression_timeline(rows, "EURUSD")
    low, high, median = (unpacked(trace["y"]) for trace in traces(figure, legendgroup="Actual", yaxis="y2"))
    assert np.all((low <= median) & (median <= high))
    assert np.mean((rows.label[:20] >= low[0]) & (rows.label[:20] <= high[0])) > 0.5


def test_a_scatter_of_many_rows_says_that_it_is_a_sample():
    rows = regressed_rows()
    few = regression_figures(rows)[0]
    assert "Shows all 897 test rows" in few.summary
    repeated = RegressedRows(
        **{
            name: np.repeat(getattr(rows, name), 10)
            for name in ("times_ms", "parts", "close", "symbols", "label", "prediction")
        }
    )
    many = regression_figures(repeated)[0]
    assert "Shows 1 in 3 of the 8\u202f970 test rows" in many.summary
    (points,) = traces(many, mode="markers")
    assert len(unpacked(points["x"])) == 2_990


def test_a_regression_that_predicts_a_constant_has_charts():
    rows = regressed_rows()
    constant = replace(rows, prediction=np.zeros(len(rows)))
    assert "the correlation is 0," in regression_figures(constant)[0].summary


# --- calibration ----------------------------------------------------------------------------------


def test_probabilities_that_come_true_lie_on_the_diagonal():
    random = np.random.default_rng(9)
    rows = 60_000
    said = random.dirichlet((1, 1, 1), size=rows)
    came = np.array([random.choice(3, p=p) for p in said])
    honest = ClassifiedRows(
        times_ms=np.arange(rows) * HOUR_MS,
        parts=np.full(rows, 2),
        close=np.ones(rows),
        symbols=np.zeros(rows, np.int64),
        label=came,
        prediction=said.argmax(axis=1),
        probabilities=said,
    )
    reliability, confidence = calibration_figures(honest, CLASSES)
    for trace in traces(reliability, mode="lines+markers"):
        np.testing.assert_allclose(trace["y"], trace["x"], atol=0.02)
        assert sum(trace["customdata"]) == rows
    assert sum(sum(trace["y"]) for trace in confidence.traces) == rows


def test_few_test_rows_make_few_bins():
    rows = classified_rows()
    last = slice(rows.test.stop - 40, rows.test.stop)
    few = ClassifiedRows(
        *(
            getattr(rows, n)[last]
            for n in ("times_ms", "parts", "close", "symbols", "label", "prediction", "probabilities")
        )
    )
    assert "in 1 bin" in calibration_figures(few, CLASSES)[0].summary


# --- history --------------------------------------------------------------------------------------


def _marks(figure: Figure) -> list[str]:
    shapes: Any = figure.layout["shapes"]
    return [shape["label"]["text"] for shape in shapes]


def test_the_best_epoch_and_the_early_stop_are_marked():
    metadata = classified().metadata
    loss, accuracy, rate = history_figures(metadata)
    wanted = [f"best epoch: {metadata.best_epoch}", f"stopped early: {len(metadata.history)}"]
    assert _marks(loss) == _marks(accuracy) == _marks(rate) == wanted


def test_a_training_that_ran_to_its_end_has_no_mark_of_a_stop():
    metadata = classified().changed(stopped_early=False).metadata
    assert _marks(history_figures(metadata)[0]) == [f"best epoch: {metadata.best_epoch}"]


def test_a_constant_learning_rate_and_missing_accuracies_have_no_chart():
    history = [
        {**record.model_dump(), "learning_rate": 0.1, "train_accuracy": None, "val_accuracy": None}
        for record in classified().metadata.history
    ]
    figures = history_figures(classified().changed(history=history).metadata)
    assert [figure.key for figure in figures] == ["chart-loss"]


def test_accuracy_is_drawn_beside_that_of_the_majority_class_of_the_training_part():
    metadata = classified().metadata
    counts = metadata.class_counts["validation"]
    train = metadata.class_counts["train"]
    majority = max(train, key=lambda label: train[label])
    (line,) = traces(history_figures(metadata)[1], name="Majority class")
    assert set(line["y"]) == {counts[majority] / sum(counts.values())}


# --- memberships ----------------------------------------------------------------------------------


def with_sets(*memberships: tuple[str, tuple[float, ...]]) -> Case:
    features = [
        FeatureRecord(
            feature_id=f"1h_set_{number}",
            timeframe="1h",
            indicator="rsi_14",
            fuzzy_set="set",
            membership=f"m{number}",
            membership_type=kind,
            membership_parameters=parameters,
        ).model_dump()
        for number, (kind, parameters) in enumerate(memberships)
    ]
    return classified().changed(features=features)


def test_a_membership_is_drawn_with_the_function_that_training_used():
    figures = membership_figures(classified().metadata)
    assert [figure.title for figure in figures] == ["rsi_level", "macd_push"]
    expected = [
        Triangular(a=0, b=20, c=35),
        Trapezoidal(a=40, b=45, c=55, d=65),
        Triangular(a=60, b=80, c=100),
        Gaussian(mu=-0.001, sigma=0.0005),
    ]
    drawn = [*figures[0].traces, figures[1].traces[0]]
    for trace, membership in zip(drawn, expected, strict=True):
        x, y = unpacked(trace["x"]), unpacked(trace["y"])
        np.testing.assert_allclose(y, membership.degree(x), atol=1e-6)
        assert y.max() == pytest.approx(1, abs=0.01)


def test_values_that_no_set_covers_are_named():
    figure = membership_figures(classified().metadata)[0]
    assert "No function covers 35 to 40." in figure.summary
    touching = membership_figures(
        with_sets(("triangular", (0, 20, 40)), ("triangular", (40, 60, 80))).metadata
    )[0]
    assert "No function covers" not in touching.summary


@pytest.mark.parametrize(
    ("memberships", "start", "end"),
    [
        ([("trapezoidal", (-1, 0, 30, 45)), ("trapezoidal", (55, 70, 100, 101))], -1, 101),
        (
            [("trapezoidal", (-1, -1, -0.0004, 0.0002)), ("trapezoidal", (-0.0002, 0.0004, 1, 1))],
            -0.0008,
            0.0008,
        ),
        ([("trapezoidal", (-1, 0, 0.003, 0.006)), ("trapezoidal", (0.004, 0.009, 1, 2))], 0, 0.012),
        ([("triangular", (-1000, 0, 1))], -1000, 1),
        ([("trapezoidal", (0, 1, 2, 3))], 0, 3),
        ([("gaussian", (0, 1))], -3.5, 3.5),
    ],
)
def test_fuzzy_sets_are_drawn_where_they_differ(memberships, start, end):
    (figure,) = membership_figures(with_sets(*memberships).metadata)
    x = unpacked(figure.traces[0]["x"])
    assert x[0] == pytest.approx(start - 0.04 * (end - start))
    assert x[-1] == pytest.approx(end + 0.04 * (end - start))


def test_a_set_on_several_timeframes_is_drawn_once_and_names_them():
    features = [feature.model_dump() for feature in classified().metadata.features[:3]]
    twice = [*features, *({**feature, "timeframe": "4h"} for feature in features)]
    (figure,) = membership_figures(classified().changed(features=twice).metadata)
    assert len(figure.traces) == 3
    assert "on 1h and 4h" in figure.summary


def test_a_point_shaped_set_can_be_drawn():
    (figure,) = membership_figures(with_sets(("triangular", (5, 5, 5))).metadata)
    assert unpacked(figure.traces[0]["y"]).max() == 1


# --- colours and values ---------------------------------------------------------------------------


def test_the_meaning_of_a_class_decides_its_colour():
    assert class_roles(("BUY", "HOLD", "SELL")) == ("up", "flat", "down")
    assert class_roles(("SELL", "BUY")) == ("down", "up")
    assert class_roles(("UP", "DOWN", "RANGING", "VOLATILE")) == ("up", "down", "flat", "wild")
    assert class_roles(("BULLISH", "BEARISH", "NEUTRAL")) == ("up", "down", "flat")


def test_classes_without_a_meaning_and_those_that_share_one_get_colours_of_their_own():
    assert class_roles(("BUY", "LONG", "x", "y")) == ("up", *OTHERS[:3])
    assert len(class_roles([f"c{number}" for number in range(20)])) == 20


def test_a_colour_names_its_role_and_opacity():
    assert colour("up") == "@up"
    assert colour("up", 0.25) == "@up/0.25"


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "u1"])
def test_packed_numbers_can_be_unpacked(dtype):
    values = np.array([[1, 2, 3], [4, 5, 6]])
    assert np.array_equal(unpacked(packed(values, dtype)), values)
    assert np.array_equal(unpacked(packed(values[0], dtype)), values[0])


def test_text_for_the_plotting_library_is_literal():
    assert literal("<b>&lt;") == "&lt;b&gt;&amp;lt;"


def test_numbers_that_json_lacks_become_null():
    value = {"a": [1.0, float("nan"), float("inf")], "b": (True, None, "NaN")}
    assert json.loads(to_script_json(value)) == {"a": [1.0, None, None], "b": [True, None, "NaN"]}


def test_json_survives_what_would_end_a_script():
    text = "</script><!--<script>&\u2028\u2029"
    encoded = to_script_json({text: text})
    assert not set("<>&\u2028") & set(encoded)
    assert json.loads(encoded) == {text: text}
