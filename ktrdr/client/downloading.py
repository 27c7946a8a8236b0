"""Files of a model version, fetched from where they are: whole and as they were persisted, or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from ktrdr.backend.records import ModelRecord
from ktrdr.blobs.verified import sync_directory, verified
from ktrdr.errors import BlobCorruptError, ModelCorruptError, ModelError, StorageFullError
from ktrdr.events import FileDigest
from ktrdr.models.directory import SUMS_FILE, ModelDirectory, checked_file_name, sums_of

Take: TypeAlias = Callable[[Iterator[bytes]], None]
"""Takes the parts of a file; is called again, with the first part, when they have not come to their end."""


def download_model(
    model: ModelRecord,
    directory: Path,
    read: Callable[[str, Take], None],
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Path:
    """Put the files of a version into ``{directory}/{strategy}/{version}``, and return that.

    It gets its name when every file is on the disk and has the content that was persisted; whatever ends it
    before, Ctrl-C too, leaves nothing.

    Args:
        model: the version. Its names may be anybody's: they are checked before there is a path of them.
        directory: below which it is put.
        read: has a file taken, by its name.
        on_bytes: told how much there is by now.

    Raises:
        ModelError: a name could lead elsewhere, or there is something of that name, or it cannot be written.
        ModelCorruptError: what came is not what was persisted.
        StorageFullError: the disk is full.
    """
    files = {checked_file_name(name): digest for name, digest in model.files.items()}
    target = ModelDirectory(directory).path(model.name)
    if target.exists() or target.is_symlink():
        raise ModelError(f"{target} is there already.", fix="Name another directory with --to, or remove it.")
    is_new = not target.parent.exists()
    unfinished = target.with_name(f".{target.name}~{secrets.token_hex(8)}")
    complete = 0
    try:
        unfinished.mkdir(parents=True)
        for name, digest in files.items():
            _fetch(model.name, unfinished / name, digest, read, _beyond(complete, on_bytes))
            complete += digest.size
        _write(unfinished / SUMS_FILE, [sums_of(files).encode()], lambda count: None)
        sync_directory(unfinished)
        unfinished.rename(target)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # another may have put something there
                target.parent.rmdir()
        if isinstance(error, OSError):
            raise _disk_error(error, directory, sum(digest.size for digest in files.values())) from error
        raise
    return target


def _beyond(complete: int, on_bytes: Callable[[int], None]) -> Callable[[int], None]:
    return lambda so_far: on_bytes(complete + so_far)


def _fetch(
    model: str,
    path: Path,
    digest: FileDigest,
    read: Callable[[str, Take], None],
    on_bytes: Callable[[int], None],
) -> None:
    def take(parts: Iterator[bytes]) -> None:
        try:
            _write(path, verified(parts, digest), on_bytes)
        except BlobCorruptError as error:
            raise ModelCorruptError(
                f"What came as {path.name} of model {model} is not what was persisted.",
                fix=f"Have its files examined: ktrdr models verify {model}",
            ) from error

    read(path.name, take)


def _write(path: Path, parts: Iterable[bytes], on_bytes: Callable[[int], None]) -> None:
    so_far = 0
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
            so_far += len(part)
            on_bytes(so_far)
        file.flush()
        os.fsync(file.fileno())


def _disk_error(error: OSError, directory: Path, needed: int) -> ModelError | StorageFullError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(
            f"The disk of {directory} is full: the model needs {needed:,} bytes. Nothing of it was kept.",
            fix="Free some space, or name another directory with --to.",
        )
    return ModelError(
        f"{error.filename or directory} cannot be read or written: {error.strerror or error}.",
        fix="Name a directory with --to that is yours.",
    )
