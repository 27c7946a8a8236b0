"""Making pamqp read whatever a publisher has sent.

A broker hands on names, times and headers as they came; it does not check that names are UTF-8, that a time
is one that Python can hold, or that tables are not nested ten thousand deep. pamqp raises on such a thing,
and aiormq then ends the connection: of whoever the message is delivered to, again and again. What cannot be
read is therefore read as something that is harmless, and the codec rejects the message.
"""

from datetime import datetime

from pamqp import common, decode

_LENGTH = common.Struct.integer


def tolerate_hostile_properties() -> None:
    """Replace pamqp's decoders of what a publisher chooses; for all that uses pamqp in this process."""
    decode.METHODS["shortstr"] = _short_string
    decode.METHODS["timestamp"] = _timestamp
    decode.METHODS["table"] = _table
    decode.TABLE_MAPPING[b"T"] = _timestamp


def _short_string(value: bytes) -> tuple[int, str]:
    end = value[0] + 1
    return end, value[1:end].decode(errors="replace")


def _timestamp(value: bytes) -> tuple[int, datetime | None]:
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return 8, None


def _table(value: bytes) -> tuple[int, common.FieldTable]:
    try:
        return decode.field_table(value)
    except (ValueError, ArithmeticError, KeyError, RecursionError):
        return 4 + _LENGTH.unpack(value[:4])[0], {}
