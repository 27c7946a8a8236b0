"""zstd with a limit that a lying header cannot pass."""

import zstandard

from ktrdr.errors import OversizedError, UndecodableError

_LEVEL = 3
# Higher levels cost up to 100 times as long for 2 % on trained weights.


def compress(data: bytes) -> bytes:
    """Return one zstd frame that declares its content size."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(data)


_EMPTY = compress(b"")


def decompress(data: bytes, *, limit: int) -> bytes:
    """Return the content of one zstd frame of at most ``limit`` bytes.

    The frame must declare its size. That is checked first, no more than that is ever allocated, and content
    that turns out longer or shorter is an error.

    Raises:
        OversizedError: the content says that it is over the limit.
        UndecodableError: this is not exactly one whole zstd frame of the size that it declares.
    """
    if data == _EMPTY:
        return b""
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        # zstandard takes "declares nothing" for "use the limit", and "declares 0" for "need not look".
        if declared in (zstandard.CONTENTSIZE_UNKNOWN, 0):
            raise UndecodableError("The zstd frame does not declare the size of its content.")
        if declared > limit:
            raise OversizedError(f"The content declares {declared:,} bytes; the limit is {limit:,}.")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise UndecodableError(f"The content is not valid zstd: {error}.") from error
