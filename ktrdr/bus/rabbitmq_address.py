"""Where a RabbitMQ is, and as whom to connect, from its URL."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from ktrdr.errors import SettingsError

_TLS_FILES = ("cafile", "certfile", "keyfile")
_FORM = "amqp://user:password@host:5672/vhost, or amqps://user:password@host/vhost?cafile=authority.pem"


@dataclass(frozen=True, slots=True)
class Address:
    """One broker, as one user."""

    url: str = field(repr=False)
    """Without parameters; it holds the password."""
    host: str
    port: int
    user: str
    vhost: str
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}{'' if self.vhost == '/' else f'/{self.vhost}'}"


def parse_addresses(urls: str) -> tuple[Address, ...]:
    """Read one URL, or several with spaces between them: the nodes of one cluster.

    ``amqps://`` checks the broker's certificate and its host name, against the authority in ``?cafile=`` or
    else those that the system trusts; ``&certfile=…&keyfile=…`` is what this client shows of itself. The
    files are read now.

    Raises:
        SettingsError: no broker can be reached so.
    """
    addresses = tuple(_address(url) for url in urls.split())
    if not addresses:
        raise SettingsError("The URL of the broker is empty.", fix=f"Give one as in {_FORM}.")
    if len({(address.user, address.vhost) for address in addresses}) > 1:
        raise SettingsError("The URLs of the broker name several users or virtual hosts.", fix="Give one.")
    return addresses


def _address(url: str) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(str(error)) from error
    if parts.scheme not in ("amqp", "amqps"):
        raise _refused("it does not begin with amqp:// or amqps://")
    if not parts.hostname:
        raise _refused("it names no host")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(given.keys() - set(_TLS_FILES)):
        raise _refused(f"it has the parameter '{unknown[0]}', which is none of {', '.join(_TLS_FILES)}")
    if given and parts.scheme == "amqp":
        raise _refused(f"'{next(iter(given))}' is for amqps://")
    return Address(
        url=f"{parts.scheme}://{parts.netloc}{parts.path}",
        host=parts.hostname,
        port=port or (5671 if parts.scheme == "amqps" else 5672),
        user=unquote(parts.username) if parts.username else "guest",
        vhost=unquote(parts.path[1:]) or "/",
        tls=_tls(**given) if parts.scheme == "amqps" else None,
    )


def _tls(
    cafile: str | None = None, certfile: str | None = None, keyfile: str | None = None
) -> ssl.SSLContext:
    for path in filter(None, (cafile, certfile, keyfile)):
        if not Path(path).is_file():
            raise _refused(f"there is no file '{path}'")
    if keyfile and not certfile:
        raise _refused("it has a keyfile without a certfile")
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=cafile)
        if certfile:
            context.load_cert_chain(certfile, keyfile)
    except (ssl.SSLError, OSError) as error:
        raise _refused(f"a certificate or key in it cannot be used ({error})") from error
    return context


def _refused(why: str) -> SettingsError:
    return SettingsError(f"The URL of the broker cannot be used: {why}.", fix=f"Give one as in {_FORM}.")
