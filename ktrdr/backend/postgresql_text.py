"""Text as PostgreSQL takes it."""

from psycopg.abc import Buffer
from psycopg.types.string import StrDumperUnknown


class TextDumper(StrDumperUnknown):
    """Replaces the one character that PostgreSQL has no place for, NUL: a message may hold anything."""

    def dump(self, obj: str) -> Buffer | None:
        """Return the text as the server gets it."""
        return super().dump(obj.replace("\0", "�") if "\0" in obj else obj)
