"""Waiting for what other processes do."""

import time
from collections.abc import Callable

import pytest

_POLL_S = 0.01


def eventually(
    condition: Callable[[], object], *, within_s: float, otherwise: Callable[[], str] | str
) -> None:
    """Wait for something to come true; fail the test with a description if it does not in time."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            told = otherwise if isinstance(otherwise, str) else otherwise()
            pytest.fail(f"not within {within_s:g} s: {told}", pytrace=False)
        time.sleep(_POLL_S)
