"""`ktrdr`: the command line."""

import atexit
import gc
import sys
from typing import Annotated, Any

import typer

from ktrdr.cli import (
    agent,
    agents,
    broker,
    clean,
    config,
    db,
    dead,
    doctor,
    models,
    ops,
    serve,
    strategies,
    tokens,
    train,
    vocabulary,
    work,
)
from ktrdr.cli.settings import GlobalOptions

app = typer.Typer(
    name="ktrdr",
    help="Train neuro-fuzzy trading models: strategies in, versioned models out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.add_typer(ops.app, name="ops")
app.add_typer(models.app, name="models")
app.add_typer(strategies.app, name="strategies")
for _family in vocabulary.FAMILIES:
    app.command(_family)(vocabulary.command_for(_family))
app.command("work")(work.work)
app.command("serve")(serve.serve)
app.command("agent")(agent.agent)
app.command("agents")(agents.agents)
app.add_typer(broker.app, name="broker")
app.add_typer(dead.app, name="dead")
app.add_typer(tokens.app, name="tokens")
app.add_typer(db.app, name="db")
app.add_typer(config.app, name="config")
app.command("clean")(clean.clean)
app.command("doctor")(doctor.doctor)


@app.callback()
def options(
    context: typer.Context,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Show log lines; twice for debug.")
    ] = 0,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="Work with a `ktrdr serve` elsewhere, whose token is in KTRDR_TOKEN or in the file that "
            "KTRDR_TOKEN_FILE names.",
            show_default="KTRDR_SERVER, else this machine",
            metavar="URL",
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Train neuro-fuzzy trading models: strategies in, versioned models out."""
    if version:
        from ktrdr import __version__

        typer.echo(f"ktrdr {__version__}")
        raise typer.Exit
    context.obj = GlobalOptions(verbose, server)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; the entry point of the ``ktrdr`` script."""
    # An interpreter that ends looks for garbage among all that it loaded: 0.3 s after pandas and SQLAlchemy.
    atexit.register(gc.freeze)
    try:
        return app(arguments)
    except KeyboardInterrupt:
        # Only where a command did not get to handle it: before or after its work.
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
