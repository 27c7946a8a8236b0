"""zstd with a limit that a lying header cannot pass."""

import zstandard

from ktrdr.errors import OversizedError, UndecodableError

_LEVEL = 3
# Higher levels cost up to 100 times as long for 2 % on trained weights.


def compress(data: bytes) -> bytes:
    """Return one zstd frame that declares its content size."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(data)


def decompress(data: bytes, *, limit: int) -> bytes:
    """Return the content of one zstd frame of at most ``limit`` bytes.

    The size that the frame declares is checked first, and decompression is cut off at the limit anyway, so
    that neither an honest nor a lying header makes this allocate more.

    Raises:
        OversizedError: the content is, or says that it is, over the limit.
        UndecodableError: this is not one whole zstd frame.
    """
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared != zstandard.CONTENTSIZE_UNKNOWN and declared > limit:
            raise OversizedError(f"The content declares {declared:,} bytes; the limit is {limit:,}.")
        # Windows beyond the limit are refused too: a frame may demand up to 2 GiB of history.
        reader = zstandard.ZstdDecompressor(max_window_size=max(limit, 1 << 23)).stream_reader(data)
        content = reader.read(limit + 1)
        while len(content) <= limit and (more := reader.read(limit + 1 - len(content))):
            content += more
    except zstandard.ZstdError as error:
        raise UndecodableError(f"The content is not valid zstd: {error}.") from error
    if len(content) > limit:
        raise OversizedError(f"The content is over the limit of {limit:,} bytes.")
    if declared not in (zstandard.CONTENTSIZE_UNKNOWN, len(content)):
        raise UndecodableError(f"The content has {len(content):,} bytes where its header says {declared:,}.")
    return content
