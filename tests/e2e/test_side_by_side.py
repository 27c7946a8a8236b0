"""Several processes at once on one home: each trains its own, and every model has a number of its own."""

import pytest

from ktrdr.backend.records import HistoryKind
from ktrdr.backend.states import State
from tests.e2e.installation import TWO_TIMEFRAMES, Installation, epochs


def test_two_trainings_at_once_on_a_fresh_home_all_succeed(installation: Installation) -> None:
    trains = [installation.train(*epochs(2)) for _ in range(2)]
    for train in trains:
        train.succeed()
    installation.check_at_rest(models=2)
    assert installation.versions() == [
        "eurusd_momentum/EURUSD_1h_v1",
        "eurusd_momentum/EURUSD_1h_v2",
    ]
    # The same wish and the same seed, side by side: two operations, and the same weights.
    assert installation.sha256("eurusd_momentum/EURUSD_1h_v1") == installation.sha256(
        "eurusd_momentum/EURUSD_1h_v2"
    )
    for train, operation in zip(trains, installation.operations(), strict=True):
        assert "Resuming" not in train.stderr
        assert "Finishing" not in train.stderr
        assert operation.attempt == 1
        kinds = [entry.kind for entry in installation.history(operation)]
        assert kinds == [
            HistoryKind.SUBMITTED,
            HistoryKind.DECIDED,
            HistoryKind.DISPATCHED,
            HistoryKind.ACCEPTED,
            HistoryKind.MODEL_PERSISTED,
        ]
    said = "".join(train.stderr for train in trains)
    assert all(said.count(operation.operation_id) == 1 for operation in installation.operations())


@pytest.mark.fault
@pytest.mark.long
def test_a_training_that_is_killed_beside_another_is_finished_by_the_other(
    installation: Installation, undisturbed: str
) -> None:
    survivor = installation.train(*epochs(300), strategy=TWO_TIMEFRAMES)
    survivor.until(installation.operations, "its operation")
    killed = installation.train(*epochs(60))
    killed.until(lambda: len(installation.operations()) == 2, "its operation")
    orphan = installation.operations()[-1].operation_id
    killed.until(lambda: installation.has_reached_epoch(1, operation=orphan), "epoch 1")
    killed.process.kill()
    killed.wait()
    survivor.succeed()
    assert f"Finishing the interrupted {orphan} (eurusd_momentum) too" in survivor.stderr
    assert all(operation.state is State.COMPLETED for operation in installation.operations())
    assert installation.sha256("eurusd_momentum/EURUSD_1h_v1") == undisturbed
    # What the dead agent had claimed is settled by the agent that next takes its directory.
    installation.run("work").succeed()
    installation.check_at_rest(models=2)
