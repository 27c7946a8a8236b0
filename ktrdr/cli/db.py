"""`ktrdr db`: the operations database."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ktrdr.cli.output import (
    JsonOption,
    err,
    facts,
    out,
    print_json,
    print_warning,
    reporting_errors,
    size,
)
from ktrdr.cli.settings import settings_for

if TYPE_CHECKING:
    from ktrdr.backend.backup import Backup
    from ktrdr.backend.schema import SchemaStatus
    from ktrdr.backend.servers import Server
    from ktrdr.settings import Settings

app = typer.Typer(help="The operations database: status, upgrade, backup, restore.", no_args_is_help=True)


@app.command()
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show which database is used, what it holds, and whether its schema is up to date; changes nothing."""
    with reporting_errors(as_json=as_json):
        settings = settings_for(context)
        from ktrdr.backend.database_status import database_status

        found = database_status(settings)
    if as_json:
        print_json({**asdict(found), "schema": _schema_as_json(found.schema)})
        return
    states = ", ".join(f"{count} {state}" for state, count in found.operations.items())
    out.print(
        facts(
            [
                ("database", found.name),
                ("engine", found.engine),
                ("size", size(found.size_bytes)),
                ("schema", _schema_in_words(found.schema)),
                ("operations", states or "none"),
                ("models", str(found.models)),
                ("served", _servers_in_words(found.servers)),
            ]
        )
    )
    if not found.schema.is_current:
        err.print("Bring it up to date: ktrdr db upgrade", style="yellow")


@app.command()
def upgrade(context: typer.Context, as_json: JsonOption = False) -> None:
    """Create the tables, or bring them up to date, in one transaction.

    Every command does so by itself when it starts. Say it here when the user of KTRDR_DATABASE_URL may not
    change tables, as the owner of the database; or to see that it works before a service is started.
    """
    with reporting_errors(as_json=as_json):
        settings = settings_for(context)
        from ktrdr.backend.database import Database
        from ktrdr.backend.schema import ensure_schema, schema_status

        database = Database(settings.database)
        try:
            before = schema_status(database)
            ensure_schema(database)
            after = schema_status(database)
        finally:
            database.close()
    if as_json:
        print_json(
            {
                "database": database.name,
                "from": before.revision,
                "to": after.revision,
                "applied": before.pending,
            }
        )
    elif before.is_current:
        out.print(f"{database.name} is up to date ({after.revision}).", soft_wrap=True)
    else:
        was = before.revision or "no tables"
        out.print(f"{database.name} upgraded from {was} to {after.revision}.", soft_wrap=True)


@app.command()
def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to write it.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy the database, as it is at one moment, into one file; trainings go on meanwhile.

    The copy is checked, and the models on the disk are compared with the hashes in it. They are files of
    their own, never changed once they are written: copy the models directory afterwards with what you like.
    """
    with reporting_errors(as_json=as_json):
        settings = settings_for(context)
        from ktrdr.backend.backup import back_up

        made = back_up(_file_of(settings, create=False), file, overwrite=overwrite)
        differences = _differences(settings, made)
    if as_json:
        print_json({"backup": _as_json(made), "differences": differences})
        return
    out.print(f"{file}: {_in_words(made)}, {size(made.size_bytes)}.", soft_wrap=True)
    _print_differences(differences)


@app.command()
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file of `ktrdr db backup`.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the database, in one step; asks first.

    What the database held is kept beside it. No training may be carried by a process meanwhile.
    """
    with reporting_errors(as_json=as_json):
        settings = settings_for(context)
        from ktrdr.backend.backup import inspect_backup
        from ktrdr.backend.backup import restore as put_back

        database = _file_of(settings, create=True)
        found = inspect_backup(file)
        _refuse_while_used(settings)
        if not yes and database.exists():
            _confirm(found, database)
        found, kept = put_back(file, database, now=datetime.now(UTC))
        differences = _differences(settings, found)
        newer = _versions_unknown_to(settings, found)
    if as_json:
        report = {"restored": _as_json(found), "kept": kept, "differences": differences}
        print_json({**report, "models_not_in_it": newer})
        return
    out.print(f"{database}: {_in_words(found)}.", soft_wrap=True)
    if kept is not None:
        err.print(f"What it held before is in {kept}", soft_wrap=True)
    _print_differences(differences)
    if newer:
        print_warning(
            f"{len(newer)} model version{'s' if len(newer) != 1 else ''} on the disk came after the backup "
            f"({newer[-1]}); one whose number is given again is moved to {settings.models_dir}/.replaced."
        )


def _file_of(settings: "Settings", *, create: bool) -> Path:
    from ktrdr.backend.database_url import is_sqlite, parse_url, shown, sqlite_file
    from ktrdr.errors import SettingsError

    url = parse_url(settings.database)
    if not is_sqlite(url):
        raise SettingsError(
            f"The database {shown(url)} is not a file.",
            fix="Use the tools of PostgreSQL: pg_dump, pg_restore.",
        )
    return sqlite_file(url, create=create)


def _refuse_while_used(settings: "Settings") -> None:
    from ktrdr.backend.instances import Instances
    from ktrdr.errors import StoreError

    instances = Instances(settings.instances_dir)
    alive = instances.alive()
    if alive:
        processes = ", ".join(str(instances.process(name) or "?") for name in alive)
        raise StoreError(
            f"Processes carry operations of this database: {processes}.",
            fix="Stop them first, and try again.",
        )


def _confirm(found: "Backup", database: Path) -> None:
    from ktrdr.cli.dead import can_ask
    from ktrdr.errors import SettingsError

    if not can_ask():
        raise SettingsError("Nobody can be asked whether to replace the database.", fix="Say --yes.")
    typer.confirm(f"Replace {database} by {found.path} ({_in_words(found)})?", abort=True, err=True)


def _differences(settings: "Settings", found: "Backup") -> dict[str, list[str]]:
    """Return what is wrong on the disk with each model of a backup; models in order are not in it."""
    from ktrdr.models.directory import ModelDirectory

    directory = ModelDirectory(settings.models_dir)
    verified = {name: directory.verify(name, files) for name, files in found.models.items()}
    return {name: list(map(str, findings)) for name, findings in verified.items() if findings}


def _versions_unknown_to(settings: "Settings", found: "Backup") -> list[str]:
    from ktrdr.models.directory import ModelDirectory

    return [name for name in ModelDirectory(settings.models_dir).versions() if name not in found.models]


def _print_differences(differences: dict[str, list[str]]) -> None:
    for name, findings in differences.items():
        print_warning(f"model {name}: {'; '.join(findings)}")


def _in_words(found: "Backup") -> str:
    return f"{found.operations} operations and {len(found.models)} models, schema {found.revision}"


def _as_json(found: "Backup") -> dict[str, object]:
    return {
        "path": found.path,
        "size_bytes": found.size_bytes,
        "schema": found.revision,
        "operations": found.operations,
        "models": list(found.models),
    }


def _schema_as_json(schema: "SchemaStatus") -> dict[str, object]:
    return {"revision": schema.revision, "pending": schema.pending, "is_current": schema.is_current}


def _servers_in_words(servers: "list[Server]") -> str:
    if not servers:
        return "by no ktrdr serve with a broker"
    return f"by ktrdr serve: {', '.join(f'process {server.pid} on {server.host}' for server in servers)}"


def _schema_in_words(schema: "SchemaStatus") -> Text:
    if schema.is_current:
        return Text(f"{schema.revision}, up to date", style="green")
    return Text(f"{schema.revision or 'no tables'}; to come: {', '.join(schema.pending)}", style="yellow")
