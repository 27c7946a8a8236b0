"""Named implementations: one registry each for indicators, memberships, labels, networks and losses."""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from ktrdr.errors import UnknownNameError

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
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._by_name: dict[str, type[T]] = {}
        self._aliases: dict[str, str] = {}

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
        if canonical not in self._by_name:
            nearest = nearest_name(spelling, [*self._by_name, *self._aliases])
            raise UnknownNameError(self.kind, name, self.names(), nearest)
        return canonical

    def get(self, name: str) -> type[T]:
        """Return the implementation; raises `UnknownNameError`."""
        return self._by_name[self.canonical(name)]

    def name_of(self, implementation: type[T]) -> str:
        """Return the name under which a class is registered; raises KeyError for one that is not."""
        for name, registered in self._by_name.items():
            if registered is implementation:
                return name
        raise KeyError(f"{implementation.__name__} is not registered as a {self.kind}")

    def names(self) -> list[str]:
        """Return the registered names, sorted, without aliases."""
        return sorted(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._by_name or name.lower() in self._aliases

    def __iter__(self) -> Iterator[tuple[str, type[T]]]:
        return iter(sorted(self._by_name.items()))
