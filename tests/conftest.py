"""Fixtures that every test may use."""

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.broker.fixtures import any_private_node, broker, cluster, private_node, running_cluster, start_node
from tests.postgres.fixtures import (
    database_url,
    databases,
    empty_database_url,
    empty_postgres_url,
    postgres_url,
    usual_database_url,
)
from tests.small_disk import run_as_root_of_a_namespace, small_disk

__all__ = [
    "any_private_node",
    "broker",
    "cluster",
    "database_url",
    "databases",
    "empty_database_url",
    "empty_postgres_url",
    "postgres_url",
    "private_node",
    "running_cluster",
    "small_disk",
    "start_node",
    "usual_database_url",
]

# The same examples on every run, so that a change is what makes a test fail; KTRDR_TEST_RANDOM=1 explores.
# None is too slow for a busy machine: what an example may cost is no matter of a test.
UNHURRIED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, max_examples=50, **UNHURRIED)
settings.register_profile("exploring", **UNHURRIED)
settings.load_profile("exploring" if os.environ.get("KTRDR_TEST_RANDOM") else "repeatable")


# The usual one is in colours and with all local variables, which of one error in a test may take seconds.
structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback
# The many processes that tests start read compiled modules, which saves each some 0.5 s of a core; and so do
# workers, each of which would take 7 s to have the asserts of all tests rewritten.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell has what it runs in the background ignore Ctrl-C, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Threads of torch that wait for each other spin, for a minute instead of a second beside other tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def default_logging() -> Iterator[None]:
    """Whatever a test, or the command that it runs, sets up for logging ends with it."""
    yield
    structlog.reset_defaults()
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler).__module__ == "ktrdr.logs.configuring":
            root.removeHandler(handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector from what is imported and collected, all of which stays to the end.

    To look at it again and again took a third of the time of collecting.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("KTRDR_CHAOS"):
        skip = pytest.mark.skip(reason="long: `make chaos` runs it, or KTRDR_CHAOS=1")
        for item in items:
            if item.get_closest_marker("long") is not None:
                item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    return True if run_as_root_of_a_namespace(pyfuncitem) else None
