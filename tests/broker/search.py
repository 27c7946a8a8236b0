"""Whether there is a broker to test with. Run as a module, it says so by its exit code, and what to do.

Needs nothing but Python, so that `scripts/obtain-broker` can ask on a bare machine.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.broker.errors import BrokerUnavailableError
from tests.broker.programs import find_programs

GIVEN = "KTRDR_TEST_AMQP_URL"
"""The environment variable that names a broker to use."""

_ENGINE_ANSWERS_WITHIN_S = 10.0
_REPOSITORY = Path(__file__).parents[2]


def given_url() -> str | None:
    """Return the URL of the broker that is to be used, if one was named."""
    return os.environ.get(GIVEN) or None


def docker_answers() -> bool:
    """Whether there is a Docker engine."""
    try:
        ping = subprocess.run(
            [sys.executable, "-m", "tests.broker.docker_process", "--ping"],
            cwd=_REPOSITORY,
            timeout=_ENGINE_ANSWERS_WITHIN_S,
            capture_output=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return ping.returncode == 0


def check_there_is_one() -> None:
    """Return if the tests will find a broker; nothing is started.

    Raises:
        BrokerUnavailableError: They will not; the message names the one command that gets one.
    """
    if given_url():
        return
    try:
        find_programs()
    except BrokerUnavailableError:
        if not docker_answers():
            raise


def main() -> None:
    """Print why there is none, and exit with 1, if so."""
    try:
        check_there_is_one()
    except BrokerUnavailableError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
