"""The tokens by which programs and people use the HTTP API: made, listed, revoked, recognised.

::

    ktrdr_k3f9x2mq_9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
          id       secret: 256 random bits

The database has the id and the SHA-256 of the whole. A password would need a slow hash with a salt, since
people choose passwords that can be guessed; 256 random bits cannot, however fast the hash is, and no two
tokens are equal. So a request costs one look-up and one SHA-256, and who reads the database cannot log in.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, or_, select, update

from ktrdr.backend.audit import Witness
from ktrdr.backend.store import OperationStore
from ktrdr.backend.tables import access_tokens
from ktrdr.backend.work import Work
from ktrdr.errors import SettingsError
from ktrdr.ids import IdFactory, RandomIds

_PREFIX = "ktrdr"
_SECRET_BYTES = 32
_MAX_CHARACTERS = 200
_MAX_NAME_CHARACTERS = 100
_NOBODY = "0" * 64
_SHOWN = re.compile(rf"{_PREFIX}_([a-z0-9]+)_[0-9a-f]{{16,}}")


class Role(StrEnum):
    """What a token lets one do; each role may do what those before it may."""

    VIEWER = "viewer"
    """Read everything but the audit log."""
    OPERATOR = "operator"
    """Start, cancel and repeat trainings."""
    ADMIN = "admin"
    """Change the configuration and the tokens, and read the audit log."""

    def includes(self, other: "Role") -> bool:
        """Return whether it may do what the other may."""
        roles = list(Role)
        return roles.index(self) >= roles.index(other)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What is known of a token; not the token itself."""

    token_id: str
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def title(self) -> str:
        """Name and id, as the audit log has them."""
        return f"{self.name} ({self.token_id})"

    def is_valid(self, now: datetime) -> bool:
        """Return whether it lets anybody in at that moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made."""

    record: AccessToken
    secret: str = field(repr=False)
    """What a client shows; nobody can find it out again."""


def check_token_name(name: str) -> None:
    """Raise SettingsError for what no token can be called."""
    if not name.strip() or len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        raise SettingsError(
            f"A token needs a name of 1 to {_MAX_NAME_CHARACTERS} characters.", fix="Say whom it is for."
        )


class AccessTokens:
    """The tokens of one installation; calls block.

    Args:
        store: the database.
        ids: makes the ids of tokens.
    """

    def __init__(self, store: OperationStore, ids: IdFactory | None = None) -> None:
        self._store = store
        self._ids = ids or RandomIds()

    def create(
        self, name: str, role: Role, *, expires_at: datetime | None = None, witness: Witness
    ) -> NewToken:
        """Make a token.

        Args:
            name: whom or what it is for, as the audit log names them.
            role: what it lets them do.
            expires_at: from then on it lets nobody in; None: until it is revoked.
            witness: of what was made.

        Raises:
            SettingsError: that is no name.
        """
        check_token_name(name)
        token_id = self._ids.token()
        secret = f"{_PREFIX}_{token_id}_{secrets.token_hex(_SECRET_BYTES)}"
        record = AccessToken(token_id, name, role, self._store.now(), expires_at, None)

        def action(work: Work) -> None:
            values = {
                "id": token_id,
                "name": name,
                "role": role,
                "digest": _digest(secret),
                "created_at": record.created_at,
                "expires_at": expires_at,
            }
            work.connection.execute(insert(access_tokens), values)
            witness(work, f"{record.title}, {role}")

        self._store.change(action)
        return NewToken(record, secret)

    def list(self) -> list[AccessToken]:
        """Return every token, also those that were revoked, oldest first."""
        query = select(access_tokens).order_by(access_tokens.c.created_at, access_tokens.c.id)
        with self._store.reading() as connection:
            return [_record(row) for row in connection.execute(query)]

    def revoke(self, id_or_name: str, *, witness: Witness) -> AccessToken:
        """End a token: from the next request on it lets nobody in. One that was revoked stays as it is.

        Args:
            id_or_name: which; the token itself, or its beginning, stands for its id.
            witness: of its end, unless it was revoked before.

        Returns:
            The token as it was.

        Raises:
            SettingsError: there is none of that id or name, or several of that name let people in.
        """

        id_or_name = without_secret(id_or_name)

        def action(work: Work) -> AccessToken:
            query = select(access_tokens).where(
                or_(access_tokens.c.id == id_or_name, access_tokens.c.name == id_or_name)
            )
            record = _only(id_or_name, [_record(row) for row in work.connection.execute(query)])
            if record.revoked_at is None:
                where = access_tokens.c.id == record.token_id
                work.connection.execute(update(access_tokens).where(where).values(revoked_at=work.now))
                witness(work, record.title)
            return record

        return self._store.change(action)

    def recognise(self, secret: str) -> AccessToken | None:
        """Return whose token this is; None if it is nobody's, or lets nobody in any more."""
        return self.recognise_all([secret])[0]

    def recognise_all(self, shown: Sequence[str]) -> Sequence[AccessToken | None]:
        """Return of each what `recognise` returns."""
        with self._store.looking_up() as connection:
            return [self._recognise(connection, secret) for secret in shown]

    def _recognise(self, connection: Connection, secret: str) -> AccessToken | None:
        prefix, _, rest = secret.partition("_")
        token_id = rest.partition("_")[0]
        if prefix != _PREFIX or len(secret) > _MAX_CHARACTERS:
            return None
        row = connection.execute(_BY_ID, {"of_token": token_id}).one_or_none()
        # The id is no secret; that the rest is right is found out in the same time however much of it is.
        is_right = hmac.compare_digest(_digest(secret), row.digest if row is not None else _NOBODY)
        if row is None or not is_right:
            return None
        record = _record(row)
        return record if record.is_valid(self._store.now()) else None


def without_secret(id_or_name: str) -> str:
    """Return what names a token as it may be repeated and kept: of the token itself, its id.

    Who wants to end one that others have seen may have nothing else.
    """
    match = _SHOWN.match(id_or_name)
    return match[1] if match is not None else id_or_name


_BY_ID = select(access_tokens).where(access_tokens.c.id == bindparam("of_token"))


def _record(row: Row[Any]) -> AccessToken:
    return AccessToken(row.id, row.name, Role(row.role), row.created_at, row.expires_at, row.revoked_at)


def _only(id_or_name: str, found: list[AccessToken]) -> AccessToken:
    usable = [record for record in found if record.revoked_at is None] or found[-1:]
    if not usable:
        raise SettingsError(f"There is no token '{id_or_name}'.", fix="See what there is: ktrdr tokens list.")
    if len(usable) > 1:
        ids = ", ".join(record.token_id for record in usable)
        raise SettingsError(f"Several tokens are called '{id_or_name}': {ids}.", fix="Name one by its id.")
    return usable[0]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
