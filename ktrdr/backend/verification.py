"""Whether a result is what its manifest says and what was asked for; nothing of it is trusted before."""

import hashlib
from collections.abc import Iterator

from ktrdr.blobs.store import BlobStore
from ktrdr.errors import (
    BlobCorruptError,
    BlobMissingError,
    BlobRefusedError,
    CodecError,
    KtrdrError,
    ModelCorruptError,
)
from ktrdr.events import Codec, ModelReady, TrainingRequested
from ktrdr.events.compression import decompress
from ktrdr.models.bundle import WEIGHTS_FILE, digests, unpack, unpack_pieces


class ResultRejectedError(KtrdrError):
    """A result is not what it should be."""


def verified_files(
    event: ModelReady,
    request: TrainingRequested,
    *,
    symbol: str,
    timeframe: str,
    blobs: BlobStore,
    limit_bytes: int,
) -> dict[str, bytes]:
    """Return the files of the model in a result.

    Args:
        event: the result.
        request: what was asked for.
        symbol: of the model that was asked for.
        timeframe: likewise.
        blobs: where a result lies that is not in the event itself.
        limit_bytes: of the files together.

    Raises:
        ResultRejectedError: says what is wrong.
        BlobError: the store does not answer; the result may still be good.
    """
    manifest = event.manifest
    asked = {
        "strategy": request.strategy.name,
        "symbol": symbol,
        "timeframe": timeframe,
        "seed": request.seed,
        "strategy_sha256": request.strategy.sha256,
    }
    for name, value in asked.items():
        if (given := getattr(manifest, name)) != value:
            raise ResultRejectedError(f"Its {name} is {given!r}; {value!r} was asked for.")
    if manifest.bundle_size > limit_bytes:
        raise ResultRejectedError(f"It has {manifest.bundle_size:,} bytes; the limit is {limit_bytes:,}.")
    files = _inline_files(event) if event.inline is not None else _blob_files(event, blobs, limit_bytes)
    found = digests(files)
    for name in sorted(found.keys() | manifest.files.keys()):
        if found.get(name) != manifest.files.get(name):
            raise ResultRejectedError(f"Its file {name} is not what its manifest says.")
    if found[WEIGHTS_FILE].sha256 != manifest.weights_sha256:
        raise ResultRejectedError(f"The SHA-256 of its weights is not {manifest.weights_sha256}.")
    return files


def _inline_files(event: ModelReady) -> dict[str, bytes]:
    assert event.inline is not None
    bundle = _decompressed(event, event.inline.codec, event.inline.data)
    return _unpacked(event, bundle)


def _blob_files(event: ModelReady, blobs: BlobStore, limit_bytes: int) -> dict[str, bytes]:
    assert event.blob is not None  # the event's own rule
    try:
        if event.blob.codec is Codec.NONE:
            _check(event, event.blob.size, event.blob.sha256)
            return _unpacked_on_arrival(blobs.stream(event.blob, limit_bytes))
        # What does not compress at all grows a little by compression.
        data = blobs.get(event.blob, limit_bytes + limit_bytes // 64 + 1024)
    except (BlobMissingError, BlobCorruptError, BlobRefusedError) as error:
        raise ResultRejectedError(error.message) from error
    return _unpacked(event, _decompressed(event, event.blob.codec, data))


def _unpacked_on_arrival(pieces: Iterator[bytes]) -> dict[str, bytes]:
    try:
        return unpack_pieces(pieces)
    except ModelCorruptError as error:
        for _ in pieces:
            pass  # if it is not what the agent has stored, that is the reason
        raise ResultRejectedError(error.message) from error


def _unpacked(event: ModelReady, bundle: bytes) -> dict[str, bytes]:
    _check(event, len(bundle), hashlib.sha256(bundle).hexdigest())
    try:
        return unpack(bundle)
    except ModelCorruptError as error:
        raise ResultRejectedError(error.message) from error


def _check(event: ModelReady, size: int, sha256: str) -> None:
    manifest = event.manifest
    if size != manifest.bundle_size:
        raise ResultRejectedError(f"It has {size:,} bytes; its manifest says {manifest.bundle_size:,}.")
    if sha256 != manifest.bundle_sha256:
        raise ResultRejectedError(f"Its SHA-256 is {sha256}; its manifest says {manifest.bundle_sha256}.")


def _decompressed(event: ModelReady, codec: Codec, data: bytes) -> bytes:
    if codec is Codec.NONE:
        return data
    try:
        # The manifest's size is within the limit; more than it says is wrong anyway.
        return decompress(data, limit=event.manifest.bundle_size)
    except CodecError as error:
        raise ResultRejectedError(error.message) from error
