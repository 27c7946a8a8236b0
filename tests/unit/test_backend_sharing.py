"""What is asked for by many at once is done once for all of them, and never before they asked."""

import asyncio
import threading
from collections.abc import Callable, Hashable

import pytest

from ktrdr.backend.sharing import Shared
from tests.unit.backend_cases import eventually


class Asked:
    """Counts its calls; each ends when it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self._may_end = threading.Semaphore(0)

    def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        assert self._may_end.acquire(timeout=60)
        return number

    def let_go(self, calls: int = 1) -> None:
        self._may_end.release(calls)


@pytest.fixture
def shared() -> Shared[int]:
    return Shared(asyncio.to_thread)


def _ask(shared: Shared[int], key: Hashable, function: Callable[[], int]) -> asyncio.Task[int]:
    return asyncio.create_task(shared.of(key, function))


async def test_who_asks_meanwhile_shares_what_is_begun_afterwards(shared: Shared[int]) -> None:
    asked = Asked()
    first = _ask(shared, "a", asked)
    await eventually(lambda: asked.calls == 1, "the first call")
    later = [_ask(shared, "a", asked) for _ in range(20)]
    await asyncio.sleep(0)  # all of them ask
    asked.let_go(2)
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 20
    assert asked.calls == 2
    asked.let_go()
    assert await shared.of("a", asked) == 3  # nothing is remembered


async def test_other_questions_are_not_held_up(shared: Shared[int]) -> None:
    slow = Asked()
    waiting = _ask(shared, "slow", slow)
    await eventually(lambda: slow.calls == 1, "the slow call")
    assert await shared.of("quick", lambda: 5) == 5
    slow.let_go()
    assert await waiting == 1


async def test_an_error_reaches_all_who_asked_the_same_and_nobody_else(shared: Shared[int]) -> None:
    def wrong() -> int:
        raise ZeroDivisionError

    tasks = [_ask(shared, "wrong", wrong), _ask(shared, "wrong", wrong), _ask(shared, "right", lambda: 5)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results[:2]] == [ZeroDivisionError] * 2
    assert results[2] == 5
    assert await shared.of("wrong", lambda: 6) == 6


async def test_who_waits_no_longer_takes_nothing_from_the_others(shared: Shared[int]) -> None:
    asked = Asked()
    impatient, patient = _ask(shared, "a", asked), _ask(shared, "a", asked)
    await eventually(lambda: asked.calls == 1, "the call")
    impatient.cancel()
    asked.let_go()
    assert await patient == 1
    assert impatient.cancelled()
