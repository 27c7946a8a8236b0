"""The operations database on a server of PostgreSQL: connections, and what their errors mean."""

import select

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from ktrdr.backend.conflicts import ConflictError
from ktrdr.errors import DatabaseUnavailableError, StorageFullError, StoreError

_MESSAGE_CHARACTERS = 300
# Classes of SQLSTATE: data exceptions, and syntax, names and rights.
_OUR_MISTAKES = ("22", "42")
# Connections that end, and a server that goes down or comes up.
_AWAY = ("08", "57P")
# A machine that vanishes without a word must not hold connections, or locks on the server, for hours.
_OPTIONS = {
    "connect_timeout": "10",
    "application_name": "ktrdr",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_ON_THE_SERVER = (
    "SELECT set_config('lock_timeout', %s, false), set_config('timezone', 'UTC', false),"
    " set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),"
    " set_config('tcp_keepalives_count', '3', false)"
)


def postgresql_engine(url: URL, *, busy_timeout_s: float) -> Engine:
    """Return an engine; a connection that a restart of the server has ended is replaced when it is needed.

    Args:
        url: of a database on a server; what it says in its query goes before the defaults here.
        busy_timeout_s: how long to wait for another transaction.
    """
    # The driver is an extra: pip install 'ktrdr[postgres]'.
    from ktrdr.backend.postgresql_text import TextDumper

    def set_up(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        connection.adapters.register_dumper(str, TextDumper)
        cursor = connection.cursor()
        cursor.execute(_ON_THE_SERVER, (f"{busy_timeout_s * 1000:.0f}ms",))
        cursor.close()
        connection.commit()

    options = {name: value for name, value in _OPTIONS.items() if name not in url.query}
    engine = create_engine(url, connect_args=options)
    event.listen(engine, "connect", set_up)
    event.listen(engine, "checkout", _replace_if_ended)
    return engine


def is_locked(cause: BaseException | None) -> bool:
    """Return whether an error of the driver says that another transaction holds what is needed."""
    return getattr(cause, "sqlstate", None) == "55P03"


def postgresql_error(cause: BaseException | None, name: str, busy_timeout_s: float) -> Exception:
    """Return what an error of the driver means.

    Args:
        cause: the driver's error.
        name: of the database, for people.
        busy_timeout_s: as for `postgresql_engine`.
    """
    code = getattr(cause, "sqlstate", None) or ""
    said = _first_line(cause)
    if code in ("40001", "40P01"):
        return ConflictError(said)
    if code == "53100":
        return StorageFullError(
            f"The disk of the server of the database {name} is full.",
            fix="Free some space there; the work goes on then.",
        )
    if is_locked(cause):
        return DatabaseUnavailableError(
            f"Rows of the database {name} have been locked by another transaction for {busy_timeout_s:g} s.",
            fix="Find out who holds them (SELECT * FROM pg_stat_activity), or try again.",
        )
    if code == "42501":
        return DatabaseUnavailableError(
            f"The user of the database {name} may not do that: {said}.",
            fix="Make it the owner of the database (ALTER DATABASE … OWNER TO …), or let the owner upgrade "
            "the schema: ktrdr db upgrade.",
        )
    if code == "25006":
        return DatabaseUnavailableError(
            f"The database {name} cannot be written: {said}.",
            fix="Name the primary server in KTRDR_DATABASE_URL, not a standby.",
        )
    if code.startswith(_OUR_MISTAKES):
        # Trying again would not help.
        return StoreError(
            f"The database {name} does not take what it is asked: {said}.",
            fix="Compare its schema: ktrdr db status. If that is up to date, this is a defect of ktrdr.",
        )
    if code and not code.startswith(_AWAY):
        return DatabaseUnavailableError(
            f"The database {name} reports: {said}.", fix="Look into the log of the server, and try again."
        )
    return _not_connected(said, name)


def _replace_if_ended(
    connection: DBAPIConnection, _record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
) -> None:
    """Have the pool make a connection anew that ended while nobody used it.

    A server says nothing unasked but that it ends the connection, or that it was reloaded. To look whether it
    has said anything takes microseconds; to ask it whether it is there, a round trip for each transaction.
    """
    if connection.closed:
        raise DisconnectionError
    said = select.poll()
    said.register(connection.fileno(), select.POLLIN)
    if said.poll(0):
        raise DisconnectionError


def _not_connected(said: str, name: str) -> DatabaseUnavailableError:
    # Why a server refuses a connection, it tells in words only.
    lowered = said.lower()
    if "authentication failed" in lowered or "no password" in lowered or "pg_hba.conf" in lowered:
        return DatabaseUnavailableError(
            f"The server of the database {name} refuses this user or its password.",
            fix="Correct KTRDR_DATABASE_URL, or let the user in (pg_hba.conf).",
        )
    if "role" in lowered and "does not exist" in lowered:
        return DatabaseUnavailableError(
            f"The server of the database {name} does not know this user.",
            fix="Make it: createuser --pwprompt …; or correct KTRDR_DATABASE_URL.",
        )
    if "database" in lowered and "does not exist" in lowered:
        return DatabaseUnavailableError(
            f"There is no database {name} on that server.",
            fix="Make it: createdb …; then ktrdr db upgrade makes the tables. Or correct KTRDR_DATABASE_URL.",
        )
    return DatabaseUnavailableError(
        f"The server of the database {name} does not answer: {said}.",
        fix="Start it, or correct host and port in KTRDR_DATABASE_URL; the work goes on when it answers.",
    )


def _first_line(cause: BaseException | None) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[0] if lines else "no reason was given").rstrip(".")[:_MESSAGE_CHARACTERS]
