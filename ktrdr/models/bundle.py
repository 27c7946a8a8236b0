"""A model as one value: the files of its version directory, packed into bytes that travel."""

import hashlib
from collections.abc import Mapping

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
    try:
        entries = msgpack.unpackb(data, object_pairs_hook=list)
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise ModelCorruptError(f"The bundle cannot be read: {error}.") from error
    # A list of pairs rather than a dict, so that a name that comes twice is seen.
    if not isinstance(entries, list) or not all(isinstance(entry, tuple) for entry in entries):
        raise ModelCorruptError("The bundle is not a map of files.")
    names = [name for name, _ in entries]
    if len(names) != len(BUNDLE_FILES) or any(name not in BUNDLE_FILES for name in names):
        raise ModelCorruptError(f"The bundle has other files than {', '.join(BUNDLE_FILES)}.")
    files = dict(entries)
    if len(files) != len(BUNDLE_FILES):
        raise ModelCorruptError("The bundle has a file twice.")
    if not all(isinstance(content, bytes) for content in files.values()):
        raise ModelCorruptError("A file in the bundle is not bytes.")
    return {name: files[name] for name in BUNDLE_FILES}


def digests(files: Mapping[str, bytes]) -> dict[str, FileDigest]:
    """Return the hash and size of each file."""
    return {
        name: FileDigest(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in files.items()
    }
