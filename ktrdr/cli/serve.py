"""`ktrdr serve`: the backend of the host agents."""

from typing import Annotated

import typer

from ktrdr.cli.interrupts import run_until_interrupted, until_begun
from ktrdr.cli.output import err, reporting_errors
from ktrdr.cli.settings import BrokerOption, PrefixOption, settings_for


def serve(
    context: typer.Context,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    blobs: Annotated[
        str | None,
        typer.Option(
            "--blobs",
            help="Where datasets and large models are: a directory that the agents share, or "
            "s3://bucket/prefix.",
            show_default="in KTRDR_HOME",
            metavar="STORE",
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            help="Address of the HTTP API; who may use it: ktrdr tokens.",
            show_default="127.0.0.1:8420",
            metavar="HOST:PORT",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Ask for no token, and listen to this machine alone.")
    ] = False,
) -> None:
    """Run the backend: hand trainings to host agents over RabbitMQ, or train here, and keep the models.

    Without a broker it trains here only. With one, what was to run on a host runs here if no host can.

    Runs until it is stopped (Ctrl-C, SIGTERM). What is submitted meanwhile, or runs, waits for it: nothing
    is lost by stopping it, by a crash of it, or by a broker that is away. Any number may run at once on one
    database and one broker: what one leaves, another goes on with.
    """
    with reporting_errors(), until_begun():
        settings = settings_for(
            context,
            is_service=True,
            broker_url=broker,
            broker_prefix=prefix,
            blob_store=blobs,
            listen=listen,
            insecure=insecure or None,
        )
        from ktrdr.app.serving import serve_until

        run_until_interrupted(
            lambda stop: serve_until(settings, stop),
            on_interrupt=lambda: err.print("Stopping; what runs on agents goes on."),
        )
