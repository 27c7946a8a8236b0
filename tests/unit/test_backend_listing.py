"""How many operations a list has."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrdr.backend import listing
from ktrdr.backend.listing import Counts, Filter
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from tests.unit.backend_cases import settings_in, wish

PENDING = Filter((State.PENDING,))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OperationStore]:
    with OperationStore.open(settings_in(tmp_path)) as store:
        yield store


def test_few_are_counted_each_time_and_many_only_now_and_then(
    store: OperationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "COUNTED_AT_MOST", 3)
    submitter, passed_s = Submitter(settings_in(tmp_path), store), 0.0
    counts = Counts(store, now=lambda: passed_s)
    submitted = []
    for number in range(1, 4):
        submitted.append(submitter.submit(wish()).operation.operation_id)
        assert counts.count(PENDING) == number
    submitter.submit(wish())
    for operation_id in submitted[:2]:
        store.cancel(operation_id, "for a test")
    assert counts.count(PENDING) == 3  # as it was a moment ago
    assert counts.count(Filter((State.CANCELLED,))) == 2
    passed_s = 10.0
    assert counts.count(PENDING) == 2
