"""Implementations from other distributions, by entry points; see ``docs/plugins.md``."""

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from ktrdr.errors import PluginError

PLUGIN_GROUPS = ("ktrdr.indicators", "ktrdr.memberships", "ktrdr.labels", "ktrdr.networks", "ktrdr.losses")
"""What entry points are looked for in."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """Where an implementation comes from that is not ktrdr's own."""

    group: str
    """Of the entry point, as in ``ktrdr.indicators``."""
    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


def installed_plugins(group: str) -> Sequence[EntryPoint]:
    """Return the entry points of a group, in order of name and distribution; looked up once in a process."""
    return [each for each in _all_installed() if each.group == group]


@functools.cache
def _all_installed() -> tuple[EntryPoint, ...]:
    found = entry_points()
    ours = [each for group in PLUGIN_GROUPS for each in found.select(group=group)]
    return tuple(sorted(ours, key=lambda each: (each.group, each.name, plugin_of(each).distribution)))


def plugin_of(entry_point: EntryPoint) -> Plugin:
    """Return where an entry point comes from."""
    distribution = entry_point.dist
    return Plugin(
        entry_point.group,
        entry_point.name.lower(),
        distribution.name if distribution is not None else "an unknown distribution",
        distribution.version if distribution is not None else "?",
    )


def load_plugin(entry_point: EntryPoint, base: type) -> type:
    """Import what an entry point names.

    Raises:
        PluginError: it cannot be imported, or is not a complete class of that kind; names the distribution.
    """
    plugin = plugin_of(entry_point)
    said = f"The plug-in {entry_point.name} = {entry_point.value} ({plugin.group}) of {plugin}"
    fix = f"Correct {plugin.distribution}, or uninstall it."
    try:
        found: object = entry_point.load()
    except Exception as error:  # whatever its module does when it is imported
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise PluginError(f"{said} cannot be loaded: {what}", fix=fix) from error
    if not isinstance(found, type) or not issubclass(found, base):
        raise PluginError(f"{said} is no subclass of {base.__module__}.{base.__name__}.", fix=fix)
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise PluginError(f"{said} lacks {lacking}, which every {base.__name__} has.", fix=fix)
    return found
