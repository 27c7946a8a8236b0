"""`ktrdr agent`, and the script `host-agent`, which is the same for machines that do nothing else."""

import sys
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from ktrdr.cli.interrupts import run_service, until_begun
from ktrdr.cli.output import EXIT_FAILED, reporting_errors
from ktrdr.cli.settings import BrokerOption, PrefixOption, settings_for

_log = structlog.get_logger()


def agent(
    context: typer.Context,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What the agent is called, on the broker and in `ktrdr agents`; the same at each start, "
            "since results that are not delivered yet are found by it.",
            show_default="this machine's name",
            metavar="NAME",
        ),
    ] = None,
    lane: Annotated[
        list[str] | None,
        typer.Option(
            help="Lane to take requests from: any, gpu, or one of your own. Repeat it for several, the "
            "preferred one first.",
            show_default="any",
            metavar="LANE",
        ),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            help="Trainings at a time, each in a process of its own.", show_default="1", metavar="N"
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda or mps; auto is the best there is.", show_default="auto"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Torch threads of each training; few are fastest for small networks.",
            show_default="1",
            metavar="N",
        ),
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option(
            help="Where datasets are fetched from and large models are put: a directory that the backend "
            "shares, s3://bucket/prefix, or the backend's own address, http(s)://host:port.",
            metavar="WHERE",
        ),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(help="Directory for claims, results and fetched data.", show_default=".ktrdr"),
    ] = None,
    drain: Annotated[
        float | None,
        typer.Option(
            help="When it is told to stop, running trainings get so many seconds to end; then they are "
            "handed over, and begin again elsewhere.",
            show_default="30",
            metavar="SECONDS",
        ),
    ] = None,
) -> None:
    """Run a host agent: take trainings from a RabbitMQ broker and run them on this machine.

    It may be started before the broker, and keeps training while the broker is away. SIGTERM or Ctrl-C lets
    what runs end, or hands it over; a second one does not wait for it, a third one kills.

    Each option is also a setting. The broker's address holds a password: put it into KTRDR_BROKER_URL, or
    into a file that only you can read, and that file's name into KTRDR_BROKER_URL_FILE.
    """
    with reporting_errors(), until_begun():
        settings = settings_for(
            context,
            is_service=True,
            broker_url=broker,
            broker_prefix=prefix,
            agent_id=name,
            lanes=tuple(lane) if lane else None,
            slots=slots,
            device=device,
            threads=threads,
            blob_store=blobs,
            home=home,
            drain_s=drain,
        )
        from ktrdr.app.hosting import run_agent

        try:
            run_service(lambda soon, at_once: run_agent(settings, stop=soon, at_once=at_once))
        except ExceptionGroup as broken:
            _log.error("the agent is broken", exc_info=broken)
            raise typer.Exit(EXIT_FAILED) from broken


def main(arguments: list[str] | None = None) -> Any:
    """Run the agent; the entry point of the ``host-agent`` script."""
    app = typer.Typer(
        name="host-agent",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(agent)
    try:
        return app(arguments)
    except KeyboardInterrupt:
        # Only before the agent began to listen for it.
        sys.exit(130)


if __name__ == "__main__":
    main()
