"""A look at msgpack's headers before anything is built from them.

16 MiB of empty maps, a few hundred bytes when compressed, would become more than a gigabyte of objects, and
nested arrays may each declare millions of elements that never come. So values are counted first.
"""

from ktrdr.errors import OversizedError, UndecodableError

MAX_VALUES = 20_000
"""In one body: a model of a thousand features has some 1,200."""
MAX_DEPTH = 64


def check_structure(content: bytes, *, max_values: int = MAX_VALUES, max_depth: int = MAX_DEPTH) -> None:
    """Refuse content that would unpack to too many values, or too deep ones.

    Content that is cut short or otherwise wrong passes if it is small: unpacking it tells what is wrong.

    Raises:
        OversizedError: it declares more values, or deeper nesting, than allowed.
        UndecodableError: a byte that msgpack never uses.
    """
    size = len(content)
    position = 0
    values = pending = 1
    outer: list[int] = []  # values still to come of the containers around this one
    while position < size:
        while not pending:
            if not outer:
                return
            pending = outer.pop()
        pending -= 1
        length_bytes, payload, children = _HEADERS[content[position]]
        position += 1
        if length_bytes:
            declared = int.from_bytes(content[position : position + length_bytes], "big")
            position += length_bytes
            if children:
                children *= declared
            else:
                payload += declared
        elif payload < 0:
            raise UndecodableError("The body is not valid msgpack: 0xc1 is no type.")
        position += payload
        if children:
            values += children
            if values > max_values:
                raise OversizedError(f"The body declares {values:,} values; the limit is {max_values:,}.")
            outer.append(pending)
            pending = children
            if len(outer) > max_depth:
                raise OversizedError(f"The body is nested deeper than {max_depth} levels.")


_Header = tuple[int, int, int]
"""Bytes of a length that follows, bytes of content besides, values inside (or per unit of the length)."""


def _headers() -> tuple[_Header, ...]:
    table: list[_Header] = [(0, 0, 0)] * 256  # small integers, nil, false, true
    for count in range(16):
        table[0x80 + count] = (0, 0, 2 * count)  # fixmap
        table[0x90 + count] = (0, 0, count)  # fixarray
    for length in range(32):
        table[0xA0 + length] = (0, length, 0)  # fixstr
    table[0xC1] = (0, -1, 0)
    for step in range(3):
        table[0xC4 + step] = (1 << step, 0, 0)  # bin
        table[0xC7 + step] = (1 << step, 1, 0)  # ext
        table[0xD9 + step] = (1 << step, 0, 0)  # str
    for step in range(4):
        table[0xCC + step] = table[0xD0 + step] = (0, 1 << step, 0)  # uint, int
    for step in range(5):
        table[0xD4 + step] = (0, 1 + (1 << step), 0)  # fixext
    table[0xCA], table[0xCB] = (0, 4, 0), (0, 8, 0)  # float
    table[0xDC], table[0xDD] = (2, 0, 1), (4, 0, 1)  # array
    table[0xDE], table[0xDF] = (2, 0, 2), (4, 0, 2)  # map
    return tuple(table)


_HEADERS = _headers()
