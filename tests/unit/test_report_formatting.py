"""Numbers, times and sizes as people read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ktrdr.models.report import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (1.0875193, "1.088"),
        (0.4093, "0.4093"),
        (-0.01703, "−0.01703"),
        (12345.678, "12\u202f346"),
        (1.604e-05, "1.604 × 10⁻⁵"),
        (-2.5e12, "−2.500 × 10¹²"),
        (float("nan"), "nan"),
        (float("-inf"), "−inf"),
    ],
)
def test_numbers_have_four_significant_digits(value, text):
    assert formatting.number(value).replace("\u00a0", " ") == text


@pytest.mark.parametrize(("value", "text"), [(0.001, "0.001"), (-35.0, "−35"), (0.00021, "0.00021")])
def test_chosen_numbers_have_no_trailing_zeros(value, text):
    assert formatting.plain(value) == text


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.4312, "accuracy", "43.1 %"),
        (0.588, "sign_accuracy", "58.8 %"),
        (1.08752, "log_loss", "1.088"),
        (0.001, "learning_rate", "0.001"),
        (3.0, "brier_score", "3.000"),
        (None, "accuracy", "–"),
    ],
)
def test_a_metric_is_written_in_its_own_way(value, name, text):
    assert formatting.metric(value, name).replace("\u00a0", " ") == text


def test_an_unknown_metric_is_named_by_its_words_and_a_loss_should_be_low():
    assert formatting.measure("brier_score").title == "Brier score"
    assert not formatting.measure("quantile_loss").higher_is_better
    assert not formatting.measure("mse").higher_is_better
    assert formatting.measure("r2").higher_is_better


def test_metrics_come_in_the_usual_order_and_others_last():
    names = ["zeta", "log_loss", "alpha", "accuracy"]
    assert formatting.in_usual_order(names) == ["accuracy", "log_loss", "zeta", "alpha"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "< 1 ms"),
        (0.012, "12 ms"),
        (1.84, "1.84 s"),
        (59.994, "59.99 s"),
        (75.2, "1 min 15 s"),
        (3_725, "1 h 02 min"),
    ],
)
def test_durations(seconds, text):
    assert formatting.duration(seconds).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (2_405_343, "2.4 MB"),
        (379_500_000, "379.5 MB"),
        (5e9, "5.0 GB"),
    ],
)
def test_sizes(count, text):
    assert formatting.size(int(count)).replace("\u00a0", " ") == text


def test_times_are_in_utc():
    time = datetime(2026, 3, 4, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert formatting.utc(time) == "2026-03-03 23:30 UTC"
    assert formatting.date_time(time.astimezone(UTC)) == "2026-03-03 23:30"


def test_percentage_points_have_a_sign():
    assert formatting.points(0.024) == "+2.4"
    assert formatting.points(-0.016) == "−1.6"


@pytest.mark.parametrize(
    ("items", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_lists_read_as_english(items, text):
    assert formatting.english_list(items) == text


def test_one_row_is_not_one_rows():
    assert formatting.counted(1, "row") == "1 row"
    assert formatting.counted(1_200, "row") == "1\u202f200 rows"
