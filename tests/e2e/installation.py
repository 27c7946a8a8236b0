"""An installation of ktrdr in a directory of its own, used as people use it: by commands, each a process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from ktrdr.backend.records import HistoryKind, OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import outbox
from ktrdr.models.directory import ModelDirectory
from ktrdr.settings import Settings

REPOSITORY = Path(__file__).parents[2]
MOMENTUM = REPOSITORY / "strategies" / "eurusd_momentum.yaml"
TWO_TIMEFRAMES = REPOSITORY / "strategies" / "eurusd_two_timeframes.yaml"

_MARK = "E2E_INSTALLATION"
"""In the environment of each process that an installation's commands start, runners included."""
_POLL_S = 0.002
_COMMAND_LIMIT_S = 60.0


def long(epochs: int) -> tuple[str, ...]:
    """Return options that make a training last for so many epochs, of some 15 ms each."""
    return ("--set", f"training.epochs={epochs}", "--set", "training.early_stopping=false")


class Installation:
    """A home and a models directory, and the commands that use them."""

    def __init__(self, root: Path, *, home: Path | None = None, models: Path | None = None) -> None:
        self.root = root
        self.home = home or root / "home"
        self.models = models or root / "models"
        self.settings = Settings(home=self.home, models_dir=self.models)
        self.variables: dict[str, str] = {}
        """More of the environment of commands that are started from now on."""
        self._commands = 0

    @property
    def environment(self) -> dict[str, str]:
        """What a command sees of its installation."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KTRDR_")}
        return {
            **inherited,
            "KTRDR_HOME": str(self.home),
            "KTRDR_MODELS_DIR": str(self.models),
            "KTRDR_DATA_DIR": str(REPOSITORY / "data"),
            _MARK: str(self.root),
            **self.variables,
        }

    # --- commands ---------------------------------------------------------------------------------

    def start(self, *arguments: str | Path) -> "Command":
        """Start ``ktrdr`` with these arguments, as the leader of a process group of its own."""
        return self.start_python("-m", "ktrdr.cli.main", *arguments)

    def start_python(self, *arguments: str | Path) -> "Command":
        """Start an interpreter, likewise."""
        self._commands += 1
        return Command(self, [sys.executable, *map(str, arguments)], self.root / f"command-{self._commands}")

    def run(self, *arguments: str | Path) -> "Command":
        """Run ``ktrdr`` with these arguments to its end."""
        command = self.start(*arguments)
        command.wait()
        return command

    def train(self, *arguments: str | Path, strategy: Path = MOMENTUM, seed: int = 7) -> "Command":
        """Start ``ktrdr train``."""
        return self.start("train", strategy, "--seed", str(seed), *arguments)

    # --- what there is ----------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """Return every process that lives and that this installation's commands have started."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def runners(self) -> list[psutil.Process]:
        """Return the runner processes among them."""
        return [process for process in self.processes() if "host_agent.runner" in _command_line(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return (
                process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == str(self.root)
            )
        except psutil.Error:
            return False

    @contextmanager
    def store(self) -> Iterator[OperationStore]:
        """The operations database, as another process sees it."""
        with OperationStore.open(self.settings, create=False) as store:
            yield store

    def operations(self) -> list[OperationRecord]:
        """Return every operation, newest first."""
        if not OperationStore.exists(self.settings):
            return []
        with self.store() as store:
            return store.list_operations(limit=1000)

    def operation(self) -> OperationRecord:
        """Return the only operation."""
        (operation,) = self.operations()
        return operation

    def history(self, operation: OperationRecord | None = None) -> list[HistoryKind]:
        """Return what happened to an operation, to the only one by default."""
        with self.store() as store:
            entries = store.history((operation or self.operation()).operation_id)
        return [entry.kind for entry in entries]

    def versions(self) -> list[str]:
        """Return the model versions that are on the disk, oldest first."""
        found = self.models.glob("*/*_v*")
        return sorted(str(path.relative_to(self.models)) for path in found if not path.is_symlink())

    def weights(self, version: str) -> str:
        """Return the hash of a version's weights, as ``SHA256SUMS`` has it."""
        sums = (self.models / version / "SHA256SUMS").read_text().splitlines()
        return next(line.split()[0] for line in sums if line.endswith("model.safetensors"))

    def leftovers(self) -> list[Path]:
        """Return what a training needs on its way and no ended one may leave behind."""
        patterns = ("agents/*/claims/*", "agents/*/datasets/.*", "instances/*.lock")
        return [
            *(path for pattern in patterns for path in self.home.glob(pattern)),
            *(self.models / ".staging").glob("*"),
            *(self.models / ".replaced").glob("*"),
        ]

    # --- what must hold ---------------------------------------------------------------------------

    def check_at_rest(self, *, models: int) -> None:
        """Check that nothing runs, all operations have ended, and there are so many whole models."""
        eventually(lambda: not self.processes(), within_s=2.0, otherwise=lambda: self._tell())
        if not OperationStore.exists(self.settings):
            assert models == 0
            return
        with self.store() as store:
            operations = store.list_operations(limit=1000)
            assert all(operation.state.terminal for operation in operations), self._tell()
            completed = [operation for operation in operations if operation.state is State.COMPLETED]
            registered = list(store.models.all_models())
            assert {model.operation_id for model in registered} == {op.operation_id for op in completed}
            assert len(registered) == len(completed) == models, self._tell()
            assert self.versions() == sorted(model.name for model in registered)
            directory = ModelDirectory(self.models)
            for model in registered:
                assert directory.verify(model.name, model.files) == []
                assert "report.html" in model.files
            for model in store.models.newest_versions():
                link = self.models / model.strategy / f"{model.symbol}_{model.timeframe}_latest"
                assert link.readlink() == Path(model.name).relative_to(model.strategy)
            with store.reading() as connection:
                unsent = connection.execute(select(outbox).where(outbox.c.sent_at.is_(None))).all()
            assert unsent == []
        assert self.leftovers() == []

    def end(self) -> None:
        """Kill what still runs, so that a test that fails leaves nothing behind."""
        for process in self.processes():
            process.kill()

    def _tell(self) -> str:
        lines = [f"{process.pid} {_command_line(process)}" for process in self.processes()]
        for operation in self.operations():
            with self.store() as store:
                history = store.history(operation.operation_id)
            lines.append(f"{operation.operation_id} {operation.state} {operation.message or ''}")
            lines += [f"  {entry.at:%T.%f} {entry.attempt} {entry.kind} {entry.message}" for entry in history]
        for path in sorted(self.root.glob("command-*")):
            lines += [f"--- {path.name}", path.read_text(errors="replace")]
        return "\n".join(lines)


class Command:
    """One command, running or ended; what it prints goes to files, so that it never waits for a reader."""

    def __init__(self, installation: Installation, command: list[str], output: Path) -> None:
        self.installation = installation
        self._stdout, self._stderr = output.with_suffix(".out"), output.with_suffix(".err")
        self.started_at = time.monotonic()
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                cwd=installation.root,
                env=installation.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._stderr.read_text()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def wait(self, within_s: float = _COMMAND_LIMIT_S) -> int:
        """Wait for its end and return its exit status; minus the number of a signal that killed it."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {within_s:g} s\n{self.installation._tell()}", pytrace=False)

    def succeed(self) -> "Command":
        """Wait for its end, which must be a good one."""
        assert self.wait() == 0, self.stderr
        return self

    def json(self) -> Any:
        """Return what it printed as JSON."""
        return json.loads(self.stdout)

    def until(self, condition: Callable[[], object], what: str) -> "Command":
        """Wait for something to come true while it runs."""

        def reached() -> bool:
            over = self.ended
            return bool(condition()) or over

        eventually(reached, within_s=30.0, otherwise=lambda: f"{what} has not come\n{self.stderr}")
        assert condition(), f"ended before: {what}\n{self.stderr}"
        return self

    def until_said(self, text: str) -> "Command":
        """Wait until it says that on its standard error."""
        return self.until(lambda: text in self.stderr, f"'{text}'")

    def until_epoch(self, epoch: int) -> "Command":
        """Wait until the only running operation has completed so many epochs."""

        def reached() -> bool:
            running = [op for op in self.installation.operations() if op.state is State.RUNNING]
            return any(op.progress is not None and op.progress.epoch >= epoch for op in running)

        return self.until(reached, f"epoch {epoch}")

    def runner(self) -> psutil.Process:
        """Return its runner process, as soon as it has one."""
        me = psutil.Process(self.process.pid)

        def found() -> list[psutil.Process]:
            return [
                child for child in me.children(recursive=True) if "host_agent.runner" in _command_line(child)
            ]

        self.until(found, "its runner")
        return found()[0]

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def send_to_group(self, number: int) -> None:
        """Send a signal to its process group, as the terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill it the hard way; what it has started must be gone soon after."""
        self.send(signal.SIGKILL)
        self.wait()
        eventually(
            lambda: not self.installation.processes(), within_s=2.0, otherwise=self.installation._tell
        )


def eventually(
    condition: Callable[[], object], *, within_s: float, otherwise: Callable[[], str] = lambda: "never came true"
) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(otherwise(), pytrace=False)
        time.sleep(_POLL_S)


def described(files: Mapping[str, str], directory: Path) -> Path:
    """Write files into a directory, and return it."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
