"""The blob store that the settings name."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

import structlog

from ktrdr.addresses import is_loopback
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.blobs.store import BlobInventory, BlobStore
from ktrdr.errors import SettingsError
from ktrdr.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKETS = frozenset({"s3", "gs", "az"})
_FORMS = "a directory, s3://bucket/prefix, gs://bucket/prefix, az://account/container, or http(s)://host:port"

# Of one request. A stalled connection is noticed by the pause, a slow one is not hurried.
_CONNECT, _PAUSE, _REQUEST = timedelta(seconds=5), timedelta(seconds=30), timedelta(hours=1)
# Whoever calls tries again, for as long as it takes; meanwhile it should know that something is wrong.
_RETRIES, _RETRY_FOR = 4, timedelta(seconds=15)

_log = structlog.get_logger()


def open_blob_store(settings: Settings) -> BlobStore:
    """Return the store; nothing is connected to before it is used.

    Args:
        settings: ``blob_store`` says which; ``blob_token`` is for a backend elsewhere. The endpoint and the
            credentials of a bucket are in the environment, in the variables of its own command line.

    Raises:
        SettingsError: ``KTRDR_BLOB_STORE`` names none, or one that must not be used like this.
    """
    if (kept := _kept(settings)) is not None:
        return kept
    assert settings.blob_store is not None
    return _backend(settings, settings.blob_store, _split(settings.blob_store))


def open_blob_inventory(settings: Settings) -> BlobInventory:
    """Return the store as the backend has it, who keeps house in it.

    Raises:
        SettingsError: as `open_blob_store`; or the setting is one for agents, the address of a backend.
    """
    if (kept := _kept(settings)) is not None:
        return kept
    raise SettingsError(
        f"KTRDR_BLOB_STORE is {settings.blob_store}, a backend's address, and this is the backend itself.",
        fix="Here, leave it out or set it to a directory or a bucket; the address is for agents.",
    )


def _kept(settings: Settings) -> BlobInventory | None:
    """Return the store, unless it is that of a backend elsewhere."""
    given = settings.blob_store
    if given is None:
        return DirectoryBlobStore(settings.blobs_dir)
    match = _SCHEME.match(given)
    if match is None:
        return DirectoryBlobStore(Path(given).expanduser())
    scheme = match[1].lower()
    if scheme == "file":
        return _directory(given, _split(given))
    if scheme in _BUCKETS:
        return _bucket(given, _split(given))
    if scheme in ("http", "https"):
        return None
    raise _wrong(given, f"'{scheme}' is no kind of store that there is")


def _directory(given: str, url: SplitResult) -> BlobInventory:
    if url.netloc not in ("", "localhost") or not url.path:
        raise _wrong(given, "a file URL has three slashes and an absolute path")
    return DirectoryBlobStore(Path(unquote(url.path)))


def _bucket(given: str, url: SplitResult) -> BlobInventory:
    # Here, and below, because most commands need no other store than a directory.
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    from ktrdr.blobs.object_store import ObjectBlobStore

    if not url.netloc:
        raise _wrong(given, "the name of the bucket is missing")
    client: ClientConfig = {
        "connect_timeout": _CONNECT,
        "read_timeout": _PAUSE,
        "timeout": _REQUEST,
        "allow_http": _may_be_plain(),
    }
    retry: RetryConfig = {"max_retries": _RETRIES, "retry_timeout": _RETRY_FOR}
    try:
        objects = from_url(given, client_options=client, retry_config=retry)
    except (BaseError, ValueError) as error:
        raise _wrong(given, str(error).partition("\n")[0]) from error
    return ObjectBlobStore(objects, given)


def _may_be_plain() -> bool:
    """Return whether S3 may be spoken to without TLS: on this machine, or where that is said explicitly.

    Raises:
        SettingsError: the endpoint is elsewhere, and plain.
    """
    allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        endpoint = os.environ.get(name, "")
        if endpoint.lower().startswith("http://"):
            if allowed or is_loopback(urlsplit(endpoint).hostname):
                return True
            raise SettingsError(
                f"{name} is {endpoint}: models would travel unprotected.",
                fix="Use https, or allow it on a network that you trust: AWS_ALLOW_HTTP=true.",
            )
    return allowed


def _backend(settings: Settings, given: str, url: SplitResult) -> BlobStore:
    from ktrdr.blobs.http import HttpBlobStore

    if url.username is not None or url.query or url.fragment:
        raise _wrong(
            given.replace(url.netloc, url.netloc.rpartition("@")[2]), "an address is all that it may be"
        )
    if not url.hostname:
        raise _wrong(given, "the host is missing")
    if settings.blob_token is None and not is_loopback(url.hostname):
        raise SettingsError(
            f"The backend at {given} asks for a token, and there is none.",
            fix="Set KTRDR_BLOB_TOKEN to the same as at the backend.",
        )
    if url.scheme.lower() == "http" and not is_loopback(url.hostname):
        _log.warning("models and the token travel unprotected: use https", blob_store=given)
    return HttpBlobStore(given, settings.blob_token)


def _split(given: str) -> SplitResult:
    try:
        url = urlsplit(given)
        _ = url.port  # is checked when it is asked for
    except ValueError as error:
        raise _wrong(given, str(error)) from error
    return url


def _wrong(given: str, why: str) -> SettingsError:
    return SettingsError(f"KTRDR_BLOB_STORE cannot be '{given}': {why}.", fix=f"Set it to {_FORMS}.")
