"""`ktrdr clean`: remove what nobody needs any more."""

from dataclasses import asdict
from typing import Annotated

import typer

from ktrdr.cli.output import JsonOption, err, out, print_json, print_warning, reporting_errors, size, table
from ktrdr.cli.settings import installation_for


def clean(
    context: typer.Context,
    apply: Annotated[
        bool, typer.Option("--apply", "--yes", "-y", help="Remove it; without this, it is only shown.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what nobody needs any more, and why; with --apply, remove it. What runs goes on meanwhile.

    Old operations without a model, logs, blobs that nothing names, unfinished uploads, and what agents have
    left that do not run. How long each is kept: KTRDR_KEEP_…_DAYS. A `ktrdr serve` does most of it by itself,
    and an agent that runs keeps its own directory. With --server it is done there.
    """
    with reporting_errors(as_json=as_json):
        found = installation_for(context).clean(apply=apply)
    if as_json:
        print_json(
            {
                "applied": apply,
                "refuse": [asdict(each) for each in found.refuse],
                "left_alone": found.left_alone,
            }
        )
        return
    if found.refuse:
        shown = table("what", ">count", ">size", "why")
        for each in found.refuse:
            weight = "" if each.bytes is None else size(each.bytes)
            shown.add_row(each.what, f"{each.count:,}", weight, each.why)
        out.print(shown)
    else:
        out.print("There is nothing to remove.")
    for reason in found.left_alone:
        print_warning(f"left alone: {reason}")
    if found.refuse:
        err.print("Removed." if apply else "Nothing was removed. Do so: ktrdr clean --apply")
