"""`ktrdr tokens`: who may use the HTTP API."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ktrdr.cli.output import JsonOption, ago, err, out, print_json, reporting_errors, table
from ktrdr.cli.settings import installation_for

if TYPE_CHECKING:
    from ktrdr.backend.tokens import AccessToken

app = typer.Typer(help="Tokens: who may use the HTTP API of `ktrdr serve`.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whom or what it is for, as in `grafana`.")],
    role: Annotated[
        str,
        typer.Option(
            "--role",
            "-r",
            help="viewer reads, operator also trains, admin does everything.",
        ),
    ] = "viewer",
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="It lets nobody in after that.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    with reporting_errors(as_json=as_json):
        installation = installation_for(context)
        from ktrdr.backend.tokens import Role
        from ktrdr.errors import SettingsError

        if role not in list(Role):
            raise SettingsError(f"'{role}' is not a role.", fix=f"Choose one of: {', '.join(Role)}.")
        made = installation.create_token(name, Role(role), days=days)
    if as_json:
        print_json({**_as_json(made.record), "token": made.secret})
        return
    out.print(made.secret, markup=False, soft_wrap=True)
    err.print(f"{role} '{name}', id {made.record.token_id}. It is not shown again; show it to the API as")
    err.print("  Authorization: Bearer TOKEN", style="dim")


@app.command("list")
def list_tokens(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the tokens: not what they are, but whose, and whether they let anybody in."""
    with reporting_errors(as_json=as_json):
        records = installation_for(context).tokens()
    if as_json:
        print_json([_as_json(record) for record in records])
        return
    if not records:
        err.print("No tokens. Make one: ktrdr tokens create NAME --role operator")
        return
    now = datetime.now(UTC)
    listing = table("id", "name", "role", "state", ">age")
    for record in records:
        style = "green" if record.is_valid(now) else "dim"
        listing.add_row(
            record.token_id,
            Text(record.name),
            record.role.value,
            Text(_state(record, now), style=style),
            ago(record.created_at, now),
        )
    out.print(listing)


@app.command()
def revoke(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="Its id, its name if no other has it, or itself.")],
    as_json: JsonOption = False,
) -> None:
    """End a token: the next request that shows it is refused."""
    with reporting_errors(as_json=as_json):
        before = installation_for(context).revoke_token(token)
    if as_json:
        print_json({"id": before.token_id, "name": before.name, "revoked": before.revoked_at is None})
    elif before.revoked_at is not None:
        err.print(f"'{before.name}' ({before.token_id}) was revoked already.", markup=False)
    else:
        err.print(f"'{before.name}' ({before.token_id}) lets nobody in any more.", markup=False)


def _state(record: "AccessToken", now: datetime) -> str:
    if record.revoked_at is not None:
        return "revoked"
    if record.expires_at is None:
        return "valid"
    return f"{'valid until' if record.is_valid(now) else 'expired'} {record.expires_at:%Y-%m-%d %H:%M} UTC"


def _as_json(record: "AccessToken") -> dict[str, object]:
    return {
        "id": record.token_id,
        "name": record.name,
        "role": record.role.value,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
    }
