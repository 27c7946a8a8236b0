"""Frames on a stream socket: four bytes of length, then msgpack of ``[kind, fields]``."""

import asyncio
import socket
import struct

import msgpack
from pydantic import ValidationError

from host_agent.frames import FRAMES, Frame
from ktrdr.errors import OversizedError, UndecodableError

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""As much as a request's content may be; the largest frame is a job with its strategy."""

_LENGTH = struct.Struct(">I")


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame.

    Raises:
        OversizedError: it would be over `MAX_FRAME_BYTES`.
    """
    body: bytes = msgpack.packb(
        [frame.kind, frame.model_dump(mode="json")],
        # Names of files may hold surrogates (PEP 383).
        unicode_errors="surrogatepass",
    )
    if len(body) > MAX_FRAME_BYTES:
        raise OversizedError(f"A frame '{frame.kind}' of {len(body):,} bytes is over {MAX_FRAME_BYTES:,}.")
    return _LENGTH.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Wait for the next frame.

    Raises:
        EOFError: the other side is gone.
        CodecError: what it wrote is not a frame.
    """
    try:
        size = _checked_length(await reader.readexactly(_LENGTH.size))
        return _decode(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError("the pipe is closed") from error


def receive_frame(pipe: socket.socket) -> Frame:
    """Block until the next frame; raises as `read_frame` does."""
    return _decode(_receive(pipe, _checked_length(_receive(pipe, _LENGTH.size))))


def _receive(pipe: socket.socket, size: int) -> bytes:
    chunks = []
    while size:
        try:
            chunk = pipe.recv(min(size, 1 << 20))
        except ConnectionError as error:
            raise EOFError("the pipe is closed") from error
        if not chunk:
            raise EOFError("the pipe is closed")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _checked_length(prefix: bytes) -> int:
    size: int = _LENGTH.unpack(prefix)[0]
    if size > MAX_FRAME_BYTES:
        raise OversizedError(f"A frame of {size:,} bytes is over {MAX_FRAME_BYTES:,}.")
    return size


def _decode(body: bytes) -> Frame:
    try:
        kind, fields = msgpack.unpackb(body, unicode_errors="surrogatepass")
        return FRAMES[kind].model_validate(fields)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException, ValidationError) as error:
        raise UndecodableError(f"A frame in the runner's pipe cannot be read: {error}.") from error
