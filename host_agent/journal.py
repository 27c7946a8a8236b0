"""What the agent has claimed, and how each claim ended: on its disk until the backend knows the end.

A claim is a folder, so that moving or removing it is one step::

    claims/<claim id>/claim.json     what was claimed; without it the folder is refuse
                      ending.json    how it ended, and the event id under which that is said
                      model.bundle   the model, if there is one
                      model.json     its manifest, as the runner left it
"""

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from host_agent.directory import AgentDirectory
from host_agent.durable import sync_directory, write_durably
from host_agent.endings import Ending, Trained
from host_agent.made import sha256_of
from ktrdr.events.base import Name, OperationId, Ordinal

_log = structlog.get_logger()

MAX_SET_ASIDE = 100
"""Of what cannot be read, so many are kept, the newest."""

_CLAIM = "claim.json"
_ENDING = "ending.json"
_BUNDLE = "model.bundle"


class Claim(BaseModel):
    """The fencing token of an attempt that this agent has taken."""

    model_config = ConfigDict(frozen=True)

    operation_id: OperationId
    attempt: Ordinal
    claim_id: Name
    claimed_at: datetime


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
        if not isinstance(announcement.ending, Trained):
            self.bundle.unlink(missing_ok=True)
        write_durably(self.path / _ENDING, announcement.model_dump_json().encode())

    def remove(self) -> None:
        """Forget the claim: the backend knows its end. If this fails, it is told again after a restart."""
        try:
            # Without this file the rest is refuse, which is swept when the agent starts next.
            (self.path / _CLAIM).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("claim not removed", folder=str(self.path), reason=str(error))
        shutil.rmtree(self.path, ignore_errors=True)


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
        path = self._claims / claim.claim_id
        try:
            path.mkdir()
            write_durably(path / _CLAIM, claim.model_dump_json().encode())
            sync_directory(self._claims)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return ClaimFolder(path, claim)

    def unrecorded(self, claim: Claim) -> ClaimFolder:
        """Return the folder of a claim that could not be noted: there is nothing in it."""
        return ClaimFolder(self._claims / claim.claim_id, claim)

    def load(self) -> list[ClaimFolder]:
        """Return what a predecessor left; what cannot be read is set aside and logged."""
        return list(self._load())

    def _load(self) -> Iterator[ClaimFolder]:
        for path in sorted(self._claims.iterdir()):
            try:
                claim = Claim.model_validate_json((path / _CLAIM).read_bytes())
                if claim.claim_id != path.name:
                    raise ValueError(f"it is the claim {claim.claim_id}")
            except (FileNotFoundError, NotADirectoryError):
                _remove(path)
                continue
            except (OSError, ValueError) as error:
                self._keep_for_a_person(path, error)
                continue
            folder = ClaimFolder(path, claim)
            try:
                folder.announcement = _read_announcement(folder)
            except (OSError, ValueError) as error:
                self._keep_for_a_person(path / _ENDING, error)
            yield folder

    def _keep_for_a_person(self, path: Path, error: Exception) -> None:
        relative = path.relative_to(self._claims)
        kept = self._set_aside / "-".join(relative.parts)
        number = 1
        while kept.exists():
            number += 1
            kept = self._set_aside / f"{'-'.join(relative.parts)}-{number}"
        reason = str(error).partition("\n")[0]
        try:
            path.rename(kept)
        except OSError as failure:
            reason = f"{reason}; it cannot be moved either: {failure.strerror}"
        self._forget_oldest()
        _log.warning("unreadable record set aside", record=str(relative), kept=str(kept), reason=reason)

    def _forget_oldest(self) -> None:
        kept = sorted(self._set_aside.iterdir(), key=lambda path: (path.lstat().st_mtime_ns, path.name))
        for path in kept[:-MAX_SET_ASIDE]:
            _remove(path)


def _read_announcement(folder: ClaimFolder) -> Announcement | None:
    try:
        text = (folder.path / _ENDING).read_bytes()
    except FileNotFoundError:
        return None
    try:
        announcement = Announcement.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{error.error_count()} errors, the first: {error.errors()[0]['msg']}") from error
    if isinstance(announcement.ending, Trained):
        sha256 = sha256_of(folder.bundle)
        if sha256 != announcement.ending.manifest.bundle_sha256:
            raise ValueError(f"the model's bundle has the hash {sha256}, not the one of its manifest")
    return announcement


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
