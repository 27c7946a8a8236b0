"""A model as one value: the files of its version directory, packed into bytes that travel."""

import hashlib
import io
from collections.abc import Iterable, Mapping

import msgpack

from ktrdr.errors import ModelCorruptError
from ktrdr.events.references import FileDigest

WEIGHTS_FILE = "model.safetensors"
METADATA_FILE = "metadata.json"
STRATEGY_FILE = "strategy.yaml"
EVALUATION_FILE = "evaluation.parquet"

BUNDLE_FILES = (WEIGHTS_FILE, METADATA_FILE, STRATEGY_FILE, EVALUATION_FILE)
"""Exactly these, in this order."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the files as a msgpack map of name → content; equal files give equal bytes.

    Raises:
        ValueError: a file is missing, or there is another.
    """
    if set(files) != set(BUNDLE_FILES):
        raise ValueError(f"a bundle has the files {', '.join(BUNDLE_FILES)}, not {', '.join(sorted(files))}")
    packed: bytes = msgpack.packb({name: files[name] for name in BUNDLE_FILES}, use_bin_type=True)
    return packed


def unpack(data: bytes) -> dict[str, bytes]:
    """Return the files of a packed bundle.

    Raises:
        ModelCorruptError: it is not a map of exactly the bundle's files, or something follows it.
    """
    return unpack_pieces((data,))


def unpack_pieces(pieces: Iterable[bytes]) -> dict[str, bytes]:
    """Return the files of a packed bundle as it comes, so that it is in memory only once.

    Args:
        pieces: of any size; read to the end if they are a bundle.

    Raises:
        ModelCorruptError: as `unpack`.
    """
    reader = _Reader(pieces)
    if reader.byte() != _MAP | len(BUNDLE_FILES):
        raise ModelCorruptError(f"The bundle is not a map of the files {', '.join(BUNDLE_FILES)}.")
    files = dict(_file(reader) for _ in BUNDLE_FILES)
    if files.keys() != set(BUNDLE_FILES):
        raise ModelCorruptError(f"The bundle has other files than {', '.join(BUNDLE_FILES)}, or one twice.")
    if not reader.at_end():
        raise ModelCorruptError("Something follows the bundle.")
    return {name: files[name] for name in BUNDLE_FILES}


def digests(files: Mapping[str, bytes]) -> dict[str, FileDigest]:
    """Return the hash and size of each file."""
    return {
        name: FileDigest(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in files.items()
    }


# msgpack itself would need the whole bundle in memory beside its files. Of its format a bundle has only a map
# of up to 15 entries, text of up to 31 bytes, and bytes: https://github.com/msgpack/msgpack/blob/master/spec.md
_MAP = 0x80
_TEXT, _LONGEST_TEXT = 0xA0, 31
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""By their first byte: how many bytes their length has."""


def _file(reader: "_Reader") -> tuple[str, bytes]:
    """Read one entry of the map."""
    length = reader.byte() - _TEXT
    if not 0 <= length <= _LONGEST_TEXT:
        raise ModelCorruptError("The name of a file in the bundle is not text, or too long.")
    name = reader.take(length).decode(errors="replace")
    width = _BYTES.get(reader.byte())
    if width is None:
        raise ModelCorruptError("A file in the bundle is not bytes.")
    return name, reader.take(int.from_bytes(reader.take(width), "big"))


class _Reader:
    """Takes any number of bytes from pieces of other sizes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def byte(self) -> int:
        return self.take(1)[0]

    def take(self, size: int) -> bytes:
        # What a length says is not allocated before as much has come.
        taken = io.BytesIO()
        while (missing := size - taken.tell()) > 0:
            if self.at_end():
                raise ModelCorruptError("The bundle ends in the middle of a file.")
            taken.write(self._rest[:missing])
            self._rest = self._rest[missing:]
        return taken.getvalue()

    def at_end(self) -> bool:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self._rest = memoryview(piece)
        return False
