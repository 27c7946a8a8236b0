"""Waiting for what other processes do."""

import time
from collections.abc import Callable

import pytest

_POLL_S = 0.01
_SHARE = 0.2
"""Of a core, no more: who looks more often takes from what is waited for."""


def eventually(
    condition: Callable[[], object], *, within_s: float, otherwise: Callable[[], str] | str
) -> None:
    """Wait for something to come true; fail the test with a description if it does not in time."""
    end = time.monotonic() + within_s
    while True:
        asked = time.monotonic()
        if condition():
            return
        if time.monotonic() > end:
            told = otherwise if isinstance(otherwise, str) else otherwise()
            pytest.fail(f"not within {within_s:g} s: {told}", pytrace=False)
        time.sleep(max(_POLL_S, (time.monotonic() - asked) / _SHARE))
