"""Model versions on disk: written whole or not at all, never changed, checked by hash.

::

    models/
      eurusd_momentum/
        EURUSD_1h_v1/         model.safetensors, metadata.json, …, report.html, SHA256SUMS
        EURUSD_1h_v2/
        EURUSD_1h_latest  ->  EURUSD_1h_v2
      .staging/               what is being written
      .replaced/              what was in the way of a version and was not written by this program's database
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ktrdr.errors import ModelError, StorageFullError
from ktrdr.events.references import FileDigest
from ktrdr.models.bundle import BUNDLE_FILES

SUMS_FILE = "SHA256SUMS"
"""As ``sha256sum`` writes and checks it: ``cd models/…/…_v1 && sha256sum -c SHA256SUMS``."""
_STAGING = ".staging"
_REPLACED = ".replaced"
# One component of a path, as `ktrdr.events.base.Name` has it: no separator, no leading dot.
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}", re.ASCII)
_CHUNK_BYTES = 1024 * 1024
_SYNCING = ThreadPoolExecutor(8, thread_name_prefix="sync")


@dataclass(frozen=True, slots=True)
class StagedModel:
    """Files that are safe on the disk but have no place among the versions yet."""

    path: Path
    files: Mapping[str, FileDigest]
    inode: int
    """Of the directory; it keeps it under any name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a version on disk."""

    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


def version_name(strategy: str, symbol: str, timeframe: str, version: int) -> str:
    """Return the name of a version, which is its path under the models directory.

    Raises:
        ModelError: a part of it could lead elsewhere.
    """
    for part in (strategy, symbol, timeframe):
        if _COMPONENT.fullmatch(part) is None:
            raise ModelError(f"'{part[:80]}' cannot be part of a model's path.")
    return f"{strategy}/{symbol}_{timeframe}_v{version}"


def checked_file_name(name: str) -> str:
    """Return the name of a file of a version, if it is one.

    Raises:
        ModelError: it could lead elsewhere, or is that of `SUMS_FILE`.
    """
    if _COMPONENT.fullmatch(name) is None or name == SUMS_FILE:
        raise ModelError(f"'{name[:80]}' cannot be a file of a model.")
    return name


def sums_of(files: Mapping[str, FileDigest]) -> str:
    """Return what `SUMS_FILE` says of files."""
    return "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))


class ModelDirectory:
    """Where model versions are written; several processes may do so at once.

    The database gives the version numbers: this only writes what it is told and never counts what is there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def path(self, name: str) -> Path:
        """Return the directory of a version, named as ``{strategy}/{symbol}_{timeframe}_v{N}``.

        Raises:
            ModelError: the name is not of that form, or leads out of the models directory.
        """
        parts = name.split("/")
        if len(parts) != 2 or not all(_COMPONENT.fullmatch(part) for part in parts):
            raise ModelError(f"'{name[:120]}' is not the name of a model version.")
        parent = self.root / parts[0]
        if parent.is_symlink():
            raise ModelError(
                f"{parent} is a link; models are only written to real directories below {self.root}.",
                fix="Replace the link by a directory, or set KTRDR_MODELS_DIR to where it leads.",
            )
        return parent / parts[1]

    def versions(self) -> list[str]:
        """Return the names of the versions that are on the disk, whether they are registered or not."""
        found = self.root.glob("[!.]*/*_v[0-9]*/metadata.json")
        return sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in found)

    def stage(self, files: Mapping[str, bytes], *, owner: str) -> StagedModel:
        """Write the files, and their hashes beside them, durably but outside the versions.

        Args:
            files: name → content.
            owner: the instance that writes, so that others know what its death left behind.

        Raises:
            StorageFullError: says how much is needed; nothing is left.
            ModelError: a file's name could lead elsewhere, or the directory cannot be written.
        """
        for name in files:
            checked_file_name(name)
        digests = {
            name: FileDigest(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
            for name, content in files.items()
        }
        sums = sums_of(digests).encode()
        needed = sum(map(len, files.values())) + len(sums)
        path = self._temporary(_STAGING, owner)
        try:
            with self._disk_errors(needed):
                path.mkdir(parents=True)
                _write_all(path, {**files, SUMS_FILE: sums})
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return StagedModel(path, digests, path.stat().st_ino)

    def publish(self, staged: StagedModel, name: str) -> Path:
        """Give staged files their place as a version, in one step, and return it.

        What is there already under that name has no row in the database, or the number would be another:
        a crash came between this and the commit. The same files are replaced; others are kept in
        ``.replaced``, since they may be of a database that was lost.

        Raises:
            ModelError: the name leads elsewhere, or the directory cannot be written.
            StorageFullError: the disk is full.
        """
        target = self.path(name)
        with self._disk_errors(0):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_symlink() or target.exists():
                self._move_away(target, staged)
            staged.path.rename(target)
            _sync(target.parent, self.root)
        return target

    def take_back(self, staged: StagedModel, name: str) -> None:
        """Undo `publish`, if it has happened and the version is not another's by now."""
        target = self.path(name)
        with self._disk_errors(0), suppress(FileNotFoundError):
            if target.stat().st_ino == staged.inode and not target.is_symlink():
                target.rename(staged.path)

    def discard(self, staged: StagedModel) -> None:
        """Remove staged files, if they were not published."""
        shutil.rmtree(staged.path, ignore_errors=True)

    def point_latest(self, strategy: str, symbol: str, timeframe: str, version: int, *, owner: str) -> None:
        """Make ``{symbol}_{timeframe}_latest`` lead to that version; there is no moment without it.

        Raises:
            ModelError: there is something else of that name, or the directory cannot be written.
            StorageFullError: the disk is full.
        """
        target = self.path(version_name(strategy, symbol, timeframe, version))
        link = target.with_name(f"{symbol}_{timeframe}_latest")
        if link.is_symlink() and link.readlink() == Path(target.name):
            return
        if link.exists() and not link.is_symlink():
            raise ModelError(f"{link} is not a link.", fix="Move it away.")
        temporary = self._temporary(_STAGING, owner)
        with self._disk_errors(0):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.symlink_to(target.name)
            # Not synced: what a loss of power undoes is put right when a process starts.
            temporary.replace(link)

    def verify(self, name: str, expected: Mapping[str, FileDigest]) -> list[Finding]:
        """Recompute every hash of a version and return what differs; nothing if it is as it was persisted.

        Raises:
            ModelError: the name leads elsewhere.
        """
        path = self.path(name)
        if path.is_symlink() or not path.is_dir():
            return [Finding(name, "the directory is missing")]
        wanted = dict(expected)
        sums = sums_of(expected).encode()
        wanted[SUMS_FILE] = FileDigest(sha256=hashlib.sha256(sums).hexdigest(), size=len(sums))
        present = {entry.name for entry in path.iterdir()}
        findings = [Finding(file, "is not part of the model") for file in sorted(present - wanted.keys())]
        for file, digest in wanted.items():
            problem = _problem(path / file, digest)
            if problem is not None:
                findings.append(Finding(file, problem))
        return findings

    def remove_leftovers(self, is_gone: Callable[[str], bool]) -> int:
        """Remove what dead processes have staged and not published; return how much there was."""
        removed = 0
        for path in (self.root / _STAGING).glob("*"):
            if is_gone(path.name.partition("~")[0]):
                _remove(path)
                removed += 1
        return removed

    def remove_replaced(self, before: datetime) -> None:
        """Remove what `replaced` returns."""
        for path in self.replaced(before):
            _remove(path)

    def replaced(self, before: datetime) -> list[Path]:
        """Return what was in the way of a version, and was set aside before that time."""
        limit = before.timestamp()
        return [path for path in (self.root / _REPLACED).glob("*") if path.lstat().st_mtime < limit]

    def _move_away(self, target: Path, staged: StagedModel) -> None:
        if not target.is_symlink() and _same_model(target, staged.path):
            aside = staged.path.with_name(f"{staged.path.name}.old")
            target.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside = self._temporary(_REPLACED, f"{target.parent.name}.{target.name}")
            aside.parent.mkdir(parents=True, exist_ok=True)
            target.rename(aside)
            if not aside.is_symlink():
                os.utime(aside)  # its age counts from here

    def _temporary(self, where: str, label: str) -> Path:
        return self.root / where / f"{label}~{secrets.token_hex(8)}"

    @contextmanager
    def _disk_errors(self, needed: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                need = f": the model needs {needed:,} bytes" if needed else ""
                raise StorageFullError(
                    f"The disk of {self.root} is full{need}.", fix="Free some space; the model waits."
                ) from error
            raise ModelError(
                f"{self.root} cannot be written: {error.strerror or error}.",
                fix="Make it a directory that is yours, or set KTRDR_MODELS_DIR to one.",
            ) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _problem(path: Path, expected: FileDigest) -> str | None:
    if path.is_symlink() or not path.is_file():
        return "is not a file" if path.exists() or path.is_symlink() else "is missing"
    size = path.stat().st_size
    if size != expected.size:
        return f"has {size:,} bytes in place of {expected.size:,}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == expected.sha256 else f"has other content: its SHA-256 is {digest}"


def _same_model(one: Path, other: Path) -> bool:
    """Return whether both have the same bundle; their reports may differ by a date."""
    sums = [[_sum_of(version, file) for file in BUNDLE_FILES] for version in (one, other)]
    return None not in sums[0] and sums[0] == sums[1]


def _sum_of(version: Path, file: str) -> str | None:
    try:
        sums = (version / SUMS_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return next((line for line in sums.splitlines() if line.endswith(f"  {file}")), None)


def _write_all(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write new files so that they, and their names, survive a loss of power."""
    with ExitStack() as stack:
        descriptors = [stack.enter_context(_opened(directory))]
        for name, content in files.items():
            file = stack.enter_context((directory / name).open("xb"))
            file.write(content)
            file.flush()
            descriptors.append(file.fileno())
        _sync_together(descriptors)


def _sync(*directories: Path) -> None:
    """Make the names in directories survive a loss of power."""
    with ExitStack() as stack:
        _sync_together([stack.enter_context(_opened(directory)) for directory in directories])


def _sync_together(descriptors: list[int]) -> None:
    # Side by side they share one commit of the file system's journal, for which each would wait on its own:
    # for six small files and their directory, on an ext4 that others keep busy, 4 ms in place of 21.
    first, *others = descriptors
    syncing = [_SYNCING.submit(os.fsync, descriptor) for descriptor in others]
    try:
        os.fsync(first)
    finally:
        wait(syncing)  # whoever opened them closes them now
    for done in syncing:
        done.result()


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
