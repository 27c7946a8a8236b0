"""Fixtures of the contract: each test runs on every transport."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.client import Client
from tests.contract.harness import TRANSPORTS, BrokerHarness, MemoryHarness


@pytest_asyncio.fixture(
    params=[
        pytest.param(each, id=each.transport, marks=[pytest.mark.broker] if each is not MemoryHarness else [])
        for each in TRANSPORTS
    ]
)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[BrokerHarness]:
    transport: BrokerHarness = request.param(lambda: request.getfixturevalue("broker"))
    await transport.start()
    yield transport
    await transport.stop()


@pytest_asyncio.fixture
async def client(harness: BrokerHarness) -> AsyncIterator[Client]:
    """One connection."""
    connection = Client(harness, await harness.connect())
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def other(harness: BrokerHarness) -> AsyncIterator[Client]:
    """Another connection to the same broker."""
    connection = Client(harness, await harness.connect())
    yield connection
    await connection.close()
