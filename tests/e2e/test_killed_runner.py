"""``kill -9`` of the runner: the attempt is made again, the user is told, and there is one model."""

from functools import partial

import pytest

from ktrdr.backend.records import HistoryKind
from tests.e2e.installation import Installation, epochs

pytestmark = pytest.mark.fault


def test_a_runner_that_is_killed_in_training_is_replaced_and_the_user_is_told(
    installation: Installation, undisturbed: str
) -> None:
    train = installation.train(*epochs(60))
    train.until(lambda: installation.has_reached_epoch(3), "epoch 3")
    train.runner().kill()
    train.succeed()
    installation.check_at_rest(models=1)
    assert installation.sha256(*installation.versions()) == undisturbed
    assert "Attempt 1 did not finish: The runner process was killed by SIGKILL" in train.stderr
    assert "attempt 2 of 3" in train.stderr
    assert installation.operation().attempt == 2

    story = [(entry.attempt, entry.kind) for entry in installation.history()]
    assert story == [
        (1, HistoryKind.SUBMITTED),
        (1, HistoryKind.DECIDED),
        (1, HistoryKind.DISPATCHED),
        (1, HistoryKind.ACCEPTED),
        (1, HistoryKind.ATTEMPT_FAILED),
        (2, HistoryKind.RETRY),
        (2, HistoryKind.DISPATCHED),
        (2, HistoryKind.ACCEPTED),
        (2, HistoryKind.MODEL_PERSISTED),
    ]
    shown = installation.run("ops", "show", installation.operation().operation_id)
    assert "runner_crashed: The runner process was killed by SIGKILL" in shown.stdout
    assert "attempt 2 follows in 1 s" in shown.stdout


@pytest.mark.long
def test_a_runner_that_is_killed_while_it_imports_torch_is_replaced(installation: Installation) -> None:
    train = installation.train(*epochs(2))
    train.until(installation.operations, "an operation")
    assert not any(entry.kind is HistoryKind.ACCEPTED for entry in installation.history())
    train.runner().kill()
    train.succeed()
    installation.check_at_rest(models=1)


@pytest.mark.long
def test_a_job_whose_runner_dies_each_time_fails_after_three_attempts_and_says_why(
    installation: Installation,
) -> None:
    installation.variables["KTRDR_RETRY_BACKOFF_S"] = "0.01"
    train = installation.train(*epochs(10_000))
    for attempt in (1, 2, 3):
        train.until(partial(installation.has_reached_epoch, 1, attempt=attempt), f"attempt {attempt} ran")
        train.runner().kill()
    assert train.wait() == 1
    assert "failed (runner_crashed)" in train.stderr
    assert "attempt 3 of 3" in train.stderr
    assert "ktrdr ops show" in train.stderr
    installation.check_at_rest(models=0)
