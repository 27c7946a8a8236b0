"""How a command tells of a training that goes on without it."""

from typing import TYPE_CHECKING

from ktrdr.cli.output import err, out, print_json, print_warning

if TYPE_CHECKING:
    from ktrdr.client.port import Started


def print_started(started: "Started", *, as_json: bool) -> None:
    """Print the operation's id, and what to do next; as JSON, where it runs too."""
    from ktrdr.cli.training_view import decision_as_json

    record = started.record
    if as_json:
        told = {"operation_id": record.operation_id, "state": record.state, **decision_as_json(record)}
        print_json({**told, **started.more})
        return
    out.print(record.operation_id)
    for warning in started.warnings:
        print_warning(warning)
    background = f"Trains in the background (log: {started.log}). " if started.log is not None else ""
    err.print(f"{background}Follow it: ktrdr ops watch {record.operation_id}", soft_wrap=True)
