"""Where a training runs: every cell of the table."""

import pytest

from ktrdr.errors import NowhereToTrainError
from ktrdr.training.execution_mode_selector import Here, Host, Hosts, Mode, Place, Wanted, choose

HERE = Here(slots=1)
FULL = Here(slots=1, busy=1)
WITH_GPU = Here(slots=1, gpu="mps")
CPU_HOST = Host("alpha", lanes=("any",), slots=2)
GPU_HOST = Host("beta", lanes=("gpu", "any"), slots=1, gpu="cuda")
NO_HOSTS = Hosts()


def _hosts(*agents: Host, queued: int = 0) -> Hosts:
    return Hosts(agents=agents, queued=queued)


# --- local


@pytest.mark.parametrize("hosts", [NO_HOSTS, _hosts(GPU_HOST)])
def test_local_runs_here_whatever_hosts_there_are(hosts: Hosts) -> None:
    decision = choose(Wanted(Mode.LOCAL), FULL, hosts)
    assert (decision.where, decision.reason) == (Place.LOCAL, "local was asked for")
    assert not decision.is_fallback


def test_local_that_requires_a_gpu_runs_here_if_there_is_one() -> None:
    decision = choose(Wanted(Mode.LOCAL, require_gpu=True), WITH_GPU, NO_HOSTS)
    assert decision.where is Place.LOCAL
    assert "mps" in decision.reason


def test_local_that_requires_a_gpu_is_an_error_if_there_is_none_here() -> None:
    with pytest.raises(NowhereToTrainError, match=r"run here, where there is none\. Ask for mode host"):
        choose(Wanted(Mode.LOCAL, require_gpu=True), HERE, _hosts(GPU_HOST))


# --- host


@pytest.mark.parametrize("busy", [0, 2])
def test_host_runs_on_a_host_also_if_it_has_to_wait_for_a_slot(busy: int) -> None:
    agent = Host("alpha", lanes=("any",), slots=2, busy=busy)
    decision = choose(Wanted(Mode.HOST), HERE, _hosts(agent, queued=9))
    assert (decision.where, decision.reason) == (Place.HOST, "host was asked for; alpha serves lane any")


def test_host_that_requires_a_gpu_runs_where_one_is() -> None:
    decision = choose(Wanted(Mode.HOST, require_gpu=True), HERE, _hosts(CPU_HOST, GPU_HOST))
    assert (decision.where, decision.reason) == (Place.HOST, "host was asked for; beta serves lane any")


@pytest.mark.parametrize(
    ("hosts", "missing"),
    [
        (NO_HOSTS, "no agent serves lane any"),
        (_hosts(Host("alpha", lanes=("gpu",), slots=1)), "no agent serves lane any"),
        (
            _hosts(Host("alpha", lanes=("any",), slots=1, unfit="fell silent")),
            "no agent of lane any takes work (alpha fell silent)",
        ),
        (
            Hosts(agents=(CPU_HOST,), unreachable="the broker cannot be reached"),
            "the broker cannot be reached",
        ),
    ],
)
def test_host_falls_back_to_here_if_no_agent_fits_and_says_why(hosts: Hosts, missing: str) -> None:
    decision = choose(Wanted(Mode.HOST), FULL, hosts)
    assert (decision.where, decision.is_fallback) == (Place.LOCAL, True)
    assert decision.reason == f"host was asked for, but {missing}: it runs here"
    assert decision.sentence == f"Host was asked for, but {missing}: it runs here."


@pytest.mark.parametrize(
    ("hosts", "missing"),
    [
        (NO_HOSTS, "no agent serves lane any"),
        (_hosts(CPU_HOST), r"no agent of lane any has a GPU \(alpha\)"),
        (Hosts(unreachable="no broker is named"), "no broker is named"),
    ],
)
def test_host_that_requires_a_gpu_never_falls_back(hosts: Hosts, missing: str) -> None:
    what_to_do = "Start|Have a broker"
    refused = rf"requires a GPU on a host agent, and {missing}\. ({what_to_do})"
    with pytest.raises(NowhereToTrainError, match=refused):
        choose(Wanted(Mode.HOST, require_gpu=True), WITH_GPU, hosts)


# --- auto


def test_auto_that_requires_a_gpu_runs_here_first() -> None:
    decision = choose(Wanted(Mode.AUTO, require_gpu=True), WITH_GPU, _hosts(GPU_HOST))
    assert (decision.where, decision.reason) == (
        Place.LOCAL,
        "it requires a GPU, and there is one here: mps",
    )


def test_auto_that_requires_a_gpu_runs_on_a_host_if_there_is_none_here() -> None:
    decision = choose(Wanted(Mode.AUTO, require_gpu=True), HERE, _hosts(CPU_HOST, GPU_HOST))
    assert decision.where is Place.HOST
    assert "beta serves" in decision.reason


def test_auto_that_requires_a_gpu_is_an_error_if_there_is_none_anywhere() -> None:
    with pytest.raises(NowhereToTrainError, match=r"there is none here, and no agent of lane any has a GPU"):
        choose(Wanted(Mode.AUTO, require_gpu=True), HERE, _hosts(CPU_HOST))


def test_auto_runs_here_while_a_slot_is_free() -> None:
    decision = choose(Wanted(Mode.AUTO), Here(slots=2, busy=1), _hosts(CPU_HOST))
    assert (decision.where, decision.reason) == (Place.LOCAL, "a slot is free here")


def test_a_slot_that_somebody_waits_for_is_not_free() -> None:
    decision = choose(Wanted(Mode.AUTO), Here(slots=2, busy=1, queued=1), _hosts(CPU_HOST))
    assert decision.where is Place.HOST


def test_auto_runs_on_a_free_host_if_no_slot_is_free_here() -> None:
    decision = choose(Wanted(Mode.AUTO), FULL, _hosts(CPU_HOST, queued=1))
    assert (decision.where, decision.reason) == (
        Place.HOST,
        "no slot is free here, and 2 of lane any are: alpha",
    )


@pytest.mark.parametrize(
    ("queued_here", "queued_there", "where"),
    [(0, 2, Place.LOCAL), (1, 2, Place.LOCAL), (2, 2, Place.HOST), (0, 0, Place.LOCAL)],
)
def test_auto_waits_where_less_waits_for_each_slot_and_here_if_that_is_the_same(
    queued_here: int, queued_there: int, where: Place
) -> None:
    busy = Host("alpha", lanes=("any",), slots=2, busy=2)
    decision = choose(
        Wanted(Mode.AUTO), Here(slots=1, busy=1, queued=queued_here), _hosts(busy, queued=queued_there)
    )
    assert decision.where is where
    assert f"{queued_here} for 1 slots here, {queued_there} for 2 on hosts" in decision.reason


def test_auto_waits_here_if_no_host_fits() -> None:
    decision = choose(Wanted(Mode.AUTO), FULL, NO_HOSTS)
    assert (decision.where, decision.is_fallback) == (Place.LOCAL, False)
    assert "no agent serves lane any: it waits here" in decision.reason


# --- words


def test_the_reason_tells_a_default_from_what_was_asked_for() -> None:
    decision = choose(Wanted(Mode.LOCAL, is_default=True), HERE, NO_HOSTS)
    assert decision.reason == "local is the default mode"


def test_of_many_agents_some_are_named() -> None:
    agents = [Host(f"agent-{number}", lanes=("any",), slots=1) for number in range(5)]
    decision = choose(Wanted(Mode.HOST), HERE, _hosts(*agents))
    assert "agent-0, agent-1, agent-2 and 2 more serve lane any" in decision.reason
