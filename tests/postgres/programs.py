"""Where this machine has PostgreSQL's programs, and what to do if it has none."""

import os
import pwd
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.broker.installing import how_to_install
from tests.postgres.errors import PostgresUnavailableError

PLACE = "KTRDR_TEST_POSTGRES"
"""The environment variable that names the directory of ``postgres``, if that is in no usual place."""

_PATTERNS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Fedora, from PostgreSQL's own packages
    "/usr/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of PostgreSQL's programs, and who may run them."""

    initdb: Path
    postgres: Path
    user: str | None
    """As whom: PostgreSQL refuses to run as root. None: as whoever we are."""


def find_programs() -> Programs:
    """Find PostgreSQL on this machine, the newest if there are several.

    Raises:
        PostgresUnavailableError: It is not there.
    """
    for directory in _directories():
        initdb, postgres = directory / "initdb", directory / "postgres"
        if os.access(initdb, os.X_OK) and os.access(postgres, os.X_OK):
            return Programs(initdb, postgres, _user())
    install = how_to_install(
        script="scripts/obtain-postgres", brew="postgresql@17", package="postgresql-server"
    )
    raise PostgresUnavailableError(f"There is no PostgreSQL on this machine. Get one: {install}")


def _directories() -> list[Path]:
    if place := os.environ.get(PLACE):
        return [Path(place)]
    found = [path for pattern in _PATTERNS for path in Path("/").glob(pattern.lstrip("/"))]
    found.sort(key=_version, reverse=True)
    on_path = shutil.which("postgres")
    return [Path(on_path).resolve().parent, *found] if on_path else found


def _version(directory: Path) -> int:
    numbers = re.findall(r"\d+", str(directory))
    return int(numbers[0]) if numbers else 0


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {account.pw_name for account in pwd.getpwall()}
    return next((name for name in _UNPRIVILEGED if name in known), None)
