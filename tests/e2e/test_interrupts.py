"""Ctrl-C and its kin at any moment: the operation is cancelled, and no half model and no process is left.

A model that was quicker than the interrupt is whole, and counts.
"""

import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from ktrdr.backend.states import State
from tests.e2e.command import Command
from tests.e2e.installation import Installation, epochs

Moment = Callable[[Installation, Command], object]

MOMENTS: dict[str, Moment] = {
    "it prepares": lambda _, train: train.runner(),
    "the runner imports torch": lambda all_, train: train.until(all_.operations, "an operation"),
    "it trains": lambda all_, train: train.until(lambda: all_.has_reached_epoch(2), "epoch 2"),
}


def interrupt(installation: Installation, command: Command, number: int, *, group: bool = False) -> int:
    """Send a signal, and return the exit status; check that it ends without a trace."""
    if group:
        command.send_to_group(number)
    else:
        command.send(number)
    status = command.wait()
    assert "Traceback" not in command.stderr, installation.describe()
    return status


@pytest.mark.parametrize(
    ("moment", "group"),
    [
        pytest.param("it prepares", True, id="it prepares", marks=pytest.mark.long),
        pytest.param("the runner imports torch", True, id="the runner imports torch"),
        pytest.param("it trains", True, id="it trains"),
        pytest.param("it trains", False, id="it trains, alone", marks=pytest.mark.long),
    ],
)
def test_ctrl_c_cancels_while(moment: str, group: bool, installation: Installation) -> None:
    train = installation.train(*epochs(2000))
    MOMENTS[moment](installation, train)
    assert interrupt(installation, train, signal.SIGINT, group=group) == 130
    installation.check_at_rest(models=0)
    assert "Cancel" in train.stderr
    assert "error" not in train.stderr
    for operation in installation.operations():
        assert operation.state is State.CANCELLED
        assert operation.message == "interrupted by the user"
        assert f"{operation.operation_id} was cancelled; no model was made." in train.stderr


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long, id="SIGHUP"),
    ],
)
def test_a_wish_to_end_cancels_as_ctrl_c_does(number: int, installation: Installation) -> None:
    train = installation.train(*epochs(2000))
    train.until(lambda: installation.has_reached_epoch(2), "epoch 2")
    assert interrupt(installation, train, number) == 130
    installation.check_at_rest(models=0)
    assert installation.operation().state is State.CANCELLED


def test_ctrl_c_before_anything_has_begun_leaves_nothing(installation: Installation) -> None:
    train = installation.train(*epochs(2000))
    train.until(lambda: train.has_loaded("pydantic"), "it loaded its libraries")
    # Interrupted in the exec() of a string, as in making a dataclass, Python ends by the signal whoever
    # catches it. For a shell both are 130.
    assert interrupt(installation, train, signal.SIGINT, group=True) in (130, -signal.SIGINT)
    installation.check_at_rest(models=0)
    # Where everything takes turns with other processes, it may have begun by now.
    assert all(operation.state is State.CANCELLED for operation in installation.operations())


@pytest.mark.parametrize("delay_s", [0.0, pytest.param(0.2, marks=pytest.mark.long)])
def test_ctrl_c_while_the_model_is_persisted_ends_in_a_whole_model_or_none(
    delay_s: float, installation: Installation
) -> None:
    train = installation.train(*epochs(2))
    train.until(installation.has_spooled, "a result")
    time.sleep(delay_s)  # not to wait for anything: to be at another moment
    status = interrupt(installation, train, signal.SIGINT, group=True)
    state = installation.operation().state
    assert (state, status) in ((State.CANCELLED, 130), (State.COMPLETED, 0))
    installation.check_at_rest(models=int(state is State.COMPLETED))
    assert ("Trained eurusd_momentum/EURUSD_1h_v1" in train.stdout) == (state is State.COMPLETED)


def test_a_cancel_from_another_process_stops_the_training(installation: Installation) -> None:
    train = installation.train(*epochs(2000))
    train.until(lambda: installation.has_reached_epoch(2), "epoch 2")
    operation_id = installation.operation().operation_id
    cancel = installation.run("ops", "cancel", operation_id, "--reason", "it is the wrong one")
    assert cancel.wait() == 0
    assert operation_id in cancel.stderr
    assert train.wait() == 130
    assert f"{operation_id} was cancelled; no model was made." in train.stderr
    installation.check_at_rest(models=0)
    assert installation.operation().state is State.CANCELLED
    assert installation.operation().message == "it is the wrong one"


@pytest.mark.long
def test_work_that_is_interrupted_gives_back_what_runs_which_costs_no_attempt(
    installation: Installation, undisturbed: str
) -> None:
    killed = installation.train(*epochs(60))
    killed.until(lambda: installation.has_reached_epoch(1), "epoch 1")
    installation.kill(killed)
    # Only from the fourth attempt on is it seen that none was counted.
    for attempt in (2, 3, 4):
        work = installation.start("work")
        work.until(partial(installation.has_reached_epoch, 1, attempt=attempt), f"attempt {attempt} ran")
        assert interrupt(installation, work, signal.SIGINT, group=True) == 130
        assert "nothing is left to do" not in work.stderr
        installation.check_nothing_runs()
        assert not installation.operation().state.terminal
    installation.start("work").succeed()
    installation.check_at_rest(models=1)
    assert installation.sha256(*installation.versions()) == undisturbed
