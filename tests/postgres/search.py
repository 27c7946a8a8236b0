"""Whether there is a PostgreSQL to test with. Run as a module, it says so by its exit code, and what to do.

Needs nothing but Python, so that `scripts/obtain-postgres` can ask on a bare machine.
"""

import os
import sys

from tests.broker.search import docker_answers
from tests.postgres.errors import PostgresUnavailableError
from tests.postgres.programs import find_programs

GIVEN = "KTRDR_TEST_POSTGRES_URL"
"""The environment variable that names a server to use, and a user who may make databases."""


def given_url() -> str | None:
    """Return the URL of the server that is to be used, if one was named."""
    return os.environ.get(GIVEN) or None


def check_there_is_one() -> None:
    """Return if the tests will find a PostgreSQL; nothing is started.

    Raises:
        PostgresUnavailableError: They will not; the message names the one command that gets one.
    """
    if given_url():
        return
    try:
        find_programs()
    except PostgresUnavailableError:
        if not docker_answers():
            raise


def main() -> None:
    """Print why there is none, and exit with 1, if so."""
    try:
        check_there_is_one()
    except PostgresUnavailableError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
