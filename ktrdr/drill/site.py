"""A whole installation under the scratch prefix: a backend, two host agents, and something to train."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from ktrdr.app.embedded import prepare, submission_of
from ktrdr.app.serving import Served, served
from ktrdr.backend.records import HistoryEntry, ModelRecord, OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.wishes import TrainingWish
from ktrdr.bus.rabbitmq import RabbitMQBus
from ktrdr.drill.agent_process import AgentProcess
from ktrdr.drill.market import write_bars, write_strategy
from ktrdr.drill.names import AGENTS
from ktrdr.drill.pace import Pace
from ktrdr.drill.proxy import Proxy
from ktrdr.drill.results import BrokenPromiseError, UncheckableError
from ktrdr.drill.scratch_broker import ScratchBroker
from ktrdr.drill.tap import Tap, tapping
from ktrdr.drill.waiting import wait_for
from ktrdr.ids import RandomIds
from ktrdr.models.directory import ModelDirectory
from ktrdr.settings import Settings

_INLINE_LIMIT_BYTES = 16 * 1024
"""So that a training of seconds sends its model by reference, and a quick one in the message."""
_SEED = 7
_REHEARSAL_EPOCHS = 100


class Site:
    """What drills do with the installation; see `opened`."""

    def __init__(self, app: Served, agents: tuple[AgentProcess, ...], tap: Tap, pace: Pace) -> None:
        self._app = app
        self._pace = pace
        self._epoch_s = 0.0
        assert app.hosts is not None  # the scene names a broker
        self.backend = app.hosts
        self.store = app.store
        self.agents = agents
        self.tap = tap

    @property
    def blobs_dir(self) -> Path:
        """Where the blobs are."""
        return self._app.settings.blobs_dir

    # --- agents -----------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Return when both agents wait for work; those that were killed are started again.

        Raises:
            UncheckableError: they do not come.
        """
        for agent in self.agents:
            if not agent.is_running:
                await agent.start()
        try:
            await wait_for(
                self._are_ready, within_s=self._pace.agents_ready_within_s, what="two agents to be ready"
            )
            if not self._epoch_s:
                await self._rehearse()
        except BrokenPromiseError as error:
            words = "; ".join(f"{agent.agent_id}: {agent.last_words()}" for agent in self.agents)
            raise UncheckableError(
                f"{error.message} Their logs end with: {words}", "Run `ktrdr doctor`: can this machine train?"
            ) from error

    def holder_of(self, operation: OperationRecord) -> AgentProcess:
        """Return the agent that holds an operation."""
        return next(agent for agent in self.agents if agent.agent_id == operation.agent_id)

    def other_than(self, agent: AgentProcess) -> AgentProcess:
        """Return the agent that is not this one."""
        return next(other for other in self.agents if other is not agent)

    # --- trainings --------------------------------------------------------------------------------

    async def train(self, seconds: float = 0.0, *, lane: str = "any") -> str:
        """Submit a training that lasts about so long, and return its operation's id."""
        epochs = _REHEARSAL_EPOCHS if not seconds else max(1, round(seconds / self._epoch_s))
        wish = TrainingWish("drill", overrides={"training.epochs": epochs}, seed=_SEED, lane=lane)
        prepared = await asyncio.to_thread(prepare, wish, self._app.settings, self._app.blobs)
        submission = await self.backend.submit(submission_of(prepared, wish, RandomIds()))
        return submission.operation.operation_id

    async def until(
        self,
        operation_id: str,
        condition: Callable[[OperationRecord], bool],
        *,
        within_s: float,
        what: str,
    ) -> OperationRecord:
        """Return the operation as soon as it fulfils a condition.

        Raises:
            BrokenPromiseError: it ended otherwise, or not in time.
        """
        record: OperationRecord | None = None
        try:
            async with asyncio.timeout(within_s), aclosing(self.backend.watch(operation_id)) as records:
                async for record in records:
                    if condition(record):
                        return record
        except TimeoutError:
            pass
        state = f"is {record.state}" if record is not None else "is not there"
        if record is not None and record.message:
            state += f" ({record.message})"
        raise BrokenPromiseError(f"Waited up to {within_s:g} s for {what}; the operation {state}.")

    async def running(self, operation_id: str, *, epochs: int = 1) -> OperationRecord:
        """Return the operation when its run has completed so many epochs; raises as `until` does."""

        def has_begun(record: OperationRecord) -> bool:
            progress = record.progress
            return (
                record.state is State.RUNNING
                and progress is not None
                and progress.attempt == record.attempt
                and progress.epoch >= epochs
            )

        what = "an agent to train"
        return await self.until(operation_id, has_begun, within_s=self._pace.job_within_s, what=what)

    async def completed(self, operation_id: str, *, within_s: float | None = None) -> OperationRecord:
        """Return the operation when it is completed; raises as `until` does."""
        return await self.until(
            operation_id,
            lambda record: record.state is State.COMPLETED,
            within_s=within_s or self._pace.job_within_s,
            what="the model",
        )

    def history(self, operation_id: str) -> list[HistoryEntry]:
        """Return what happened to an operation; blocks."""
        return self.store.history(operation_id)

    async def check_one_model(self, operation_id: str) -> ModelRecord:
        """Return the only model of an operation, whose files are whole.

        Raises:
            BrokenPromiseError: there is none, or several, or it is damaged.
        """
        return await asyncio.to_thread(self._check_one_model, operation_id)

    def models_of(self, operation_id: str) -> list[ModelRecord]:
        """Return the registered models of an operation; blocks."""
        return [model for model in self.store.models.all_models() if model.operation_id == operation_id]

    # --- inside -----------------------------------------------------------------------------------

    def _are_ready(self) -> bool:
        known = {agent.agent_id: agent for agent in self.store.agents()}
        return all(
            agent.is_running
            and (record := known.get(agent.agent_id)) is not None
            and record.status == "ready"
            and record.device != "unknown"
            for agent in self.agents
        )

    async def _rehearse(self) -> None:
        """Find out how long an epoch takes here, and have done what is slow only the first time."""
        model = await self.check_one_model((await self.completed(await self.train())).operation_id)
        manifest = model.manifest
        seconds = next(timing.seconds for timing in manifest.timings if timing.stage == "Training")
        self._epoch_s = max(seconds / manifest.epochs_trained, 1e-4)

    def _check_one_model(self, operation_id: str) -> ModelRecord:
        models = self.models_of(operation_id)
        if len(models) != 1:
            raise BrokenPromiseError(f"The operation has {len(models)} models, not one.")
        (model,) = models
        settings = self._app.settings
        findings = ModelDirectory(settings.models_dir).verify(model.name, model.files)
        if findings:
            raise BrokenPromiseError(f"The files of its model are not whole: {findings[0]}.")
        return model


@asynccontextmanager
async def opened(
    broker: ScratchBroker, bus: RabbitMQBus, url: str, prefix: str, directory: Path, pace: Pace
) -> AsyncIterator[Site]:
    """Run the installation as long as the block runs; `Site.ready` says when its agents are there.

    Args:
        broker: knows the nodes.
        bus: listens in.
        url: of the broker.
        prefix: of all names there.
        directory: for everything on the disk.
        pace: times.

    Raises:
        BusError: the broker does not allow it.
    """
    settings = _settings(url, prefix, directory, pace)
    await asyncio.to_thread(write_strategy, settings.strategies_dir)
    await asyncio.to_thread(write_bars, settings.data_dir)
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(served(settings))
        tap = await stack.enter_async_context(tapping(bus))
        agents = []
        for agent_id in AGENTS:
            proxy = await stack.enter_async_context(Proxy(broker.addresses))
            own = settings.model_copy(
                update={
                    "home": directory / agent_id,
                    "agent_id": agent_id,
                    "broker_url": SecretStr(proxy.url),
                    "broker_heartbeat_s": pace.heartbeat_s,
                    "blob_store": str(settings.blobs_dir),
                }
            )
            agents.append(AgentProcess(own, proxy, directory / f"{agent_id}.log"))
        try:
            for agent in agents:
                await agent.start()
            yield Site(app, tuple(agents), tap, pace)
        finally:
            for agent in agents:
                agent.proxy.mend()
            await asyncio.gather(*(agent.stop() for agent in agents))


def _settings(url: str, prefix: str, directory: Path, pace: Pace) -> Settings:
    values = {
        "home": directory / "home",
        "models_dir": directory / "models",
        "data_dir": directory / "data",
        "strategies_dir": directory / "strategies",
        "broker_url": SecretStr(url),
        "broker_prefix": prefix,
        "listen": "127.0.0.1:0",
        "device": "cpu",
        "drain_s": 0.0,
        "lease_s": pace.lease_s,
        "accept_deadline_s": pace.accept_within_s,
        "retry_backoff_s": 0.1,
        "presence_interval_s": 1.0,
        "inline_limit_bytes": _INLINE_LIMIT_BYTES,
    }
    # Nothing of the user's own installation: not its database, not its limits.
    return Settings(_env_prefix="KTRDR_DRILL_HAS_NONE_", **values)  # type: ignore[arg-type]
