"""``kill -9`` of a whole ``ktrdr train``, at each kind of moment: nothing outlives it, and nothing is lost.

The next process that works goes on with what was interrupted, and there is exactly one model in the end.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ktrdr.backend.records import HistoryKind
from ktrdr.backend.states import State
from tests.e2e.command import Command
from tests.e2e.installation import MOMENTUM, TWO_TIMEFRAMES, Installation, epochs

pytestmark = pytest.mark.fault

CRASH_AT = Path(__file__).with_name("crash_at.py")

Moment = Callable[[Installation, Command], object]

MOMENTS: dict[str, Moment] = {
    "its runner imports torch": lambda _, train: train.runner(),
    "the operation is recorded": lambda all_, train: train.until(all_.operations, "an operation"),
    "the first epochs are over": lambda all_, train: train.until(
        lambda: all_.has_reached_epoch(2), "epoch 2"
    ),
    "the model is in the spool": lambda all_, train: train.until(all_.has_spooled, "a result"),
}

STEPS_BEFORE_THE_END = {
    "recording the result": "rename .*ending.json",
    "committing the version": "commit INSERT models",
}
MORE_STEPS_BEFORE_THE_END = {
    "submitting": "commit INSERT operations",
    "noting that the request was sent": "commit UPDATE outbox.*INSERT operation_history",
    "recording the claim": "sync .*/claims$",
    "granting the attempt": "INSERT attempts",
    "syncing the staged model": "sync .*.staging/.*metadata.json",
    "publishing the version": "rename .*.staging/.* .*EURUSD_1h_v1$",
}
STEPS_AFTER_THE_END = {"forgetting the claim": r"rename .*/claims/\."}
MORE_STEPS_AFTER_THE_END = {
    "leaving": "UPDATE instances",
    "pointing to the latest version": "rename .*EURUSD_1h_latest$",
}


def check_one_model_of(installation: Installation, weights: str) -> None:
    """Check that all is at rest, with one model, which is as if nothing had happened."""
    installation.check_at_rest(models=1)
    assert installation.sha256(*installation.versions()) == weights


@pytest.mark.parametrize(
    "moment",
    # Of the others `make test` has the durable steps themselves, below.
    [pytest.param(name, marks=() if "epochs" in name else pytest.mark.long) for name in MOMENTS],
)
def test_the_same_command_goes_on_with_a_training_that_was_killed_while(
    moment: str, installation: Installation, undisturbed: str
) -> None:
    killed = installation.train(*epochs(60))
    MOMENTS[moment](installation, killed)
    installation.kill(killed)
    interrupted = installation.operations()

    again = installation.train(*epochs(60)).succeed()
    check_one_model_of(installation, undisturbed)
    for operation in interrupted:
        assert f"Resuming the interrupted {operation.operation_id}" in again.stderr
        assert installation.operation().operation_id == operation.operation_id


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(STEPS_BEFORE_THE_END, id="some"),
        pytest.param(MORE_STEPS_BEFORE_THE_END, id="the others", marks=pytest.mark.long),
    ],
)
def test_a_training_that_dies_before_each_of_its_durable_steps_in_turn_ends_in_one_model(
    steps: dict[str, str], installation: Installation, undisturbed_briefly: str
) -> None:
    command = ("train", MOMENTUM, "--seed", "7", *epochs(2))
    for step, pattern in steps.items():
        died = installation.start_python(CRASH_AT, pattern, *command)
        assert died.wait() == -9, f"{step}: {installation.describe()}"
        installation.check_nothing_runs()
    installation.start(*command).succeed()
    check_one_model_of(installation, undisturbed_briefly)
    assert len(installation.operations()) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(STEPS_AFTER_THE_END, id="some"),
        pytest.param(MORE_STEPS_AFTER_THE_END, id="the others"),
    ],
)
def test_a_training_that_dies_after_its_model_was_committed_has_it_and_is_put_right_by_the_next(
    steps: dict[str, str], installation: Installation, undisturbed_briefly: str
) -> None:
    command = ("train", MOMENTUM, "--seed", "7", *epochs(2))
    for number, (step, pattern) in enumerate(steps.items(), start=1):
        died = installation.start_python(CRASH_AT, pattern, *command)
        assert died.wait() == -9, f"{step}: {installation.describe()}"
        installation.check_nothing_runs()
        assert installation.operations()[-1].model == f"eurusd_momentum/EURUSD_1h_v{number}"
        # Else the next training would begin by doing what this one has left, and die there.
        installation.start("work").succeed()
    # There was nothing to go on with, so that the same wish is another training each time.
    again = installation.start(*command).succeed()
    assert "Resuming" not in again.stderr
    installation.check_at_rest(models=len(steps) + 1)
    assert {installation.sha256(version) for version in installation.versions()} == {undisturbed_briefly}


@pytest.mark.long
@pytest.mark.parametrize(
    "spooled",
    [pytest.param(False, id="in training"), pytest.param(True, id="with its model in the spool")],
)
def test_work_goes_on_with_a_training_that_was_killed(
    spooled: bool, installation: Installation, undisturbed: str
) -> None:
    killed = installation.train(*epochs(60))
    reached = installation.has_spooled if spooled else lambda: installation.has_reached_epoch(2)
    killed.until(reached, "the moment")
    installation.kill(killed)
    listed = installation.run("ops", "list").stdout
    assert "running (interrupted)" in listed

    work = installation.start("work").succeed()
    check_one_model_of(installation, undisturbed)
    assert "1 operation finished" in work.stderr
    assert installation.operation().attempt == (1 if spooled else 2)
    kinds = [entry.kind for entry in installation.history()]
    assert HistoryKind.TAKEN_OVER in kinds
    assert (HistoryKind.ATTEMPT_FAILED in kinds) == (not spooled)


@pytest.mark.long
def test_a_train_of_another_strategy_goes_on_with_it_after_its_own(
    installation: Installation, undisturbed: str
) -> None:
    killed = installation.train(*epochs(60))
    killed.until(lambda: installation.has_reached_epoch(2), "epoch 2")
    installation.kill(killed)
    interrupted = installation.operation()

    other = installation.train(*epochs(2), strategy=TWO_TIMEFRAMES).succeed()
    installation.check_at_rest(models=2)
    assert "Resuming" not in other.stderr
    assert f"Finishing the interrupted {interrupted.operation_id} (eurusd_momentum) too" in other.stderr
    assert "Trained eurusd_two_timeframes/EURUSD_1h_v1" in other.stdout
    assert installation.sha256("eurusd_momentum/EURUSD_1h_v1") == undisturbed
    own = installation.operations()[-1]
    goes_on = installation.operations()[0]
    assert own.finished_at is not None
    assert goes_on.finished_at is not None
    assert own.finished_at < goes_on.finished_at


@pytest.mark.long
def test_a_training_that_is_killed_again_and_again_still_ends_in_one_model(
    installation: Installation, undisturbed: str
) -> None:
    for attempt in (1, 2, 3, 4):
        killed = installation.train(*epochs(60))
        killed.until(partial(installation.has_reached_epoch, 1, attempt=attempt), f"attempt {attempt} ran")
        installation.kill(killed)
    installation.train(*epochs(60)).succeed()
    check_one_model_of(installation, undisturbed)
    assert installation.operation().state is State.COMPLETED
