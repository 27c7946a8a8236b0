"""Files in the repository that are made from code: writing them, and telling which are stale."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def differences(files: Mapping[str, str], directory: Path, *, owned: str) -> list[str]:
    """Return a line for each file that is not as generated.

    Args:
        files: name → content, as they must be.
        directory: where they are.
        owned: a glob; whatever else matches it is left over from before.
    """
    found = []
    for name, content in files.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{path} is missing")
        elif path.read_text(encoding="utf-8") != content:
            found.append(f"{path} is stale")
    extra = sorted(path for path in directory.glob(owned) if path.name not in files)
    return found + [f"{path} is not generated any more" for path in extra]


def write(files: Mapping[str, str], directory: Path, *, owned: str) -> None:
    """Write the files and delete those that are left over."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob(owned):
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        (directory / name).write_text(content, encoding="utf-8")


def run(module: str, files: Mapping[str, str], arguments: Sequence[str] | None, *, owned: str) -> int:
    """Be the command ``python -m <module> [--check] DIR``; return its exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="Generate files from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    parser.add_argument("directory", type=Path, metavar="DIR")
    given = parser.parse_args(arguments)
    if not given.check:
        write(files, given.directory, owned=owned)
        return 0
    found = differences(files, given.directory, owned=owned)
    for line in found:
        sys.stderr.write(f"{line}\n")
    if found:
        sys.stderr.write(f"Run: python -m {module} {given.directory}\n")
    return 1 if found else 0
