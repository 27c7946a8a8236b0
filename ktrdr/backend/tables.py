"""The tables of the operations database, in portable SQL."""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment in UTC, also where the database keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC; refuse a moment that could be any."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_ID = String(64)
_NAME = String(128)
_SHA256 = String(64)
# SQLite numbers rows by itself only when the type of the key is called INTEGER.
_SERIAL = BigInteger().with_variant(Integer(), "sqlite")

operations = Table(
    "operations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("state", String(16), nullable=False),
    # Grows with every change, so that of two readings the later is known.
    Column("revision", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("strategy", _NAME, nullable=False),
    Column("symbol", _NAME, nullable=False),
    Column("timeframe", String(16), nullable=False),
    Column("seed", BigInteger, nullable=False),
    # Equal in a request that is repeated; none if it is never to be resumed.
    Column("fingerprint", _NAME),
    # The TrainingRequested of its first attempt, as JSON.
    Column("request", Text, nullable=False),
    # The instance that a client submitted it to.
    Column("submitted_by", _ID, nullable=False),
    # The instance on whose bus it is; none while nobody carries it.
    Column("owner", _ID),
    # Who holds the current attempt.
    Column("claim_id", _NAME),
    Column("agent_id", _NAME),
    Column("device", Text),
    Column("lease_s", Float),
    # What was asked for, or the default; none where nothing was decided: then it stays with its owner.
    Column("mode", String(16)),
    # Where it runs, and why.
    Column("place", String(16)),
    Column("place_reason", Text),
    # What a client calls the request, so that asking twice makes one operation; and what it asked for.
    Column("idempotency_key", String(255)),
    Column("wish_sha256", _SHA256),
    # What else the client was told then, as JSON; none if it was nothing, or there is no such key.
    Column("preparation", Text),
    # The operation that it repeats; no foreign key, since that one may be forgotten first.
    Column("retry_of", _ID),
    # The BlobRef of the newest checkpoint of any attempt, as JSON.
    Column("checkpoint", Text),
    Column("cause", String(32)),
    Column("message", Text),
    Column("cancel_reason", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    # Lists are by time, of all, of a state, or of a strategy.
    Index(None, "created_at", "id"),
    Index(None, "state", "created_at", "id"),
    Index(None, "strategy", "created_at", "id"),
    Index(None, "fingerprint"),
    Index(None, "idempotency_key", unique=True),
)

attempts = Table(
    "attempts",
    metadata,
    Column("operation_id", _ID, ForeignKey("operations.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("claim_id", _NAME, nullable=False),
    Column("agent_id", _NAME, nullable=False),
    Column("device", Text, nullable=False),
    Column("accepted_at", UtcDateTime, nullable=False),
    # An attempt whose lease has expired may still be running somewhere: it has ended when its claim says so.
    Column("ended_at", UtcDateTime),
    Column("outcome", Text),
)

operation_history = Table(
    "operation_history",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("operation_id", _ID, ForeignKey("operations.id"), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("agent_id", _NAME),
    Column("message", Text, nullable=False),
    Index(None, "operation_id", "id"),
)

operation_progress = Table(
    "operation_progress",
    metadata,
    Column("operation_id", _ID, ForeignKey("operations.id"), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    # The newest TrainingProgress of the attempt, as JSON.
    Column("event", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

# The curve of what has no model yet, or never will: a model has its own.
operation_epochs = Table(
    "operation_epochs",
    metadata,
    Column("operation_id", _ID, ForeignKey("operations.id"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    # Name → value, as JSON.
    Column("metrics", Text, nullable=False),
)

# The end of what its agents have logged about each operation.
operation_log = Table(
    "operation_log",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("operation_id", _ID, ForeignKey("operations.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("claim_id", _NAME, nullable=False),
    Column("agent_id", _NAME, nullable=False),
    # Among all lines of the claim, and how many of those are missing before it.
    Column("number", Integer, nullable=False),
    Column("left_out", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("level", String(16), nullable=False),
    Column("source", String(16), nullable=False),
    Column("event", Text, nullable=False),
    # As JSON.
    Column("fields", Text, nullable=False),
    # Several backends may hear the same.
    UniqueConstraint("operation_id", "claim_id", "number"),
    Index(None, "operation_id", "id"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("event_id", _ID, nullable=False),
    # No foreign key: also those who speak of an operation that is not known here are answered.
    Column("operation_id", _ID, nullable=False),
    Column("owner", _ID, nullable=False),
    Column("type", _NAME, nullable=False),
    Column("payload", Text, nullable=False),
    # A pause, not a time: a wall clock that jumps must not hold back a retry.
    Column("delay_s", Float, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("last_error", Text),
    # The instance that publishes it, unless it has died since; none while any that carries the owner may.
    Column("claimed_by", _ID),
    Column("sent_at", UtcDateTime),
    UniqueConstraint("event_id"),
    Index(None, "owner", "sent_at", "id"),
    Index(None, "operation_id"),
)

inbox = Table(
    "inbox",
    metadata,
    Column("event_id", _ID, primary_key=True),
    Column("operation_id", _ID, nullable=False),
    Column("type", _NAME, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("operation_id", _ID, ForeignKey("operations.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("strategy", _NAME, nullable=False),
    Column("symbol", _NAME, nullable=False),
    Column("timeframe", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    # Relative to the models directory.
    Column("path", Text, nullable=False),
    Column("bundle_sha256", _SHA256, nullable=False),
    # name → {sha256, size} of every file in the directory, as JSON.
    Column("files", Text, nullable=False),
    # The ModelManifest, as JSON.
    Column("manifest", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("operation_id"),
    UniqueConstraint("strategy", "symbol", "timeframe", "version"),
)

agents = Table(
    "agents",
    metadata,
    Column("id", _NAME, primary_key=True),
    Column("host", _NAME, nullable=False),
    Column("state", String(16), nullable=False),
    Column("protocol_version", Integer, nullable=False),
    Column("device", Text, nullable=False),
    Column("device_name", Text, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    # As JSON.
    Column("lanes", Text, nullable=False),
    Column("slots_total", Integer, nullable=False),
    Column("slots_busy", Integer, nullable=False),
    # The RunningAttempts, as JSON.
    Column("running", Text, nullable=False),
    # What the backend that heard it takes for too long a silence.
    Column("silent_after_s", Float, nullable=False),
    Column("first_seen", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("last_seen", UtcDateTime, nullable=False),
    # By its own clock, which tells of two things that it said which was the later, whoever heard them.
    Column("said_at", UtcDateTime),
    Column("stopped_at", UtcDateTime),
)

instances = Table(
    "instances",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("host", _NAME, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("program_version", String(32), nullable=False),
    # Whose operations it carries: its own, or together with others those of the broker.
    Column("owner", _ID),
    # Whether it could when it last looked.
    Column("reaches_bus", Boolean),
    Column("started_at", UtcDateTime, nullable=False),
    Column("stopped_at", UtcDateTime),
)

configuration = Table(
    "configuration",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("value", Text, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

# Who may use the HTTP API. A token is kept as its hash only.
access_tokens = Table(
    "access_tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", _NAME, nullable=False),
    Column("role", String(16), nullable=False),
    Column("digest", _SHA256, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
)

# Every write by way of the HTTP API, and every change of the tokens.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("who", _NAME, nullable=False),
    Column("action", _NAME, nullable=False),
    # What was written to: an operation, a blob, a token.
    Column("subject", Text, nullable=False),
    # Of the HTTP answer; none for what came over no HTTP.
    Column("status", Integer),
    Column("outcome", Text, nullable=False),
)
