"""What aiormq raises, as errors of ours."""

import asyncio
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from ktrdr.bus.rabbitmq_address import Address
from ktrdr.errors import AccessRefusedError, BusError, BusUnavailableError, QueueTakenError

# ChannelInvalidStateError is a RuntimeError, and neither of the others.
LIBRARY_ERRORS = (AMQPError, OSError, ChannelInvalidStateError)
"""What a call into aiormq may raise beside time-outs, cancellation and defects."""

UNREACHABLE_FIX = "See that the broker runs and can be reached from here; it is tried again by itself."

_DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>\w+) '(?P<name>[^']+)' in vhost .*?: "
    r"received (?P<wanted>.+) but current is (?P<current>.+)"
)
_VALUE = re.compile(r"(?:the value )?'(?P<value>.*?)'(?: of type '\w+')?$")
_ARGUMENTS = {
    "type": "type",
    "durable": "durability",
    "exclusive": "exclusiveness",
    "auto_delete": "automatic deletion",
    "x-queue-type": "type",
    "x-max-length": "maximum length",
    "x-max-length-bytes": "maximum length in bytes",
    "x-stream-max-segment-size-bytes": "segment size",
    "x-overflow": "behaviour when full",
    "x-delivery-limit": "delivery limit",
    "x-dead-letter-exchange": "dead-letter exchange",
    "x-dead-letter-strategy": "dead-letter strategy",
}


@contextmanager
def typed_errors(doing: str) -> Iterator[None]:
    """Raise what aiormq raises in the block as a `BusError`.

    Args:
        doing: what is done, as in ``consuming from ktrdr.lane.any``.
    """
    try:
        yield
    except LIBRARY_ERRORS as error:
        raise bus_error(error, doing) from error
    except asyncio.CancelledError as error:
        # aiormq cancels what waits on a connection that is found dead; nobody has cancelled us then.
        if is_asked_to_stop():
            raise
        raise BusUnavailableError(f"The connection was lost while {doing}.", fix=UNREACHABLE_FIX) from error


def is_asked_to_stop() -> bool:
    """Whether someone has cancelled the current task, or its time is up."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def bus_error(error: Exception, doing: str) -> BusError:
    """Return the error that a failure of an established connection or channel means."""
    said = str(error)
    match error:
        case ChannelAccessRefused():
            return AccessRefusedError(
                f"The broker does not allow {doing}: {said}.",
                fix="Have an administrator give this user the permission: by the definitions that "
                "`ktrdr broker definitions` prints, or for this alone.",
            )
        case ChannelLockedResource():
            return QueueTakenError(f"The broker does not allow {doing}: another connection has it alone.")
        case ChannelNotFoundEntity():
            return BusError(
                f"Something is missing for {doing}: {said}.",
                fix="Declare the topology first: ktrdr broker setup",
            )
        case ChannelPreconditionFailed():
            return difference(said) or BusError(f"The broker refuses {doing}: {said}.")
        case ChannelClosed():
            return BusError(f"The broker ended {doing}: {said}.")
        case ChannelInvalidStateError():
            return BusUnavailableError(f"The channel was lost before {doing}.", fix=UNREACHABLE_FIX)
        case _:
            return BusUnavailableError(f"The connection was lost while {doing}: {said}.", fix=UNREACHABLE_FIX)


def difference(said: str) -> BusError | None:
    """Return what is declared otherwise, in words, if that is what the broker says."""
    found = _DIFFERENCE.search(said)
    if found is None:
        return None
    kind, name, argument = found["kind"], found["name"], found["argument"]
    what = _ARGUMENTS.get(argument, f"'{argument}'")
    return BusError(
        f"The {kind} '{name}' exists with another {what}: {_value(found['current'])}, not "
        f"{_value(found['wanted'])}.",
        fix=f"Delete the {kind}, once what it holds is no longer needed, and run: ktrdr broker setup",
    )


def _value(said: str) -> str:
    found = _VALUE.match(said)
    return found["value"] if found else said


def connect_error(error: Exception, address: Address) -> BusError:
    """Return the error that a failure to connect means."""
    match error:
        case ProbableAuthenticationError() | AuthenticationError():
            return AccessRefusedError(
                f"The broker at {address.host}:{address.port} does not let '{address.user}' in.",
                fix="Correct user and password in the broker's URL.",
            )
        case InvalidFrameError() if "Connection.OpenOk" in str(error):
            # aiormq keeps the broker's own words to itself here.
            return AccessRefusedError(
                f"The broker at {address.host}:{address.port} refuses '{address.user}' the virtual host "
                f"'{address.vhost}'.",
                fix="See that the virtual host is there, that the user has permissions in it, and that the "
                "number of connections is not limited.",
            )
        case _:
            cause = error if isinstance(error, ssl.SSLError) else error.__cause__
            if isinstance(cause, ssl.SSLError):
                return BusUnavailableError(
                    f"There is no trusted connection to {address}: {cause}.",
                    fix="Name the authority that signed the broker's certificate: ?cafile=… in its URL.",
                )
            return BusUnavailableError(f"There is no connection to {address}: {error}.", fix=UNREACHABLE_FIX)
