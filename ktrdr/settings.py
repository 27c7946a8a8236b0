"""Every setting, once: environment variables `KTRDR_…` and their defaults."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from ktrdr.errors import SettingsError

MIB = 1024 * 1024

_MAX_PORT = 65535
_HOUR_IN_DAYS = 1 / 24

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}$"

Device = Literal["auto", "cpu", "cuda", "mps"]


class Settings(BaseSettings):
    """What an installation may choose; each field is read from ``KTRDR_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="KTRDR_", frozen=True, extra="ignore")

    home: Path = Field(default=Path(".ktrdr"), description="State: database, blobs, agents' spools.")
    data_dir: Path = Field(default=Path("data"), description="Bars as SYMBOL_TIMEFRAME.csv or .parquet.")
    models_dir: Path = Field(default=Path("models"), description="Where model versions are written.")
    strategies_dir: Path = Field(default=Path("strategies"), description="Strategy files by name.")
    database_url: SecretStr | None = Field(
        default=None,
        description="postgresql://user:password@host:5432/ktrdr or sqlite:////path/to/ktrdr.db; default: "
        "SQLite in the home directory.",
    )
    broker_url: SecretStr | None = Field(
        default=None, description="amqp(s)://user:password@host/vhost; the default is in-process."
    )
    broker_prefix: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = Field(
        default="ktrdr", description="Names of exchanges and queues begin with it: one for each installation."
    )
    broker_heartbeat_s: Annotated[int, Field(ge=1, le=600)] = Field(
        default=15, description="A connection that is silent for about twice as long counts as lost."
    )
    management_url: SecretStr | None = Field(
        default=None,
        description="http(s)://user:password@host:15672 of the broker's management API, by which "
        "`ktrdr broker check` sees more.",
    )
    blob_store: str | None = Field(
        default=None,
        description="Where datasets and large models are: a directory, s3://bucket/prefix, or the http(s) "
        "address of the backend; the default is in the home directory.",
    )
    blob_token: SecretStr | None = Field(
        default=None, description="What agents show to the backend's blob endpoint, and what it asks for."
    )
    server: str | None = Field(
        default=None,
        description="https://host:8420 of a `ktrdr serve`: commands about operations, models, strategies and "
        "agents are about those there; default: about those of this machine.",
    )
    token: SecretStr | None = Field(
        default=None, description="What such commands show to the server, as `ktrdr tokens create` prints it."
    )
    listen: str = Field(
        default="127.0.0.1:8420", description="Address of the backend's HTTP endpoint, as HOST:PORT."
    )
    insecure: bool = Field(
        default=False,
        description="Whether the HTTP endpoint does without tokens; it serves this machine alone then.",
    )
    api_rate_per_s: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=100.0,
        description="Requests a second that one token may make, twice as many at once; 0: any number.",
    )
    listen_certificate: Path | None = Field(
        default=None, description="PEM file with the endpoint's certificate and its chain: makes it HTTPS."
    )
    listen_key: Path | None = Field(default=None, description="PEM file with the key of that certificate.")

    agent_id: Annotated[str, Field(pattern=_NAME)] | None = Field(
        default=None, description="Name of a host agent, the same at each start; default: from the host name."
    )
    lanes: Annotated[tuple[Annotated[str, Field(pattern=_NAME)], ...], NoDecode] = Field(
        default=("any",),
        min_length=1,
        description="Lanes that an agent serves, the preferred one first: any,gpu.",
    )
    drain_s: Annotated[float, Field(ge=0)] = Field(
        default=30.0, description="On SIGTERM an agent gives running attempts so long to end."
    )

    device: Device = Field(default="auto", description="Where to train: the best there is, or a named one.")
    threads: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1, description="Torch threads of a runner; small networks are fastest with one."
    )
    slots: Annotated[int, Field(ge=1, le=64)] = Field(default=1, description="Trainings at a time.")

    default_mode: Literal["auto", "local", "host"] | None = Field(
        default=None,
        description="Where to train what names no mode, until `ktrdr config set` says otherwise; default: "
        "host if a broker is named, else local.",
    )
    max_attempts: Annotated[int, Field(ge=1, le=20)] = Field(default=3, description="Attempts per operation.")
    retry_backoff_s: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="Pause before the second attempt; it doubles with each further one."
    )
    lease_s: Annotated[float, Field(gt=0)] = Field(
        default=30.0, description="An attempt that is not heard of for so long is given to another claim."
    )
    accept_deadline_s: Annotated[float, Field(gt=0)] = Field(
        default=300.0, description="A request that nobody accepts for so long is dispatched again."
    )
    presence_interval_s: Annotated[float, Field(gt=0)] = Field(
        default=5.0,
        description="Seconds between two presence events of an agent; thrice as long, within half a lease, "
        "while it holds nothing.",
    )
    cancel_grace_s: Annotated[float, Field(ge=0)] = Field(
        default=3.0, description="A runner that ignores a cancellation for so long is killed."
    )
    publish_timeout_s: Annotated[float, Field(gt=0)] = Field(default=5.0, description="Limit of one publish.")
    inline_limit_bytes: Annotated[int, Field(ge=0, le=8 * MIB)] = Field(
        default=MIB, description="A compressed model over this size goes by reference; 8 MiB at most."
    )
    max_model_bytes: Annotated[int, Field(gt=0)] = Field(
        default=2048 * MIB, description="A model that would be larger, uncompressed, is refused."
    )
    keep_operations_days: Annotated[float, Field(ge=1)] = Field(
        default=90.0,
        description="So long after its end, an operation without a model is forgotten; inf: never.",
    )
    keep_logs_days: Annotated[float, Field(ge=1)] = Field(
        default=30.0,
        description="So long after its end, an operation's log is forgotten; and log files; inf: never.",
    )
    keep_audit_days: Annotated[float, Field(ge=1)] = Field(
        default=365.0, description="The audit log goes back so far; inf: without end."
    )
    keep_blobs_days: Annotated[float, Field(ge=_HOUR_IN_DAYS)] = Field(
        default=7.0,
        description="Blobs that nothing needs stay so long after they were put; inf: for ever.",
    )
    keep_cache_days: Annotated[float, Field(ge=_HOUR_IN_DAYS)] = Field(
        default=30.0, description="An agent keeps data that it does not use so long; inf: for ever."
    )
    keep_set_aside_days: Annotated[float, Field(ge=_HOUR_IN_DAYS)] = Field(
        default=90.0,
        description="An agent keeps so long, for a person to look at, what it could not read; inf: for ever.",
    )
    cache_limit_bytes: Annotated[int, Field(ge=0)] = Field(
        default=1024 * MIB,
        description="Of data that an agent keeps; what was not used for longest goes first.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line to show."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="Console on a terminal, JSON otherwise, or one of them always."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what is passed and the environment, and no file: to ask for one takes half of the time."""
        return init_settings, env_settings

    @field_validator("lanes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.replace(",", " ").split())) if isinstance(value, str) else value

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        # Who listens takes a port that is too large for another one.
        host, _, port = value.rpartition(":")
        if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _MAX_PORT:
            raise ValueError(f"'{value}' is not HOST:PORT, with a port of at most {_MAX_PORT}")
        return value

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in use; it may hold a password."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.home / 'ktrdr.db').absolute()}"

    @property
    def listen_address(self) -> tuple[str, int]:
        """Host and port of ``listen``; an IPv6 address without its brackets."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def max_blob_bytes(self) -> int:
        """The largest blob: a model that does not compress at all grows a little by compression."""
        return self.max_model_bytes + self.max_model_bytes // 64 + 1024

    @property
    def cache_kept(self) -> timedelta | None:
        """How long an agent keeps data that it does not use; None: for ever."""
        return span_of_days(self.keep_cache_days)

    @property
    def set_aside_kept(self) -> timedelta | None:
        """How long an agent keeps what it could not read; None: for ever."""
        return span_of_days(self.keep_set_aside_days)

    @property
    def blobs_dir(self) -> Path:
        """Directory of the content-addressed store."""
        return self.home / "blobs"

    @property
    def agents_dir(self) -> Path:
        """Parent of each agent's own directory: claim journal, spool, cache."""
        return self.home / "agents"

    @property
    def logs_dir(self) -> Path:
        """Logs of processes that nobody watches."""
        return self.home / "logs"

    @property
    def instances_dir(self) -> Path:
        """Lock files that tell which backend processes are alive."""
        return self.home / "instances"


def span_of_days(days: float) -> timedelta | None:
    """Return so many days; None: for ever, which a thousand years are too."""
    return timedelta(days=days) if days < 365_000 else None


SECRETS = ("broker_url", "management_url", "blob_token", "database_url", "token")
"""Settings that may also be in a file, which the variable with ``_FILE`` names: ``KTRDR_BROKER_URL_FILE``."""


def load_settings(**overrides: object) -> Settings:
    """Return the settings from the environment, with overrides that are not None on top.

    Raises:
        SettingsError: names the variable and what it may be, or the file that cannot be read.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in SECRETS:
        if name not in given and (secret := _from_file(f"KTRDR_{name.upper()}")) is not None:
            given[name] = secret
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else "?"
            variable = f"KTRDR_{name.upper()}"
            shown = variable if variable in os.environ and name not in given else name
            lines.append(f"{shown}: {problem['msg']}")
        raise SettingsError("; ".join(lines), fix="Correct the setting and try again.") from error


def _from_file(variable: str) -> str | None:
    """Return the content of the file that ``<variable>_FILE`` names, unless the variable itself is set."""
    file = os.environ.get(f"{variable}_FILE")
    if not file or variable in os.environ:
        return None
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(
            f"{variable}_FILE: {file} cannot be read: {reason}.",
            fix=f"Correct {variable}_FILE, let this user read the file, or unset the variable.",
        ) from error
