"""Fixtures that every test may use."""

import pytest

from tests.small_disk import run_as_root_of_a_namespace, small_disk

__all__ = ["small_disk"]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    return True if run_as_root_of_a_namespace(pyfuncitem) else None
