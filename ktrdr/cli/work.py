"""`ktrdr work`: run what waits."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ktrdr.cli.output import EXIT_CANCELLED, err, reporting_errors
from ktrdr.cli.settings import settings_for

if TYPE_CHECKING:
    from ktrdr.settings import Settings


def work(context: typer.Context) -> None:
    """Run what is pending or was interrupted, then exit.

    `ktrdr train --detach` starts this in the background. Ctrl-C gives what runs back: it stays pending.
    """
    with reporting_errors():
        settings = settings_for(context)
        from ktrdr.app.embedded import work_until_idle
        from ktrdr.cli.interrupts import run_until_interrupted
        from ktrdr.cli.training_view import TrainingView

        was_interrupted = False

        def interrupted() -> None:
            nonlocal was_interrupted
            was_interrupted = True
            err.print("Giving back what runs …")

        with TrainingView() as view:
            finished = run_until_interrupted(
                lambda stop: work_until_idle(settings, stop=stop, on_change=view.listener.on_change),
                on_interrupt=interrupted,
            )
    count = f"{finished} operation{'s' if finished != 1 else ''} finished"
    if was_interrupted:
        err.print(f"{count}; what is not waits for the next `ktrdr work` or `ktrdr train`.")
        raise typer.Exit(EXIT_CANCELLED)
    err.print(f"{count}; nothing is left to do.")


def start_worker(settings: "Settings") -> Path:
    """Start ``ktrdr work`` as a process of its own that outlives this one; return its log file."""
    import os
    import subprocess
    import sys
    from datetime import UTC, datetime

    log = settings.logs_dir.absolute() / f"work-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {
        f"KTRDR_{name.upper()}": str(path.absolute())
        for name, path in (("home", settings.home), ("models_dir", settings.models_dir))
    }
    with log.open("wb") as output:
        subprocess.Popen(
            [sys.executable, "-m", "ktrdr.cli.main", "work"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    return log
