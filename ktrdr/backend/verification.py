"""Whether a result is what its manifest says and what was asked for; nothing of it is trusted before."""

import hashlib

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
from ktrdr.models.bundle import WEIGHTS_FILE, digests, unpack


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
    bundle = _bundle(event, blobs, limit_bytes)
    if len(bundle) != manifest.bundle_size:
        raise ResultRejectedError(
            f"It has {len(bundle):,} bytes; its manifest says {manifest.bundle_size:,}."
        )
    if (sha256 := hashlib.sha256(bundle).hexdigest()) != manifest.bundle_sha256:
        raise ResultRejectedError(f"Its SHA-256 is {sha256}; its manifest says {manifest.bundle_sha256}.")
    try:
        files = unpack(bundle)
    except ModelCorruptError as error:
        raise ResultRejectedError(error.message) from error
    found = digests(files)
    for name in sorted(found.keys() | manifest.files.keys()):
        if found.get(name) != manifest.files.get(name):
            raise ResultRejectedError(f"Its file {name} is not what its manifest says.")
    if found[WEIGHTS_FILE].sha256 != manifest.weights_sha256:
        raise ResultRejectedError(f"The SHA-256 of its weights is not {manifest.weights_sha256}.")
    return files


def _bundle(event: ModelReady, blobs: BlobStore, limit_bytes: int) -> bytes:
    if event.inline is not None:
        data, codec = event.inline.data, event.inline.codec
    else:
        assert event.blob is not None  # the event's own rule
        try:
            # What does not compress at all grows a little by compression.
            data = blobs.get(event.blob, limit_bytes + limit_bytes // 64 + 1024)
        except (BlobMissingError, BlobCorruptError, BlobRefusedError) as error:
            raise ResultRejectedError(error.message) from error
        codec = event.blob.codec
    if codec is Codec.NONE:
        return data
    try:
        # The manifest's size is within the limit; more than it says is wrong anyway.
        return decompress(data, limit=event.manifest.bundle_size)
    except CodecError as error:
        raise ResultRejectedError(error.message) from error
