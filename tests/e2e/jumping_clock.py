"""Run ``ktrdr`` in this process with a wall clock that can be set: ``jumping_clock.py FILE ARGUMENT …``.

FILE holds the number of seconds by which the clock is wrong; it is read each time somebody asks for the time.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ktrdr.cli.main import main
from ktrdr.clock import SystemClock


def be_wrong_by(file: Path) -> None:
    """Let every clock of this process be wrong by as much as the file says."""

    def now(_: SystemClock) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=float(file.read_text() or 0))

    SystemClock.now = now  # type: ignore[method-assign]  # that is the point


if __name__ == "__main__":
    be_wrong_by(Path(sys.argv[1]))
    main(sys.argv[2:])
