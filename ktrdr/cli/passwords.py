"""Passwords of the broker's users: from the environment, or a file of ``NAME_PASSWORD=…`` lines."""

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ktrdr.errors import SettingsError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_BYTES = 24


@dataclass(frozen=True, slots=True)
class Passwords:
    """What was found, and what was made."""

    by_user: dict[str, str]
    generated: tuple[str, ...]
    """Users who had none."""


def variable_of(user: str) -> str:
    """Return the name under which a user's password is looked for: ``HOST_A_PASSWORD`` of ``host-a``."""
    return re.sub(r"[^A-Za-z0-9]", "_", user).upper() + "_PASSWORD"


def find_passwords(users: Sequence[str], file: Path | None) -> Passwords:
    """Return the users' passwords: from the file, else from the environment.

    Args:
        users: who.
        file: made, or added to, for those who have none in either.

    Raises:
        SettingsError: the file cannot be read or written, or two users share a name in it.
    """
    if len({variable_of(user) for user in users}) < len(users):
        raise SettingsError("Two of the users have the same variable.", fix="Give one of them another name.")
    written = _read(file) if file is not None else {}
    found = {user: written.get(variable_of(user)) or os.environ.get(variable_of(user), "") for user in users}
    missing = tuple(user for user in users if not found[user])
    if file is None:
        return Passwords({user: password for user, password in found.items() if password}, ())
    made = {user: secrets.token_hex(_BYTES) for user in missing}
    if made:
        _append(file, [f"{variable_of(user)}={password}" for user, password in made.items()])
    return Passwords(found | made, missing)


def _read(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}", fix="Name another file.") from error
    matches = (_LINE.fullmatch(line.strip()) for line in lines)
    return {match[1]: match[2].strip().strip("'\"") for match in matches if match is not None}


def _append(file: Path, lines: Sequence[str]) -> None:
    try:
        # For its owner's eyes only, from the first moment on.
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            # Whatever was last in it may lack its end of line.
            output.write("".join(f"\n{line}" for line in lines) + "\n")
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error}", fix="Name another file.") from error
