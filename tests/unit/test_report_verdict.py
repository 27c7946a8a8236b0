"""What the report concludes, and how sure it says it is."""

from dataclasses import fields, replace

import numpy as np
import pytest

from ktrdr.models.bundle import EVALUATION_FILE
from ktrdr.models.metadata import ModelMetadata
from ktrdr.models.report.baselines import class_guess
from ktrdr.models.report.bootstrap import BlockBootstrap, block_rows
from ktrdr.models.report.rows import ClassifiedRows, Floats, Integers, RegressedRows, read_rows
from ktrdr.models.report.verdict import Outcome, judge
from ktrdr.training.metrics import classification_metrics, confusion_matrix, regression_metrics
from tests.unit.report_cases import classified, regressed


def classified_rows() -> tuple[ClassifiedRows, ModelMetadata]:
    case = classified()
    rows = read_rows(case.files[EVALUATION_FILE], case.metadata)
    assert isinstance(rows, ClassifiedRows)
    return rows, case.metadata


def regressed_rows() -> tuple[RegressedRows, ModelMetadata]:
    case = regressed()
    rows = read_rows(case.files[EVALUATION_FILE], case.metadata)
    assert isinstance(rows, RegressedRows)
    return rows, case.metadata


def answering(
    rows: ClassifiedRows, metadata: ModelMetadata, prediction: Integers
) -> tuple[ClassifiedRows, ModelMetadata]:
    """Return the rows and metadata of a model with other answers."""
    confusion = confusion_matrix(rows.label[rows.test], prediction[rows.test], len(metadata.classes))
    metrics = classification_metrics(confusion)
    return replace(rows, prediction=prediction), metadata.model_copy(update={"test_metrics": metrics})


def predicting(
    rows: RegressedRows, metadata: ModelMetadata, prediction: Floats
) -> tuple[RegressedRows, ModelMetadata]:
    metrics = regression_metrics(rows.label[rows.test], prediction[rows.test])
    return replace(rows, prediction=prediction), metadata.model_copy(update={"test_metrics": metrics})


def mostly_right(rows: ClassifiedRows, share: float) -> Integers:
    """Return answers that are right in about that share of the rows, else off by one."""
    wrong = np.random.default_rng(3).random(len(rows)) > share
    return np.where(wrong, (rows.label + 1) % 3, rows.label)


def test_a_model_that_is_nearly_always_right_beats_the_baselines():
    rows, metadata = classified_rows()
    verdict = judge(*answering(rows, metadata, mostly_right(rows, 0.9)))
    assert verdict.outcome is Outcome.BEATS
    assert verdict.headline == "Beats the baselines"
    assert "more often than the majority class, its strongest baseline" in verdict.sentence
    assert all(comparison.low > 0 for comparison in verdict.comparisons)


def test_a_model_that_answers_the_majority_class_does_not_beat_it():
    rows, metadata = classified_rows()
    majority = np.full(len(rows), np.bincount(rows.label[rows.parts == 0]).argmax())
    verdict = judge(*answering(rows, metadata, majority))
    by_name = {comparison.baseline: comparison for comparison in verdict.comparisons}
    equal = by_name["majority_class"]
    assert (equal.difference, equal.low, equal.high) == (0, 0, 0)  # paired: the same rows cancel out
    assert verdict.outcome is Outcome.BEHIND
    assert "exactly as often as the majority class" in verdict.sentence
    assert verdict.headline == "Does not beat every baseline"


def test_a_model_that_is_nearly_always_wrong_beats_no_baseline():
    rows, metadata = classified_rows()
    verdict = judge(*answering(rows, metadata, mostly_right(rows, 0.02)))
    assert verdict.outcome is Outcome.BEHIND
    assert verdict.headline == "Does not beat the baselines"
    assert "less often than the majority class" in verdict.sentence


def test_a_model_that_is_a_little_ahead_is_within_the_noise():
    rows, metadata = classified_rows()
    majority = np.bincount(rows.label[rows.parts == 0]).argmax()
    prediction = np.full(len(rows), majority)
    first = rows.test.start
    missed = first + np.flatnonzero(rows.label[rows.test] != majority)[:5]
    prediction[missed] = rows.label[missed]
    verdict = judge(*answering(rows, metadata, prediction))
    assert verdict.outcome is Outcome.UNCLEAR
    assert verdict.headline == "Ahead of the baselines, but within the noise"


def test_the_differences_are_those_of_the_metadata():
    rows, metadata = classified_rows()
    for comparison in judge(rows, metadata).comparisons:
        accuracy = metadata.baselines[comparison.baseline]["accuracy"]
        assert comparison.difference == metadata.test_metrics["accuracy"] - accuracy
        assert comparison.low < comparison.difference < comparison.high
        assert comparison.paired


def test_a_baseline_whose_answers_are_unknown_is_taken_as_exact_and_that_is_said():
    rows, metadata = classified_rows()
    changed = metadata.model_copy(update={"baselines": {"crystal_ball": {"accuracy": 0.99}}})
    verdict = judge(rows, changed)
    assert [comparison.paired for comparison in verdict.comparisons] == [False]
    assert "The score of the crystal ball is taken as exact" in verdict.method


def test_a_baseline_that_scores_otherwise_than_recorded_is_not_paired():
    rows, metadata = classified_rows()
    changed = metadata.model_copy(update={"baselines": {"majority_class": {"accuracy": 0.2}}})
    (comparison,) = judge(rows, changed).comparisons
    assert not comparison.paired
    assert comparison.baseline_value == 0.2


def test_a_model_without_baselines_is_compared_with_nothing():
    rows, metadata = classified_rows()
    verdict = judge(rows, metadata.model_copy(update={"baselines": {}}))
    assert verdict.outcome is Outcome.BEHIND
    assert verdict.headline == "There is nothing to compare it with"


def test_labels_that_look_back_have_a_caveat():
    rows, metadata = classified_rows()
    assert judge(rows, metadata).caveat == ""
    assert "swing" in judge(rows, metadata.model_copy(update={"label_source": "zigzag"})).caveat


def test_a_regression_that_is_nearly_right_beats_the_baselines_in_error_and_sign():
    rows, metadata = regressed_rows()
    verdict = judge(*predicting(rows, metadata, 0.9 * rows.label))
    assert verdict.outcome is Outcome.BEATS
    assert {comparison.metric for comparison in verdict.comparisons} == {"mse", "sign_accuracy"}
    assert "the squared error is 99.0\u00a0% lower than that of the training mean" in verdict.sentence


def test_a_regression_must_beat_the_sign_of_a_constant_too():
    rows, metadata = regressed_rows()
    # Half the error of the mean, but of the other sign wherever the label is small.
    prediction = np.where(np.abs(rows.label) > 0.004, 0.6 * rows.label, -0.2 * rows.label)
    verdict = judge(*predicting(rows, metadata, prediction))
    by_metric = {(c.baseline, c.metric): c for c in verdict.comparisons}
    assert by_metric["training_mean", "mse"].low > 0
    assert by_metric["training_mean", "sign_accuracy"].difference < 0
    assert verdict.outcome is Outcome.BEHIND
    assert verdict.headline == "Does not beat every baseline"


def test_a_regression_that_predicts_the_training_mean_gains_nothing_on_it():
    rows, metadata = regressed_rows()
    mean = np.full(len(rows), rows.label[rows.parts == 0].mean())
    verdict = judge(*predicting(rows, metadata, mean))
    by_metric = {(c.baseline, c.metric): c for c in verdict.comparisons}
    assert abs(by_metric["training_mean", "mse"].difference) < 1e-4
    assert by_metric["training_mean", "sign_accuracy"].high == 0


def test_the_same_seed_gives_the_same_interval():
    assert judge(*classified_rows()) == judge(*classified_rows())


def test_blocks_are_as_long_as_the_labels_look_ahead():
    rows, metadata = classified_rows()
    assert block_rows(rows, metadata) == metadata.label_parameters["max_holding_period"]
    ahead = metadata.model_copy(update={"label_parameters": {"horizon": 33}})
    assert block_rows(rows, ahead) == 33


def test_blocks_of_labels_without_a_horizon_follow_their_runs():
    rows, metadata = classified_rows()
    unbounded = metadata.model_copy(update={"label_source": "zigzag", "label_parameters": {}})
    long_runs = replace(rows, label=np.repeat(np.arange(len(rows) // 30 + 1) % 3, 30)[: len(rows)])
    assert 55 <= block_rows(long_runs, unbounded) <= 65


def test_there_are_always_a_few_blocks():
    rows, metadata = classified_rows()
    endless = metadata.model_copy(update={"label_parameters": {"max_holding_period": 100_000}})
    assert block_rows(rows, endless) == rows.tested // 8
    assert "So few blocks" in judge(rows, endless).method


def test_with_blocks_of_one_row_the_spread_is_the_binomial_standard_error():
    values = (np.random.default_rng(5).random(2_000) < 0.4).astype(np.float64)
    spread = BlockBootstrap.draw(len(values), 1, seed=1).means(values).std()
    assert spread == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.06)


def test_rows_that_agree_in_blocks_count_as_one():
    blocks = (np.random.default_rng(6).random(200) < 0.4).astype(np.float64)
    values = np.repeat(blocks, 20)
    alone = BlockBootstrap.draw(len(values), 1, seed=1).means(values).std()
    together = BlockBootstrap.draw(len(values), 20, seed=1).means(values).std()
    # The circular blocks straddle two of the runs, which makes the spread somewhat less than sqrt(20) times.
    assert 3.2 < together / alone < 4.6


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (7, 3), (100, 100), (5_000, 50)])
def test_the_mean_over_all_resamples_is_the_mean(rows, length):
    values = np.random.default_rng(7).normal(size=rows)
    means = BlockBootstrap.draw(rows, length, seed=2).means(values)
    error = values.std() * np.sqrt(length / rows / len(means))
    assert means.mean() == pytest.approx(values.mean(), abs=4 * error + 1e-12)
    assert np.all((means >= values.min() - 1e-12) & (means <= values.max() + 1e-12))


def test_the_last_return_of_a_row_is_that_of_its_own_symbol():
    rows, metadata = classified_rows()
    other = replace(rows, close=rows.close * 1_000, symbols=np.ones(len(rows), np.int64))
    order = np.argsort(np.concatenate([rows.times_ms, other.times_ms]), kind="stable")
    names = [field.name for field in fields(rows)]
    both = replace(
        rows, **{name: np.concatenate([getattr(rows, name), getattr(other, name)])[order] for name in names}
    )
    alone = class_guess("last_return_sign", rows, metadata)
    together = class_guess("last_return_sign", both, metadata)
    assert alone is not None
    assert together is not None
    assert np.array_equal(together, np.repeat(alone, 2))
