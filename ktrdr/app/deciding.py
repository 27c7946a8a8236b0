"""What the decision where a training runs is made of: presence, queues, and what is in this machine."""

import json
import subprocess
import sys
from functools import cache

from ktrdr.backend.audit import Witness
from ktrdr.backend.configuration import read_value, set_value
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import AgentRecord, AgentStatus, Load
from ktrdr.backend.store import OperationStore
from ktrdr.backend.wishes import DefaultMode, TrainingWish
from ktrdr.backend.work import Work
from ktrdr.errors import SettingsError
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


def default_mode(settings: Settings, store: OperationStore | None) -> DefaultMode:
    """Return what was set at run time, else ``KTRDR_DEFAULT_MODE``, else ``host`` if a broker is named.

    It blocks.

    Args:
        settings: of this process.
        store: where it may have been set; None if there is no database yet.
    """
    stored = None
    if store is not None:
        with store.looking_up() as connection:
            stored = read_value(connection, DEFAULT_MODE)
    if stored is not None:
        return DefaultMode(Mode(stored), "set at run time")
    if settings.default_mode is not None:
        return DefaultMode(Mode(settings.default_mode), "KTRDR_DEFAULT_MODE")
    if settings.broker_url is not None:
        return DefaultMode(Mode.HOST, "a broker is named")
    return DefaultMode(Mode.LOCAL, "no broker is named")


def set_default_mode(store: OperationStore, mode: Mode, *, witness: Witness | None = None) -> None:
    """Set it for every process on the database, until it is set again. Blocks.

    Args:
        store: the database.
        mode: from now on.
        witness: of the change.

    Raises:
        DatabaseUnavailableError: it cannot be recorded.
    """

    def action(work: Work) -> None:
        set_value(work, DEFAULT_MODE, mode.value)
        if witness is not None:
            witness(work, f"{DEFAULT_MODE}={mode}")

    store.change(action)


def waits_in_lane(wish: TrainingWish, mode: Mode | None) -> bool:
    """Return whether nothing is to be decided, as a lane was named: it waits there, and never runs elsewhere.

    Raises:
        SettingsError: a mode is named too, and it is not ``host``.
    """
    if wish.names_lane and mode not in (None, Mode.HOST):
        raise SettingsError(
            f"A lane chooses among host agents, and mode {mode} was asked for.",
            fix="Name no lane, or mode host.",
        )
    return wish.names_lane


def decide_for_command(settings: Settings, wish: TrainingWish, mode: Mode | None) -> Decision | None:
    """Decide where a command's training runs: in its own process, or on hosts by way of ``ktrdr serve``.

    It blocks.

    Returns:
        The decision; None: it waits in the lane that was named.

    Raises:
        SettingsError: a lane was named, and a mode other than ``host``.
        NowhereToTrainError: it requires a GPU, and there is none where it may run.
        DatabaseUnavailableError: the database cannot be used.
    """
    if waits_in_lane(wish, mode):
        return None
    here = Here(slots=settings.slots, gpu=local_gpu(settings.device) if wish.require_gpu else None)
    nobody = Hosts(unreachable="no `ktrdr serve` runs on this database, which speaks with host agents")
    # Before the first training there is no database; to make one takes a while, and is made for others.
    if not OperationStore.exists(settings):
        return choose(wanted_of(wish, mode, default_mode(settings, None).mode), here, nobody)
    with OperationStore.open(settings) as store:
        hosts = what_hosts_are(store, with_load=True) if store.is_served() else nobody
        return choose(wanted_of(wish, mode, default_mode(settings, store).mode), here, hosts)


def wanted_of(wish: TrainingWish, mode: Mode | None, default: Mode) -> Wanted:
    """Return what is to be decided about a wish."""
    return Wanted(mode=mode or default, is_default=mode is None, require_gpu=wish.require_gpu, lane=wish.lane)


def decide(
    settings: Settings,
    store: OperationStore,
    wish: TrainingWish,
    mode: Mode | None,
    *,
    instance: str,
    unreachable: str | None,
) -> Decision:
    """Decide where a training runs that a backend has been asked for. Blocks.

    Args:
        settings: of this process.
        store: where trainings and presence are.
        wish: what to train.
        mode: where; None: as `default_mode` says.
        instance: the name of the one that trains in this process.
        unreachable: why nothing can be sent to any host agent, if so.

    Raises:
        NowhereToTrainError: it requires a GPU, and there is none where it may run.
        DatabaseUnavailableError: the database cannot be used.
    """
    wanted = wanted_of(wish, mode, mode or default_mode(settings, store).mode)
    # Asked only for what the decision depends on: trainings may come by the thousand.
    with_load = wanted.mode is Mode.AUTO and not wish.require_gpu
    here = what_is_here(settings, store, instance, with_gpu=wish.require_gpu, with_load=with_load)
    if wanted.mode is Mode.LOCAL or unreachable is not None:
        return choose(wanted, here, Hosts(unreachable=unreachable))
    return choose(wanted, here, what_hosts_are(store, with_load=with_load))


def what_is_here(
    settings: Settings, store: OperationStore, instance: str, *, with_gpu: bool, with_load: bool
) -> Here:
    """Return what an instance that trains in this process can do. Blocks.

    Args:
        settings: its slots and device.
        store: where its trainings are.
        instance: its name.
        with_gpu: whether to find out about a GPU, which may take seconds the first time.
        with_load: whether to count its trainings.
    """
    load = store.load(instance) if with_load else Load()
    return Here(
        slots=settings.slots,
        busy=load.running,
        queued=load.waiting,
        gpu=local_gpu(settings.device) if with_gpu else None,
    )


def what_hosts_are(store: OperationStore, *, with_load: bool) -> Hosts:
    """Return what is known of the host agents. Blocks.

    Args:
        store: where presence is recorded.
        with_load: whether to count what waits for them.
    """
    load = store.load(BROKER_OWNER) if with_load else Load()
    return Hosts(agents=[_host(agent) for agent in store.agents()], queued=load.waiting)


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
