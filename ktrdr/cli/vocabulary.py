"""`ktrdr indicators`, `memberships`, `labels`, `networks`, `losses`: what a strategy can name."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ktrdr.cli.output import JsonOption, facts, out, print_json, print_warning, reporting_errors, table
from ktrdr.cli.settings import settings_for

if TYPE_CHECKING:
    from ktrdr.language.catalog import Entry, Parameter

_HELP = {
    "indicators": "What can be computed from bars: `indicators` of a strategy.",
    "memberships": "Shapes of fuzzy sets: the types in `fuzzy_sets` of a strategy.",
    "labels": "What a network can learn: `training.labels` of a strategy.",
    "networks": "Networks: `model` of a strategy.",
    "losses": "What training makes small: `training.loss` of a strategy.",
}
FAMILIES = tuple(_HELP)


def command_for(family: str) -> Callable[..., None]:
    """Return the command that lists a family, or shows one of it."""

    def command(
        context: typer.Context,
        name: Annotated[str | None, typer.Argument(help="Show this one in full.")] = None,
        as_json: JsonOption = False,
    ) -> None:
        with reporting_errors(as_json=as_json):
            settings_for(context)
            from ktrdr.language.catalog import REGISTRIES, entries, entry

            registry = REGISTRIES[family]
            if name is not None:
                _show(family, entry(registry, name), as_json=as_json)
                return
            found = entries(registry)
            for fault in registry.faults():
                print_warning(str(fault))
        if as_json:
            print_json([_as_json(family, each) for each in found])
        else:
            _list(family, found)

    command.__doc__ = f"{_HELP[family]} Parameters, defaults and what they may be; NAME for all about one."
    return command


def _list(family: str, found: "list[Entry]") -> None:
    columns = {"indicators": ("outputs", ">warm-up"), "labels": ("gives",), "losses": ("for",)}.get(
        family, ()
    )
    listing = table("name", "parameters", *columns, "what it is")
    for each in found:
        name = Text(each.name, style="bold")
        if each.aliases:
            name.append("".join(f"\n{alias}" for alias in each.aliases), style="dim")
        what = Text(each.summary)
        for more in (each.source, each.plugin and f"plug-in: {each.plugin}"):
            if more:
                what.append(f"\n{more}", style="dim")
        cells = {
            "outputs": "\n".join(each.outputs) or "one",
            ">warm-up": "" if each.warmup_bars is None else str(each.warmup_bars),
            "gives": "\n".join(each.classes) or "number",
            "for": each.output_format or "",
        }
        parameters = Text("\n").join(_short(parameter) for parameter in each.parameters)
        listing.add_row(name, parameters, *(cells[column] for column in columns), what)
    out.print(listing)


def _short(parameter: "Parameter") -> Text:
    value = "" if parameter.required else f" {_plain(parameter.default)}"
    return Text(f"{parameter.name}{value}") + Text(f"  {parameter.allowed}", style="dim")


def _show(family: str, entry: "Entry", *, as_json: bool) -> None:
    from ktrdr.language.example import example_of

    if as_json:
        print_json(_as_json(family, entry))
        return
    out.print(Text(entry.name, style="bold"))
    out.print(Text(f"\n{entry.description}\n"))
    out.print(
        facts(
            [
                ("also written", ", ".join(entry.aliases) or None),
                ("outputs", ", ".join(entry.outputs) or None),
                ("warm-up", None if entry.warmup_bars is None else f"{entry.warmup_bars} bars by default"),
                ("classes", ", ".join(entry.classes) or None),
                ("output_format", entry.output_format),
                ("source", entry.source),
                ("plug-in", entry.plugin),
            ]
        )
    )
    if entry.parameters:
        listing = table("parameter", "default", "allowed", "")
        for parameter in entry.parameters:
            former = f"Formerly {', '.join(parameter.former_names)}." if parameter.former_names else ""
            listing.add_row(
                parameter.name,
                "required" if parameter.required else _plain(parameter.default),
                parameter.allowed,
                f"{parameter.description} {former}".strip(),
            )
        out.print()
        out.print(listing)
    for old, why in entry.without_effect.items():
        out.print(Text(f"\n{old} has no effect: {why}.", style="dim"))
    out.print(Text(f"\n{example_of(family, entry)}", style="green"), end="", soft_wrap=True)


def _plain(value: object) -> str:
    from ktrdr.language.allowed import as_written

    return as_written(value)


def _as_json(family: str, entry: "Entry") -> dict[str, Any]:
    from dataclasses import asdict

    from ktrdr.language.example import example_of

    return {**asdict(entry), "example": example_of(family, entry)}
