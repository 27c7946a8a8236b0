"""Named implementations: one registry each for indicators, memberships, labels, networks and losses."""

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint
from typing import Generic, TypeVar, cast

from ktrdr.errors import PluginError, UnknownNameError
from ktrdr.plugins import Plugin, installed_plugins, load_plugin, plugin_of

T = TypeVar("T")


def nearest_name(name: str, names: list[str]) -> str | None:
    """Return the name that was probably meant, or None."""
    matches = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return matches[0] if matches else None


class Registry(Generic[T]):
    """Maps names, in any case, to implementations.

    To add one, decorate its class in the module that holds it and import that module from its package's
    ``__init__``::

        @INDICATORS.register("roc")
        class Roc(Indicator): ...

    Those of other distributions are found by their entry points, at the first look-up, and are imported when
    they are first asked for; one that cannot be used is an error for who asks for it, and for nobody else.

    Args:
        kind: what it has, for messages.
        base: what every implementation is a subclass of.
        group: of the entry points.
        find: returns the entry points of a group.
    """

    def __init__(
        self,
        kind: str,
        base: type,
        group: str,
        *,
        find: Callable[[str], Sequence[EntryPoint]] = installed_plugins,
    ) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._find = find
        self._by_name: dict[str, type[T]] = {}
        self._aliases: dict[str, str] = {}
        self._entry_points: dict[str, list[EntryPoint]] | None = None
        self._of_plugins: dict[str, type[T]] = {}

    def register(self, name: str, *aliases: str) -> Callable[[type[T]], type[T]]:
        """Register the decorated class under a name and further accepted spellings."""

        def add(implementation: type[T]) -> type[T]:
            for spelling in (name, *aliases):
                if spelling != spelling.lower():
                    raise ValueError(f"{self.kind} name '{spelling}' must be in lower case")
                if spelling in self._by_name or spelling in self._aliases:
                    raise ValueError(f"{self.kind} '{spelling}' is registered twice")
            self._by_name[name] = implementation
            self._aliases.update(dict.fromkeys(aliases, name))
            return implementation

        return add

    def canonical(self, name: str) -> str:
        """Return the registered name for a spelling.

        Raises:
            UnknownNameError: with the nearest registered name.
        """
        spelling = name.lower()
        canonical = self._aliases.get(spelling, spelling)
        if canonical not in self._by_name and canonical not in self._plugins:
            nearest = nearest_name(spelling, [*self._by_name, *self._aliases, *self._plugins])
            raise UnknownNameError(self.kind, name, self.names(), nearest)
        return canonical

    def get(self, name: str) -> type[T]:
        """Return the implementation.

        Raises:
            UnknownNameError: there is none of that name.
            PluginError: there are several, or the one cannot be used.
        """
        canonical = self.canonical(name)
        plugins = self._plugins.get(name.lower(), []) or self._plugins.get(canonical, [])
        if not plugins:
            return self._by_name[canonical]
        self._require_one(name.lower(), plugins)
        if canonical not in self._of_plugins:
            self._of_plugins[canonical] = cast(type[T], load_plugin(plugins[0], self._base))
        return self._of_plugins[canonical]

    def name_of(self, implementation: type[T]) -> str:
        """Return the name under which a class is registered; raises KeyError for one that is not."""
        for name, registered in (*self._by_name.items(), *self._of_plugins.items()):
            if registered is implementation:
                return name
        raise KeyError(f"{implementation.__name__} is not registered as a {self.kind}")

    def names(self) -> list[str]:
        """Return the names, sorted, without aliases; also those of plug-ins that cannot be used."""
        return sorted({*self._by_name, *self._plugins})

    def aliases_of(self, name: str) -> list[str]:
        """Return the further spellings of a name, in the order in which they were registered."""
        return [alias for alias, canonical in self._aliases.items() if canonical == name]

    def plugin_of(self, name: str) -> Plugin | None:
        """Return where an implementation comes from; None for one of ktrdr's own."""
        found = self._plugins.get(self.canonical(name))
        return plugin_of(found[0]) if found else None

    def faults(self) -> list[PluginError]:
        """Return what is wrong with the plug-ins that cannot be used; imports all of them."""
        found = []
        for name in self._plugins:
            try:
                self.get(name)
            except PluginError as error:
                found.append(error)
        return found

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._by_name or name.lower() in self._aliases or name.lower() in self._plugins

    def __iter__(self) -> Iterator[tuple[str, type[T]]]:
        for name in self.names():
            try:
                yield name, self.get(name)
            except PluginError:
                continue

    @property
    def _plugins(self) -> dict[str, list[EntryPoint]]:
        """By name in lower case."""
        if self._entry_points is None:
            self._entry_points = {}
            for entry_point in self._find(self.group):
                self._entry_points.setdefault(entry_point.name.lower(), []).append(entry_point)
        return self._entry_points

    def _require_one(self, name: str, plugins: Sequence[EntryPoint]) -> None:
        origins = [str(plugin_of(each)) for each in plugins]
        if name in self._by_name or name in self._aliases:
            origins.insert(0, "ktrdr itself")
        if len(origins) > 1:
            raise PluginError(
                f"The {self.kind} '{name}' is there more than once: of {' and of '.join(origins)}.",
                fix="Have the plug-in use another name, or uninstall it.",
            )
