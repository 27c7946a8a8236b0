import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrdr.backend.states import TRANSITIONS, State, Trigger, apply, mermaid

S, T = State, Trigger

EDGES = [
    (S.PENDING, T.DISPATCHED, S.QUEUED),
    (S.PENDING, T.ACCEPTED, S.RUNNING),
    (S.PENDING, T.RECONCILED, S.RUNNING),
    (S.PENDING, T.ATTEMPT_FAILED, S.FAILED),
    (S.PENDING, T.ATTEMPT_FAILED_RETRYABLE, S.QUEUED),
    (S.PENDING, T.ATTEMPTS_EXHAUSTED, S.FAILED),
    (S.PENDING, T.MODEL_PERSISTED, S.COMPLETED),
    (S.PENDING, T.CANCEL_REQUESTED, S.CANCELLED),
    (S.PENDING, T.FELL_BACK, S.PENDING),
    (S.PENDING, T.TAKEN_OVER, S.PENDING),
    (S.QUEUED, T.DISPATCHED, S.QUEUED),
    (S.QUEUED, T.ACCEPTED, S.RUNNING),
    (S.QUEUED, T.RECONCILED, S.RUNNING),
    (S.QUEUED, T.ACCEPT_DEADLINE_PASSED, S.QUEUED),
    (S.QUEUED, T.ATTEMPT_FAILED, S.FAILED),
    (S.QUEUED, T.ATTEMPT_FAILED_RETRYABLE, S.QUEUED),
    (S.QUEUED, T.ATTEMPTS_EXHAUSTED, S.FAILED),
    (S.QUEUED, T.MODEL_PERSISTED, S.COMPLETED),
    (S.QUEUED, T.CANCEL_REQUESTED, S.CANCELLED),
    (S.QUEUED, T.FELL_BACK, S.PENDING),
    (S.QUEUED, T.TAKEN_OVER, S.PENDING),
    (S.RUNNING, T.ATTEMPT_FAILED, S.FAILED),
    (S.RUNNING, T.ATTEMPT_FAILED_RETRYABLE, S.QUEUED),
    (S.RUNNING, T.LEASE_EXPIRED, S.QUEUED),
    (S.RUNNING, T.ATTEMPTS_EXHAUSTED, S.FAILED),
    (S.RUNNING, T.MODEL_PERSISTED, S.COMPLETED),
    (S.RUNNING, T.CANCEL_REQUESTED, S.CANCELLING),
    (S.RUNNING, T.FELL_BACK, S.PENDING),
    (S.RUNNING, T.TAKEN_OVER, S.RUNNING),
    (S.CANCELLING, T.RUN_CANCELLED, S.CANCELLED),
    (S.CANCELLING, T.MODEL_DISCARDED, S.CANCELLED),
    (S.CANCELLING, T.ATTEMPT_FAILED, S.CANCELLED),
    (S.CANCELLING, T.ATTEMPT_FAILED_RETRYABLE, S.CANCELLED),
    (S.CANCELLING, T.ATTEMPTS_EXHAUSTED, S.CANCELLED),
    (S.CANCELLING, T.LEASE_EXPIRED, S.CANCELLED),
    (S.CANCELLING, T.TAKEN_OVER, S.CANCELLED),
]


@pytest.mark.parametrize(
    ("before", "trigger", "after"), EDGES, ids=lambda value: str(value).replace(" ", "-")
)
def test_an_edge_leads_where_it_should(before: State, trigger: Trigger, after: State) -> None:
    assert apply(before, trigger) is after


def test_there_are_no_other_edges() -> None:
    assert {(before, trigger): after for before, trigger, after in EDGES} == TRANSITIONS


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_what_has_no_edge_changes_nothing(state: State, trigger: Trigger) -> None:
    if (state, trigger) not in TRANSITIONS:
        assert apply(state, trigger) is state


def test_every_state_can_reach_an_end() -> None:
    ending = {state for state in State if state.terminal}
    while more := {before for (before, _), after in TRANSITIONS.items() if after in ending} - ending:
        ending |= more
    assert ending == set(State)


def _walk(triggers: list[Trigger]) -> list[State]:
    states = [State.PENDING]
    for trigger in triggers:
        states.append(apply(states[-1], trigger))
    return states


sequences = st.lists(st.sampled_from(list(Trigger)), max_size=30)


@given(sequences)
def test_terminal_states_absorb(triggers: list[Trigger]) -> None:
    ends = {state for state in _walk(triggers) if state.terminal}
    assert len(ends) <= 1


@given(sequences)
def test_what_is_asked_to_stop_never_completes_or_runs_again(triggers: list[Trigger]) -> None:
    states = _walk(triggers)
    for position, (state, trigger) in enumerate(zip(states, triggers, strict=False)):
        if trigger is Trigger.CANCEL_REQUESTED and not state.terminal:
            assert set(states[position + 1 :]) <= {State.CANCELLING, State.CANCELLED}


@given(sequences)
def test_only_a_persisted_model_completes_an_operation(triggers: list[Trigger]) -> None:
    states = _walk(triggers)
    for before, after, trigger in zip(states, states[1:], triggers, strict=False):
        if after is State.COMPLETED and before is not after:
            assert trigger is Trigger.MODEL_PERSISTED


def test_the_diagram_shows_every_edge() -> None:
    diagram = mermaid()
    for before, trigger, after in EDGES:
        (line,) = [line for line in diagram.splitlines() if line.startswith(f"    {before} --> {after}:")]
        assert trigger.value in line


def test_the_diagram_can_be_printed_by_the_module() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "ktrdr.backend.states"], capture_output=True, text=True, check=True
    )
    assert run.stdout == mermaid()
