"""What an agent is called: the same at each start, since its results are found by its name."""

import re
import socket
from pathlib import Path

from host_agent.durable import write_durably
from ktrdr.errors import AgentError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}", re.ASCII)
_LONGEST_DEFAULT = 64
_EMBEDDED = re.compile(r"embedded-[0-9]+")


def agent_name(agents_dir: Path, wanted: str | None) -> str:
    """Return the name that is wanted, or this machine's: its host name when an agent first ran here.

    It is kept in a file, because host names change with the network, and in containers at each start.

    Raises:
        AgentError: the name belongs to agents of another kind, or cannot be kept.
    """
    if wanted is not None:
        if is_embedded(wanted):
            raise AgentError(
                f"'{wanted}' is the name of an agent inside a backend.", fix="Choose another --name."
            )
        return wanted
    file = agents_dir / "name"
    try:
        kept = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        kept = ""
    if _NAME.fullmatch(kept):
        return kept
    name = name_from(socket.gethostname())
    try:
        agents_dir.mkdir(parents=True, exist_ok=True)
        write_durably(file, f"{name}\n".encode())
    except OSError as error:
        raise AgentError(
            f"The agent's name cannot be kept in {file}: {error.strerror}.",
            fix="Set KTRDR_HOME to a directory that can be written.",
        ) from error
    return name


def is_embedded(agent_id: str) -> bool:
    """Return whether it is the name of an agent inside a backend, which lives as long as that process."""
    return _EMBEDDED.fullmatch(agent_id) is not None


def name_from(host: str) -> str:
    """Return a name that is safe in paths and queues, from the first part of a host name."""
    first = host.partition(".")[0].lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", first).strip("-_")[:_LONGEST_DEFAULT]
    return "host" if not name or is_embedded(name) else name
