"""What the agent has claimed, and how each claim ended: on its disk until the backend knows the end.

A claim is a folder whose name says what was claimed: to make, move or remove it is one step, and a name is on
the disk whole or not at all::

    claims/<operation>,<attempt>,<claim id>/
        ending.json    how it ended, and the event id under which that is said
        model.bundle   the model, if there is one
        model.json     its manifest, as the runner left it

What begins with a dot is refuse.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from host_agent.directory import AgentDirectory
from host_agent.durable import sync_directory, write_durably, write_whole
from host_agent.endings import Ending, Trained
from host_agent.made import sha256_of
from host_agent.set_aside import remove, set_aside
from ktrdr.events.base import Name, OperationId, Ordinal

_log = structlog.get_logger()

_ENDING = "ending.json"
_BUNDLE = "model.bundle"


class Claim(BaseModel):
    """The fencing token of an attempt that this agent has taken."""

    model_config = ConfigDict(frozen=True)

    operation_id: OperationId
    attempt: Ordinal
    claim_id: Name

    @property
    def folder_name(self) -> str:
        """What its folder is called."""
        return f"{self.operation_id},{self.attempt},{self.claim_id}"


class Announcement(BaseModel):
    """How a claim ended, and the id of the event that says so, however often it is said."""

    model_config = ConfigDict(frozen=True)

    event_id: str
    ending: Ending


class ClaimFolder:
    """The folder of one claim. Calls block on the disk; asynchronous callers use a thread."""

    def __init__(self, path: Path, claim: Claim, announcement: Announcement | None = None) -> None:
        self.path = path
        self.claim = claim
        self.announcement = announcement
        """How it ended; None while it has not, and after a crash."""

    @property
    def bundle(self) -> Path:
        """Where the model is, or will be."""
        return self.path / _BUNDLE

    def record(self, announcement: Announcement) -> None:
        """Note how the claim ended, for good.

        Raises:
            OSError: the disk does not take it; the ending is only in memory.
        """
        self.announcement = announcement
        data = announcement.model_dump_json().encode()
        if isinstance(announcement.ending, Trained):
            # Not forced to the disk: what the runner has left there says the same.
            write_whole(self.path / _ENDING, data, synced=False)
        else:
            self.bundle.unlink(missing_ok=True)
            write_durably(self.path / _ENDING, data)

    def remove(self) -> None:
        """Forget the claim: the backend knows its end. If this fails, it is told again after a restart."""
        refuse = self.path.with_name(f".{self.path.name}")
        try:
            self.path.rename(refuse)
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("claim not removed", folder=str(self.path), reason=str(error))
        # What is left of it is swept when the agent starts next.
        shutil.rmtree(refuse, ignore_errors=True)


class Journal:
    """The folders of all claims of an agent."""

    def __init__(self, directory: AgentDirectory) -> None:
        self._claims = directory.claims
        self._set_aside = directory.set_aside

    def open(self, claim: Claim) -> ClaimFolder:
        """Note a claim, before anyone is told of it.

        Raises:
            OSError: the disk does not take it.
        """
        path = self._claims / claim.folder_name
        if shutil.disk_usage(self._claims).free == 0:
            # A folder may still fit, but nothing into it, which must not be found out after the training.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.mkdir()
        try:
            sync_directory(self._claims)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return ClaimFolder(path, claim)

    def unrecorded(self, claim: Claim) -> ClaimFolder:
        """Return the folder of a claim that could not be noted: there is nothing in it."""
        return ClaimFolder(self._claims / claim.folder_name, claim)

    def load(self) -> list[ClaimFolder]:
        """Return what a predecessor left; what cannot be read is set aside and logged."""
        return list(self._load())

    def _load(self) -> Iterator[ClaimFolder]:
        for path in sorted(self._claims.iterdir()):
            if path.name.startswith(".") or not path.is_dir():
                remove(path)
                continue
            try:
                folder = ClaimFolder(path, _claim_of(path.name))
            except ValueError as error:
                self._keep_for_a_person(path, error)
                continue
            try:
                folder.announcement = _read_announcement(folder)
            except (OSError, ValueError) as error:
                self._keep_for_a_person(path / _ENDING, error)
            yield folder

    def _keep_for_a_person(self, path: Path, error: Exception) -> None:
        relative, kept = path.relative_to(self._claims), path
        reason = str(error).partition("\n")[0]
        try:
            kept = set_aside(path, self._set_aside, "-".join(relative.parts))
        except OSError as failure:
            reason = f"{reason}; it cannot be moved either: {failure.strerror}"
        _log.warning("unreadable record set aside", record=str(relative), kept=str(kept), reason=reason)


def _claim_of(folder_name: str) -> Claim:
    operation_id, _, rest = folder_name.partition(",")
    attempt, _, claim_id = rest.partition(",")
    try:
        return Claim(operation_id=operation_id, attempt=int(attempt), claim_id=claim_id)
    except ValueError as error:
        raise ValueError("its name is not that of a claim") from error


def _read_announcement(folder: ClaimFolder) -> Announcement | None:
    try:
        text = (folder.path / _ENDING).read_bytes()
    except FileNotFoundError:
        return None
    if not text:
        return None  # It was not forced to the disk.
    try:
        announcement = Announcement.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{error.error_count()} errors, the first: {error.errors()[0]['msg']}") from error
    if isinstance(announcement.ending, Trained):
        sha256 = sha256_of(folder.bundle)
        if sha256 != announcement.ending.manifest.bundle_sha256:
            raise ValueError(f"the model's bundle has the hash {sha256}, not the one of its manifest")
    return announcement
