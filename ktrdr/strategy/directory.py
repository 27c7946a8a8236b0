"""Strategies by name."""

from pathlib import Path

from ktrdr.errors import Problem, StrategyError
from ktrdr.registry import nearest_name

_SUFFIXES = (".yaml", ".yml")


class StrategyDirectory:
    """The strategy files of a directory; a strategy's name is its file's stem."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self) -> tuple[Path, ...]:
        """Return the files, by name; none if there is no such directory."""
        if not self.root.is_dir():
            return ()
        return tuple(
            sorted(path for path in self.root.iterdir() if path.suffix in _SUFFIXES and path.is_file())
        )

    def find(self, name_or_path: str | Path) -> Path:
        """Return the file of that path, else of that name in the directory.

        Raises:
            StrategyError: there is none; names the nearest, and where it was looked for.
        """
        given = Path(name_or_path)
        if given.is_file():
            return given
        files = self.list()
        for path in files:
            if str(name_or_path) in (path.stem, path.name):
                return path
        names = [path.stem for path in files]
        listed = f"has {', '.join(names)}" if names else "has no strategies"
        message = f"there is no such file, and {self.root.absolute()} {listed}"
        raise StrategyError(given, [Problem("", message, suggestion=nearest_name(given.stem, names))])
