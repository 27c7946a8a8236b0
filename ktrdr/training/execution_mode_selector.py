"""Where a training runs: here, or on a host agent. Pure: values in, a decision with its reason out.

========= =============== ==================================================================================
mode      agents that fit result
========= =============== ==================================================================================
``local`` –               here; an error if it requires a GPU and there is none here
``host``  some            on a host
``host``  none            here, as a fallback; an error if it requires a GPU
``auto``  –               where a GPU is, if it requires one, here first; an error if there is none. Else here
                          if a slot is free, else on a free host, else where less waits for each slot
========= =============== ==================================================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ktrdr.errors import NowhereToTrainError

_NAMED = 3


class Mode(StrEnum):
    """Where a client wants a training to run."""

    AUTO = "auto"
    """Wherever it runs soonest."""
    LOCAL = "local"
    """In the process that accepts it, or beside it."""
    HOST = "host"
    """On a host agent, by way of the broker."""


class Place(StrEnum):
    """Where a training runs."""

    LOCAL = "local"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be decided."""

    mode: Mode
    is_default: bool = False
    """Whether nobody named the mode."""
    require_gpu: bool = False
    lane: str = "any"


@dataclass(frozen=True, slots=True)
class Here:
    """What can train without a broker."""

    slots: int
    busy: int = 0
    queued: int = 0
    """Trainings that wait for a slot."""
    gpu: str | None = None
    """Its device, if that is a GPU."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host agent, as its presence tells of it."""

    name: str
    lanes: tuple[str, ...]
    slots: int
    busy: int = 0
    gpu: str | None = None
    """Its device, if that is a GPU."""
    unfit: str | None = None
    """Why it takes no work at all: it is silent, for example."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """What can train by way of the broker."""

    agents: Sequence[Host] = ()
    queued: int = 0
    """Trainings that wait for an agent."""
    unreachable: str | None = None
    """Why nothing can be sent to any of them: no broker is named, for example."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a training runs, and why."""

    mode: Mode
    """What was asked for, or the default."""
    where: Place
    reason: str
    """In words, without a full stop."""
    is_fallback: bool = False
    """Whether it runs here although it was to run on a host."""

    @property
    def sentence(self) -> str:
        """The reason, to be read alone."""
        return f"{self.reason[0].upper()}{self.reason[1:]}."


def choose(wanted: Wanted, here: Here, hosts: Hosts) -> Decision:
    """Decide where a training runs; see the table above.

    Raises:
        NowhereToTrainError: it requires a GPU, and there is none where it may run.
    """
    match wanted.mode:
        case Mode.LOCAL:
            return _local(wanted, here)
        case Mode.HOST:
            return _host(wanted, hosts)
        case Mode.AUTO if wanted.require_gpu:
            return _where_a_gpu_is(wanted, here, hosts)
        case Mode.AUTO:
            return _soonest(wanted, here, hosts)


def _local(wanted: Wanted, here: Here) -> Decision:
    if not wanted.require_gpu:
        return Decision(wanted.mode, Place.LOCAL, _asked_for(wanted))
    if here.gpu is None:
        raise NowhereToTrainError(
            "It requires a GPU and is to run here, where there is none.",
            fix="Ask for mode host or auto, or do without a GPU.",
        )
    return Decision(wanted.mode, Place.LOCAL, f"{_asked_for(wanted)}, and its GPU is {here.gpu}")


def _host(wanted: Wanted, hosts: Hosts) -> Decision:
    if fit := _fit(wanted, hosts):
        return Decision(wanted.mode, Place.HOST, f"{_asked_for(wanted)}; {_serve(fit, wanted)}")
    missing = _missing(wanted, hosts)
    if wanted.require_gpu:
        raise NowhereToTrainError(
            f"It requires a GPU on a host agent, and {missing}.",
            fix=_how_to_have_a_gpu(wanted, hosts),
        )
    return Decision(
        wanted.mode, Place.LOCAL, f"{_asked_for(wanted)}, but {missing}: it runs here", is_fallback=True
    )


def _where_a_gpu_is(wanted: Wanted, here: Here, hosts: Hosts) -> Decision:
    if here.gpu is not None:
        return Decision(wanted.mode, Place.LOCAL, f"it requires a GPU, and there is one here: {here.gpu}")
    if fit := _fit(wanted, hosts):
        return Decision(
            wanted.mode, Place.HOST, f"it requires a GPU, and there is none here; {_serve(fit, wanted)}"
        )
    raise NowhereToTrainError(
        f"It requires a GPU; there is none here, and {_missing(wanted, hosts)}.",
        fix=_how_to_have_a_gpu(wanted, hosts),
    )


def _soonest(wanted: Wanted, here: Here, hosts: Hosts) -> Decision:
    if here.busy + here.queued < here.slots:
        return Decision(wanted.mode, Place.LOCAL, "a slot is free here")
    fit = _fit(wanted, hosts)
    if not fit:
        why = f"no slot is free here, and {_missing(wanted, hosts)}: it waits here"
        return Decision(wanted.mode, Place.LOCAL, why)
    free = sum(max(0, agent.slots - agent.busy) for agent in fit)
    if free > hosts.queued:
        why = f"no slot is free here, and {free} of lane {wanted.lane} are: {_names(fit)}"
        return Decision(wanted.mode, Place.HOST, why)
    slots = sum(agent.slots for agent in fit)
    counts = f"{here.queued} for {here.slots} slots here, {hosts.queued} for {slots} on hosts"
    # Compared without dividing: an agent may say that it has no slots.
    if hosts.queued * here.slots < here.queued * slots:
        return Decision(wanted.mode, Place.HOST, f"less waits for each slot there: {counts}")
    return Decision(wanted.mode, Place.LOCAL, f"no more waits for each slot here: {counts}")


def _how_to_have_a_gpu(wanted: Wanted, hosts: Hosts) -> str:
    agent = f"an agent with a GPU: ktrdr agent --lane {wanted.lane}"
    if hosts.unreachable is not None:
        # An agent alone would not help.
        return f"Have a broker (KTRDR_BROKER_URL) and, on it, {agent}; or do without a GPU."
    return f"Start {agent}; or do without a GPU."


def _asked_for(wanted: Wanted) -> str:
    return f"{wanted.mode} is the default mode" if wanted.is_default else f"{wanted.mode} was asked for"


def _fit(wanted: Wanted, hosts: Hosts) -> list[Host]:
    if hosts.unreachable is not None:
        return []
    able = [agent for agent in hosts.agents if agent.unfit is None and wanted.lane in agent.lanes]
    return [agent for agent in able if agent.gpu is not None] if wanted.require_gpu else able


def _missing(wanted: Wanted, hosts: Hosts) -> str:
    """Return in words why no agent fits."""
    if hosts.unreachable is not None:
        return hosts.unreachable
    serving = [agent for agent in hosts.agents if wanted.lane in agent.lanes]
    if not serving:
        return f"no agent serves lane {wanted.lane}"
    able = [agent for agent in serving if agent.unfit is None]
    if not able:
        why = ", ".join(f"{agent.name} {agent.unfit}" for agent in serving[:_NAMED])
        return f"no agent of lane {wanted.lane} takes work ({why})"
    return f"no agent of lane {wanted.lane} has a GPU ({_names(able)})"


def _serve(fit: Sequence[Host], wanted: Wanted) -> str:
    return f"{_names(fit)} {'serves' if len(fit) == 1 else 'serve'} lane {wanted.lane}"


def _names(agents: Sequence[Host]) -> str:
    named = ", ".join(agent.name for agent in agents[:_NAMED])
    return named if len(agents) <= _NAMED else f"{named} and {len(agents) - _NAMED} more"
