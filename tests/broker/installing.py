"""Getting a server that the tests use; needs nothing but Python."""

import os
import shutil
import sys


def how_to_install(*, script: str, brew: str, package: str) -> str:
    """Return the one command that gets this machine a server.

    Args:
        script: of ours, which installs it on Debian and Ubuntu; unlike apt-get alone it starts no service.
        brew: what Homebrew calls it.
        package: what dnf calls it.
    """
    as_root = "" if os.geteuid() == 0 else "sudo "
    if sys.platform == "darwin":
        return f"brew install {brew}"
    if shutil.which("apt-get"):
        return f"{as_root}{script}"
    if shutil.which("dnf"):
        return f"{as_root}dnf install --assumeyes {package}"
    return "curl -fsSL https://get.docker.com | sudo sh"
