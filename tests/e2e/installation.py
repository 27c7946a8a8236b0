"""An installation of ktrdr in a directory of its own, used as people use it: by commands, each a process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

import psutil
from sqlalchemy import select

from ktrdr.backend.records import HistoryEntry, OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import outbox
from ktrdr.models.directory import ModelDirectory
from ktrdr.settings import Settings
from tests.e2e.command import Command, command_line
from tests.e2e.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
MOMENTUM = REPOSITORY / "strategies" / "eurusd_momentum.yaml"
TWO_TIMEFRAMES = REPOSITORY / "strategies" / "eurusd_two_timeframes.yaml"

GONE_WITHIN_S = 30.0
"""So soon after the death of a command nothing that it has started may be left."""

_MARK = "E2E_INSTALLATION"
"""In the environment of each process that an installation's commands start, runners included."""


def epochs(number: int) -> tuple[str, ...]:
    """Return options that make a training last for so many epochs, of some 15 ms each."""
    return ("--set", f"training.epochs={number}", "--set", "training.early_stopping=false")


class Installation:
    """A home and a models directory, the commands that use them, and what must hold afterwards.

    A context manager: what still runs at its end is killed, so that a test that fails leaves nothing.
    """

    def __init__(self, root: Path, *, home: Path | None = None, models: Path | None = None) -> None:
        self.root = root
        self.home = home or root / "home"
        self.models = models or root / "models"
        self.variables: dict[str, str] = {"KTRDR_LISTEN": "127.0.0.1:0"}
        """More of the environment of commands that are started from now on."""
        self.settings = Settings(home=self.home, models_dir=self.models)
        self._store: OperationStore | None = None
        self._commands: list[Command] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            process.kill()
        for command in self._commands:
            command.process.wait()
        if self._store is not None:
            self._store.close()

    # --- commands ---------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """What commands see in their environment."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KTRDR_")}
        return {
            **inherited,
            "KTRDR_HOME": str(self.home),
            "KTRDR_MODELS_DIR": str(self.models),
            "KTRDR_DATA_DIR": str(REPOSITORY / "data"),
            _MARK: str(self.root),
            **self.variables,
        }

    def start(self, *arguments: str | Path, **variables: str) -> Command:
        """Start ``ktrdr`` with these arguments, as the leader of a session of its own."""
        return self.start_python("-m", "ktrdr.cli.main", *arguments, **variables)

    def start_python(self, *arguments: str | Path, **variables: str) -> Command:
        """Start an interpreter, likewise; variables come on top of the installation's environment."""
        return self.start_process(sys.executable, *arguments, **variables)

    def start_process(self, *command: str | Path, **variables: str) -> Command:
        """Start anything, likewise."""
        output = self.root / f"command-{len(self._commands) + 1}"
        with output.with_suffix(".out").open("wb") as stdout, output.with_suffix(".err").open("wb") as stderr:
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=self.root,
                env={**self.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        command = Command(process, output, describe=self.describe)
        self._commands.append(command)
        return command

    def run(self, *arguments: str | Path) -> Command:
        """Run ``ktrdr`` with these arguments to its end."""
        command = self.start(*arguments)
        command.wait()
        return command

    def train(self, *arguments: str | Path, strategy: str | Path = MOMENTUM, seed: int = 7) -> Command:
        """Start ``ktrdr train``."""
        return self.start("train", strategy, "--seed", str(seed), *arguments)

    # --- processes --------------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """Return every living process that this installation's commands have started, themselves included."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            is_dead = process.status() == psutil.STATUS_ZOMBIE
            return not is_dead and process.environ().get(_MARK) == str(self.root)
        except psutil.Error:
            return False

    def kill(self, command: Command) -> None:
        """Kill a command the hard way; nothing that it has started outlives it."""
        command.process.kill()
        command.process.wait()
        self.check_nothing_runs()

    def check_nothing_runs(self) -> None:
        """Check that no process is left."""
        eventually(lambda: not self.processes(), within_s=GONE_WITHIN_S, otherwise=self.describe)

    # --- operations and models --------------------------------------------------------------------

    @property
    def store(self) -> OperationStore | None:
        """The operations database as another process sees it, if there is one."""
        if self._store is None and OperationStore.exists(self.settings):
            self._store = OperationStore.open(self.settings)
        return self._store

    def operations(self) -> list[OperationRecord]:
        """Return every operation, oldest first."""
        return self.store.list_operations(limit=1000)[::-1] if self.store is not None else []

    def operation(self) -> OperationRecord:
        """Return the only operation."""
        (operation,) = self.operations()
        return operation

    def history(self, operation: OperationRecord | None = None) -> list[HistoryEntry]:
        """Return what happened to an operation; to the only one, if none is named."""
        assert self.store is not None
        return self.store.history((operation or self.operation()).operation_id)

    def has_reached_epoch(self, epoch: int, *, attempt: int = 1, operation: str | None = None) -> bool:
        """Return whether an attempt that runs, of that operation or any, has completed so many epochs."""
        return any(
            running.progress is not None
            and running.progress.attempt == attempt
            and running.progress.epoch >= epoch
            for running in self.operations()
            if running.state is State.RUNNING and operation in (None, running.operation_id)
        )

    def has_spooled(self) -> bool:
        """Return whether an agent has recorded how an attempt ended, and not been answered yet."""
        return any(self.home.glob("agents/*/claims/*/ending.json"))

    def versions(self) -> list[str]:
        """Return the names of the model versions that are on the disk."""
        found = self.models.glob("*/*_v*")
        return sorted(str(path.relative_to(self.models)) for path in found if not path.is_symlink())

    def sha256(self, version: str, file: str = "model.safetensors") -> str:
        """Return the hash of a version's file, as its ``SHA256SUMS`` has it."""
        lines = (self.models / version / "SHA256SUMS").read_text().splitlines()
        return next(line.split()[0] for line in lines if line.endswith(f"  {file}"))

    def leftovers(self) -> list[Path]:
        """Return what a training needs on its way and none that has ended may leave behind."""
        in_home = ("agents/*/claims/*", "agents/*/datasets/.*", "agents/*/set-aside/*", "instances/*")
        in_models = (".staging/*", ".replaced/*", "*/.*")
        return [path for pattern in in_home for path in self.home.glob(pattern)] + [
            path for pattern in in_models for path in self.models.glob(pattern)
        ]

    def check_at_rest(self, *, models: int) -> None:
        """Check that nothing runs or waits, every operation has ended, and there are so many whole models."""
        self.check_nothing_runs()
        operations = self.operations()
        assert all(operation.state.terminal for operation in operations), self.describe()
        completed = {op.operation_id: op.model for op in operations if op.state is State.COMPLETED}
        assert len(completed) == models, self.describe()
        assert self.versions() == sorted(map(str, completed.values())), self.describe()
        assert self.leftovers() == [], self.describe()
        if self.store is None:
            return
        registered = {model.operation_id: model for model in self.store.models.all_models()}
        assert {id_: model.name for id_, model in registered.items()} == completed
        directory = ModelDirectory(self.models)
        for model in registered.values():
            assert directory.verify(model.name, model.files) == []
            assert "report.html" in model.files
        for model in self.store.models.newest_versions():
            link = self.models / model.strategy / f"{model.symbol}_{model.timeframe}_latest"
            assert link.readlink() == Path(f"{model.symbol}_{model.timeframe}_v{model.version}")
        with self.store.reading() as connection:
            assert connection.execute(select(outbox).where(outbox.c.sent_at.is_(None))).all() == []

    def describe(self) -> str:
        """Return what there is and what was said, for the message of a test that fails."""
        lines = [f"runs: {process.pid} {command_line(process)}" for process in self.processes()]
        lines += [f"model: {version}" for version in self.versions()]
        lines += [f"left over: {path}" for path in self.leftovers()]
        for operation in self.operations():
            lines.append(f"{operation.operation_id}: {operation.state} {operation.message or ''}")
            lines += [
                f"  {entry.at:%T.%f} attempt {entry.attempt} {entry.kind}: {entry.message}"
                for entry in self.history(operation)
            ]
        for number, command in enumerate(self._commands, start=1):
            lines += [f"--- command {number}: exit status {command.process.poll()}", command.stderr]
        return "\n".join(lines)
