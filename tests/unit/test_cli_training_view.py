"""What is said while a training runs, beside its progress."""

from pathlib import Path

import pytest

from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.cli.training_view import TrainingView
from tests.unit.backend_cases import settings_in, wish


def test_who_interrupts_what_is_finished_beside_it_is_told_that_it_is_only_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_in(tmp_path)
    with OperationStore.open(settings) as store, TrainingView() as view:
        submitter = Submitter(settings, store)
        other, own = submitter.submit(wish()), submitter.submit(wish())

        view.listener.on_submitted(own)
        view.listener.on_change(own.operation)
        view.interrupted()
        assert "Cancelling" in capsys.readouterr().err

        view.listener.on_change(other.operation)
        view.interrupted()
    said = " ".join(capsys.readouterr().err.split())
    assert f"Finishing the interrupted {other.operation.operation_id} (momentum) too" in said
    assert "Ctrl-C leaves it for later" in said
    assert "Leaving that for later" in said
    assert "Cancelling" not in said
