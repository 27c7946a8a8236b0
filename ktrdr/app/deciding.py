"""What the decision where a training runs is made of: presence, queues, and what is in this machine."""

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, partial

from ktrdr.backend.configuration import read_value, set_value
from ktrdr.backend.instances import BROKER_INSTANCE
from ktrdr.backend.records import AgentRecord, AgentStatus, OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.wishes import TrainingWish
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Decision, Here, Host, Hosts, Mode, Wanted, choose

DEFAULT_MODE = "default_mode"
"""Its name in the configuration."""

_DEVICES_WITHIN_S = 60.0

_UNFIT = {
    AgentStatus.DRAINING: "is draining",
    AgentStatus.STOPPED: "has stopped",
    AgentStatus.DETACHED: "cannot be heard",
    AgentStatus.SILENT: "fell silent",
}


@dataclass(frozen=True, slots=True)
class DefaultMode:
    """The mode of trainings for which none is named."""

    mode: Mode
    source: str
    """Who says so, in words."""


def default_mode(settings: Settings, store: OperationStore | None) -> DefaultMode:
    """Return what was set at run time, else ``KTRDR_DEFAULT_MODE``, else ``host`` if a broker is named.

    It blocks.

    Args:
        settings: of this process.
        store: where it may have been set; None if there is no database yet.
    """
    stored = None
    if store is not None:
        with store.reading() as connection:
            stored = read_value(connection, DEFAULT_MODE)
    if stored is not None:
        return DefaultMode(Mode(stored), "set at run time")
    if settings.default_mode is not None:
        return DefaultMode(Mode(settings.default_mode), "KTRDR_DEFAULT_MODE")
    if settings.broker_url is not None:
        return DefaultMode(Mode.HOST, "a broker is named")
    return DefaultMode(Mode.LOCAL, "no broker is named")


def set_default_mode(store: OperationStore, mode: Mode) -> None:
    """Set it for every process on the database, until it is set again. Blocks.

    Raises:
        DatabaseUnavailableError: it cannot be recorded.
    """
    store.change(partial(set_value, name=DEFAULT_MODE, value=mode.value))


def decide_for_command(settings: Settings, wish: TrainingWish, mode: Mode | None) -> Decision:
    """Decide where a command's training runs: in its own process, or on hosts by way of ``ktrdr serve``.

    It blocks.

    Raises:
        NowhereToTrainError: it requires a GPU, and there is none where it may run.
        DatabaseUnavailableError: the database cannot be used.
    """
    here = Here(slots=settings.slots, gpu=local_gpu(settings.device) if wish.require_gpu else None)
    nobody = Hosts(unreachable="no `ktrdr serve` runs on this database, which speaks with host agents")
    # Before the first training there is no database; to make one takes a while, and is made for others.
    if not OperationStore.exists(settings):
        return choose(wanted_of(wish, mode, default_mode(settings, None)), here, nobody)
    with OperationStore.open(settings) as store:
        hosts = what_hosts_are(store, None) if store.is_served() else nobody
        return choose(wanted_of(wish, mode, default_mode(settings, store)), here, hosts)


def wanted_of(wish: TrainingWish, mode: Mode | None, default: DefaultMode) -> Wanted:
    """Return what is to be decided about a wish."""
    return Wanted(
        mode=mode or default.mode, is_default=mode is None, require_gpu=wish.require_gpu, lane=wish.lane
    )


def what_is_here(settings: Settings, store: OperationStore, instance: str, *, with_gpu: bool) -> Here:
    """Return what an instance that trains in this process can do. Blocks.

    Args:
        settings: its slots and device.
        store: where its trainings are.
        instance: its name.
        with_gpu: whether to find out about a GPU, which may take seconds the first time.
    """
    own = [operation for operation in store.unfinished() if operation.owner == instance]
    return Here(
        slots=settings.slots,
        busy=sum(not _is_waiting(operation) for operation in own),
        queued=sum(_is_waiting(operation) for operation in own),
        gpu=local_gpu(settings.device) if with_gpu else None,
    )


def what_hosts_are(store: OperationStore, unreachable: str | None) -> Hosts:
    """Return what is known of the host agents. Blocks.

    Args:
        store: where presence is recorded.
        unreachable: why nothing can be sent to any, if so.
    """
    waiting = [op for op in store.unfinished() if op.owner == BROKER_INSTANCE and _is_waiting(op)]
    return Hosts(
        agents=[_host(agent) for agent in store.agents()], queued=len(waiting), unreachable=unreachable
    )


@cache
def local_gpu(device: str) -> str | None:
    """Return the GPU that a runner of this process would train on; None if that is the CPU. Blocks.

    Torch is asked, in a process of its own: it takes seconds, and memory, that most trainings need not.
    """
    if device == "cpu":
        return None
    asked = subprocess.run(
        [sys.executable, "-m", "host_agent.devices"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_DEVICES_WITHIN_S,
        check=True,
    )
    found = [each["device"] for each in json.loads(asked.stdout) if each["device"] != "cpu"]
    fit = [gpu for gpu in found if device in ("auto", gpu)]
    return fit[0] if fit else None


def _host(agent: AgentRecord) -> Host:
    unfit = _UNFIT.get(agent.status)
    if unfit is None and not agent.is_understood:
        unfit = "must be upgraded"
    return Host(
        name=agent.agent_id,
        lanes=agent.lanes,
        slots=agent.slots_total,
        busy=agent.slots_busy,
        gpu=agent.device if agent.has_gpu else None,
        unfit=unfit,
    )


def _is_waiting(operation: OperationRecord) -> bool:
    return operation.state in (State.PENDING, State.QUEUED)
