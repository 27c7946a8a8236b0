"""Becomes a host agent that does not outlive the drill, even if that is killed (on Linux)."""

import os
import sys

from host_agent.orphans import die_with_parent


def main() -> None:
    """Tie this process to its parent, whose process id is the argument, and become the agent."""
    die_with_parent(int(sys.argv[1]))
    # The tie holds over this, as the process stays the same.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "ktrdr.cli.agent"])  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
