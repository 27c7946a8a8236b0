from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.training.class_balance import inverse_frequency
from ktrdr.training.metrics import (
    classification_metrics,
    confusion_matrix,
    log_loss,
    per_class_metrics,
    regression_metrics,
)

NAMES = ("BUY", "HOLD", "SELL")


@pytest.fixture(scope="module")
def reference() -> Any:
    """The metrics of scikit-learn, imported by who runs these tests, not by who only finds them: 2 s."""
    from sklearn import metrics

    return metrics


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_classification_metrics_are_those_of_scikit_learn(
    reference: Any, pairs: list[tuple[int, int]]
) -> None:
    actual, predicted = np.array(pairs).T
    confusion = confusion_matrix(actual, predicted, 3)
    metrics = classification_metrics(confusion)

    assert (confusion == reference.confusion_matrix(actual, predicted, labels=[0, 1, 2])).all()
    assert metrics["accuracy"] == pytest.approx(reference.accuracy_score(actual, predicted))
    recalls = reference.recall_score(actual, predicted, labels=np.unique(actual), average=None)
    assert metrics["balanced_accuracy"] == pytest.approx(recalls.mean())
    macro_f1 = reference.f1_score(actual, predicted, average="macro", zero_division=0.0)
    assert metrics["macro_f1"] == pytest.approx(macro_f1)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        actual, predicted, labels=[0, 1, 2], zero_division=0.0
    )
    for number, found in enumerate(per_class_metrics(confusion, NAMES)):
        assert found.label == NAMES[number]
        assert found.support == support[number]
        assert found.precision == pytest.approx(precision[number])
        assert found.recall == pytest.approx(recall[number])
        assert found.f1 == pytest.approx(f1[number])


def test_balanced_accuracy_is_that_of_scikit_learn(reference: Any) -> None:
    actual, predicted = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 0, 2])
    expected = reference.balanced_accuracy_score(actual, predicted)
    assert classification_metrics(confusion_matrix(actual, predicted, 3))["balanced_accuracy"] == expected


def test_log_loss_is_that_of_scikit_learn(reference: Any) -> None:
    randomness = np.random.default_rng(1)
    logits = randomness.normal(size=(200, 3)) * 3
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    actual = randomness.integers(0, 3, 200)
    found = log_loss(actual, probabilities.astype(np.float32))
    assert found == pytest.approx(reference.log_loss(actual, probabilities, labels=[0, 1, 2]), rel=1e-6)


def test_a_true_class_that_was_thought_impossible_gives_a_finite_log_loss() -> None:
    assert log_loss(np.array([1]), np.array([[1.0, 0.0]], dtype=np.float32)) == pytest.approx(36.04, abs=0.01)


@settings(deadline=None)
@given(st.integers(2, 50), st.integers(0, 1000))
def test_regression_metrics_are_those_of_scikit_learn(reference: Any, rows: int, seed: int) -> None:
    randomness = np.random.default_rng(seed)
    actual, predicted = randomness.normal(size=(2, rows))
    metrics = regression_metrics(actual, predicted)
    assert metrics["mse"] == pytest.approx(reference.mean_squared_error(actual, predicted))
    assert metrics["mae"] == pytest.approx(reference.mean_absolute_error(actual, predicted))
    assert metrics["r2"] == pytest.approx(reference.r2_score(actual, predicted))
    assert metrics["sign_accuracy"] == pytest.approx(np.mean((actual > 0) == (predicted > 0)))


def test_regression_on_a_constant_has_a_finite_r2() -> None:
    constant = np.full(5, 2.0)
    assert regression_metrics(constant, constant)["r2"] == 1
    assert regression_metrics(constant, constant + 1)["r2"] == 0


def test_class_weights_are_inverse_to_frequency_and_one_on_average() -> None:
    weights = inverse_frequency(np.array([100, 300, 100]))
    assert weights == pytest.approx([9 / 7, 3 / 7, 9 / 7])
    assert weights.dtype == np.float32


@pytest.mark.parametrize("counts", [[10, 0, 30], [10, 30, 0], [0, 0, 7]])
def test_a_class_that_training_lacks_has_weight_zero_and_the_vector_its_full_length(
    counts: list[int],
) -> None:
    weights = inverse_frequency(np.array(counts))
    assert len(weights) == 3
    assert np.isfinite(weights).all()
    assert ((weights == 0) == (np.array(counts) == 0)).all()
    assert weights[weights > 0].mean() == pytest.approx(1)
