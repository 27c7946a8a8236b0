"""`ktrdr broker`: RabbitMQ, as ktrdr needs it."""

import asyncio
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ktrdr.cli import drill
from ktrdr.cli.output import (
    EXIT_FAILED,
    JsonOption,
    err,
    out,
    print_json,
    print_warning,
    printable,
    reporting_errors,
)
from ktrdr.cli.settings import BrokerOption, PrefixOption, settings_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ktrdr.bus.findings import Finding

app = typer.Typer(
    help="The message broker: set up, check, drill, definitions of its users.", no_args_is_help=True
)
app.command()(drill.drill)

LaneOption = Annotated[
    list[str] | None,
    typer.Option("--lane", help="A lane besides `any` and `gpu`; may be repeated.", metavar="NAME"),
]

_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}


@app.command()
def setup(
    context: typer.Context,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    lane: LaneOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create the exchanges, queues and bindings that are missing; say what was created and what was there.

    What is there is left as it is, also where it differs: that would have to be deleted first.
    """
    with reporting_errors(as_json=as_json):
        settings = settings_for(context, broker_url=broker, broker_prefix=prefix)
        from ktrdr.app.operating import set_up_broker

        findings = asyncio.run(set_up_broker(settings, lanes=lane or ()))
    _report(findings, "Everything is set up.", as_json=as_json)


@app.command()
def check(
    context: typer.Context,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    lane: LaneOption = None,
    management: Annotated[
        str | None,
        typer.Option(
            help="http(s)://user:password@host:15672, for what AMQP does not tell: bindings, policies, "
            "alarms, permissions, what nobody declares. Better in KTRDR_MANAGEMENT_URL.",
            metavar="URL",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the broker with what ktrdr needs, and change nothing; exit status 1 if something is wrong."""
    with reporting_errors(as_json=as_json):
        settings = settings_for(context, broker_url=broker, broker_prefix=prefix, management_url=management)
        from ktrdr.app.operating import check_broker

        findings = asyncio.run(check_broker(settings, lanes=lane or ()))
    _report(findings, "The broker is as it should be.", as_json=as_json)


@app.command()
def definitions(
    context: typer.Context,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            help="Id of an agent with a user of its own, named like it, instead of the shared user `agent`; "
            "may be repeated.",
            metavar="NAME",
        ),
    ] = None,
    admin: Annotated[
        str | None, typer.Option(help="A user for the management UI, who may do everything.", metavar="NAME")
    ] = None,
    passwords: Annotated[
        Path | None,
        typer.Option(
            help="File of lines like BACKEND_PASSWORD=…; missing ones are made, and added to it. "
            "Default: environment variables of such names.",
            metavar="FILE",
        ),
    ] = None,
    lane: LaneOption = None,
    vhost: Annotated[str, typer.Option(help="The virtual host.")] = "/",
    prefix: PrefixOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file.", metavar="FILE")
    ] = None,
) -> None:
    """Print RabbitMQ's definitions file: users of least privilege, exchanges, queues and bindings.

    Import it in the management UI, with `rabbitmqctl import_definitions FILE`, or by `load_definitions` in
    rabbitmq.conf. It holds salted hashes of passwords, never the passwords.
    """
    with reporting_errors():
        settings = settings_for(context, broker_prefix=prefix)
        from ktrdr.bus.definitions import AGENT, BACKEND, OBSERVER, definitions_json, users_of
        from ktrdr.bus.topology import LANES
        from ktrdr.cli.passwords import find_passwords, variable_of
        from ktrdr.errors import SettingsError

        agents = tuple(dict.fromkeys(agent or ()))
        for name in (*agents, admin):
            if name in (BACKEND, AGENT, OBSERVER):
                raise SettingsError(f"'{name}' is a user already.", fix="Choose another name.")
        users = users_of(agents=agents, administrator=admin)
        found = find_passwords(users, passwords)
        text = definitions_json(
            prefix=settings.broker_prefix,
            vhost=vhost,
            lanes=tuple(dict.fromkeys((*LANES, *(lane or ())))),
            agents=agents,
            administrator=admin,
            passwords=found.by_user,
        )
        if output is not None:
            _write(output, text)
    if output is None:
        typer.echo(text, nl=False)
    else:
        err.print(f"Wrote {output}")
    for user in found.generated:
        err.print(f"Made a password for {user}: {variable_of(user)} in {passwords}")
    if without := [user for user in users if user not in found.by_user]:
        variables = ", ".join(variable_of(user) for user in without)
        print_warning(f"without a password, and so unable to log in: {', '.join(without)} (set {variables})")


def _report(findings: "Sequence[Finding]", good: str, *, as_json: bool) -> None:
    from ktrdr.bus.findings import Mark

    wrong = sum(finding.mark is Mark.WRONG for finding in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding, following in zip(findings, [*findings[1:], None], strict=True):
            mark, style = _MARKS[finding.mark.value]
            what = printable(f"{finding.part.value:<9} {finding.name}")
            detail = Text(printable(f"  {finding.detail}") if finding.detail else "", style="dim")
            out.print(Text(f"{mark} ", style=style) + Text(what) + detail, soft_wrap=True)
            # What a row of them needs is said once, below the last.
            if finding.fix and (following is None or following.fix != finding.fix):
                out.print(Text(printable(f"  {'':<9} → {finding.fix}"), style="bold"), soft_wrap=True)
        if wrong:
            err.print(f"{wrong} thing{'s' if wrong != 1 else ''} to put right.", style="red")
        else:
            err.print(good, style="green")
    if wrong:
        raise typer.Exit(EXIT_FAILED)


def _write(file: Path, text: str) -> None:
    from ktrdr.errors import SettingsError

    try:
        with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", delete=False) as temporary:
            temporary.write(text)
        # The broker, which is another user, has to read it.
        Path(temporary.name).chmod(0o644)
        Path(temporary.name).replace(file)
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error}", fix="Name another file.") from error
