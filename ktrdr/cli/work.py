"""`ktrdr work`: run what waits."""

from typing import TYPE_CHECKING

import typer

from ktrdr.cli.interrupts import run_until_interrupted, until_begun
from ktrdr.cli.output import EXIT_CANCELLED, err, reporting_errors
from ktrdr.cli.settings import settings_for

if TYPE_CHECKING:
    import asyncio


def work(context: typer.Context) -> None:
    """Run what is pending or was interrupted, then exit.

    `ktrdr train --detach` starts this in the background. Ctrl-C gives what runs back: it stays pending.
    """
    with reporting_errors(), until_begun():
        settings = settings_for(context)
        from ktrdr.app.embedded import work_until_idle
        from ktrdr.cli.training_view import TrainingView

        was_interrupted = False

        def interrupted() -> None:
            nonlocal was_interrupted
            was_interrupted = True
            err.print("Giving back what runs …")

        async def run(stop: "asyncio.Event") -> int:
            with TrainingView() as view:
                return await work_until_idle(settings, stop=stop, on_change=view.listener.on_change)

        finished = run_until_interrupted(run, on_interrupt=interrupted)
    count = f"{finished} operation{'s' if finished != 1 else ''} finished"
    if was_interrupted:
        err.print(f"{count}; what is not waits for the next `ktrdr work` or `ktrdr train`.")
        raise typer.Exit(EXIT_CANCELLED)
    err.print(f"{count}; nothing is left to do.")
