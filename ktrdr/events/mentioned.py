"""Which blobs a message names, also one that nobody could read."""

import re
from contextlib import suppress

from ktrdr.errors import CodecError
from ktrdr.events.codec import MAX_CONTENT_BYTES
from ktrdr.events.compression import decompress
from ktrdr.events.message import Message

_NAMED = re.compile(rb"blob:([0-9a-f]{64})")


def blobs_named_in(message: Message) -> frozenset[str]:
    """Return the hash of each."""
    body = message.body
    if message.content_encoding == "zstd":
        # If it is no zstd, that is what it died of, and it names nothing that anybody could read.
        with suppress(CodecError):
            body = decompress(body, limit=MAX_CONTENT_BYTES)
    return frozenset(found.decode() for found in _NAMED.findall(body))
