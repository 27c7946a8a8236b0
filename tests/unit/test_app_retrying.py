"""A command asks once more for what has failed or was cancelled, whether a backend runs or not."""

from pathlib import Path

import pytest

from ktrdr.app.retrying import retry_for_command
from ktrdr.backend.records import OperationRecord
from ktrdr.backend.states import State
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.backend.wishes import RetryWish
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.errors import DataGoneError, NotRetryableError, OperationNotFoundError
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Mode, Place
from tests.unit.backend_cases import settings_in, wish


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path, device="cpu")


def ended(settings: Settings, *, with_bars: bool = True) -> OperationRecord:
    """An operation that was cancelled before anybody took it."""
    blobs = DirectoryBlobStore(settings.blobs_dir)
    ref = blobs.put(b"bars")
    if not with_bars:
        blobs.delete(ref.sha256)
    (bars,) = wish().datasets
    asked = wish(datasets=(bars.model_copy(update={"blob": ref}),), seed=11)
    with OperationStore.open(settings) as store:
        operation_id = Submitter(settings, store).submit(asked).operation.operation_id
        return store.cancel(operation_id, "enough")


def test_here_it_waits_for_the_next_process_that_works(settings: Settings) -> None:
    before = ended(settings)
    again, decision = retry_for_command(settings, before.operation_id[-8:], RetryWish(mode=Mode.LOCAL))
    assert decision is not None
    assert decision.where is Place.LOCAL
    with OperationStore.open(settings) as store:
        waiting = store.get(again.operation_id)
        assert (waiting.state, waiting.retry_of) == (State.PENDING, before.operation_id)
        assert store.is_interrupted(waiting)
        assert (waiting.seed, waiting.place) == (11, Place.LOCAL)


def test_what_waited_in_a_lane_waits_in_it_again(settings: Settings) -> None:
    before = ended(settings)
    again, decision = retry_for_command(settings, before.operation_id, RetryWish(seed=12))
    assert decision is None
    with OperationStore.open(settings) as store:
        waiting = store.get(again.operation_id)
        assert (waiting.retry_of, waiting.seed, waiting.place) == (before.operation_id, 12, None)
        assert waiting.owner == before.owner
        assert [str(entry.kind) for entry in store.history(before.operation_id)][-1] == "retried"


def test_what_cannot_be_repeated_is_refused_with_a_reason(settings: Settings) -> None:
    gone = ended(settings, with_bars=False)
    with pytest.raises(DataGoneError, match="EURUSD 1h"):
        retry_for_command(settings, gone.operation_id, RetryWish())
    with OperationStore.open(settings) as store:
        waiting = Submitter(settings, store).submit(wish()).operation.operation_id
    with pytest.raises(NotRetryableError, match="is pending"):
        retry_for_command(settings, waiting, RetryWish())
    with pytest.raises(OperationNotFoundError):
        retry_for_command(settings, "op-unknown", RetryWish())
