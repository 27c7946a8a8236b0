"""Which error has which status and code over HTTP: for who answers, and for who reads the answer."""

from http import HTTPStatus

from ktrdr.errors import (
    AccessRefusedError,
    BlobCorruptError,
    BlobError,
    BlobMissingError,
    BlobRefusedError,
    BusError,
    BusUnavailableError,
    CodecError,
    DatabaseUnavailableError,
    DataError,
    DataGoneError,
    DeadLetterNotFoundError,
    IdempotencyError,
    KtrdrError,
    ModelError,
    ModelNotFoundError,
    NotRetryableError,
    NowhereToTrainError,
    OperationNotFoundError,
    ResultsHeldUpError,
    SettingsError,
    StorageFullError,
    StoreError,
    StrategyError,
)

CODES: tuple[tuple[type[KtrdrError], HTTPStatus, str], ...] = (
    (StorageFullError, HTTPStatus.INSUFFICIENT_STORAGE, "storage-full"),
    (BlobMissingError, HTTPStatus.NOT_FOUND, "no-such-blob"),
    (BlobRefusedError, HTTPStatus.BAD_REQUEST, "refused"),
    (BlobCorruptError, HTTPStatus.UNPROCESSABLE_ENTITY, "wrong-content"),
    (BlobError, HTTPStatus.SERVICE_UNAVAILABLE, "store-unavailable"),
    (OperationNotFoundError, HTTPStatus.NOT_FOUND, "no-such-operation"),
    (ModelNotFoundError, HTTPStatus.NOT_FOUND, "no-such-model"),
    (ModelError, HTTPStatus.BAD_REQUEST, "invalid-model"),
    (StrategyError, HTTPStatus.BAD_REQUEST, "invalid-strategy"),
    (DataGoneError, HTTPStatus.GONE, "data-gone"),
    (DataError, HTTPStatus.UNPROCESSABLE_ENTITY, "unusable-data"),
    (CodecError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request-too-large"),
    (IdempotencyError, HTTPStatus.CONFLICT, "idempotency-key-taken"),
    (NotRetryableError, HTTPStatus.CONFLICT, "not-retryable"),
    (NowhereToTrainError, HTTPStatus.CONFLICT, "nowhere-to-train"),
    (SettingsError, HTTPStatus.BAD_REQUEST, "invalid-request"),
    (DeadLetterNotFoundError, HTTPStatus.NOT_FOUND, "no-such-dead-letter"),
    (BusUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE, "broker-unavailable"),
    # Asking again would not help: somebody has to mend the broker, or its permissions.
    (AccessRefusedError, HTTPStatus.INTERNAL_SERVER_ERROR, "broker-refuses"),
    (BusError, HTTPStatus.INTERNAL_SERVER_ERROR, "broker-failed"),
    (DatabaseUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE, "database-unavailable"),
    (ResultsHeldUpError, HTTPStatus.SERVICE_UNAVAILABLE, "results-held-up"),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE, "stopping"),
    (KtrdrError, HTTPStatus.INTERNAL_SERVER_ERROR, "failed"),
)
"""The first that fits an error counts; no code stands twice."""
