"""A training that is asked for once more, as it was recorded."""

import asyncio
from contextlib import closing
from dataclasses import dataclass, replace

from ktrdr.app.deciding import decide_for_command
from ktrdr.app.embedded import keep_for_later
from ktrdr.backend.dispatching import LOCAL_LANE, check_retryable
from ktrdr.backend.instances import BROKER_OWNER
from ktrdr.backend.records import OperationRecord, SubmitTraining
from ktrdr.backend.store import OperationStore
from ktrdr.backend.submitting import Submitter
from ktrdr.backend.wishes import RetryWish, StrategyText, TrainingWish
from ktrdr.blobs.opening import open_blob_store
from ktrdr.blobs.store import BlobStore
from ktrdr.errors import DataGoneError
from ktrdr.events import TrainingRequested
from ktrdr.settings import Settings
from ktrdr.training.execution_mode_selector import Decision, Mode, Place


@dataclass(frozen=True, slots=True)
class TrainingAgain:
    """What is to be submitted, once it is decided where it runs."""

    submission: SubmitTraining
    wish: TrainingWish
    """As far as that depends on it."""
    mode: Mode | None


def training_again(
    record: OperationRecord, request: TrainingRequested, wish: RetryWish, blobs: BlobStore
) -> TrainingAgain:
    """Return what an operation asked for, with what is wished to differ. Blocks.

    Its bars are not taken away meanwhile: what a recorded operation names is not, and the submission fails if
    this one is forgotten first.

    Raises:
        NotRetryableError: it has made a model, or has not ended.
        DataGoneError: its bars are not in the blob store any more.
        BlobError: the blob store does not answer.
    """
    check_retryable(record)
    gone = [each for each in request.datasets if not blobs.exists(each.blob.sha256)]
    if gone:
        bars = ", ".join(f"{each.symbol} {each.timeframe}" for each in gone)
        raise DataGoneError(
            f"The bars of operation {record.operation_id} ({bars}) are not in the blob store any more.",
            fix=f"Start a new training of {record.strategy} with seed {record.seed}, which reads them anew.",
        )
    require_gpu = request.require_gpu if wish.require_gpu is None else wish.require_gpu
    lane = wish.lane or ("gpu" if wish.require_gpu and not request.require_gpu else request.lane)
    seed = request.seed if wish.seed is None else wish.seed
    waited_in_lane = record.owner == BROKER_OWNER and record.place is None
    return TrainingAgain(
        SubmitTraining(
            strategy=request.strategy,
            symbol=record.symbol,
            timeframe=record.timeframe,
            datasets=request.datasets,
            seed=seed,
            lane=lane,
            require_gpu=require_gpu,
            retry_of=record.operation_id,
        ),
        TrainingWish(
            StrategyText(request.strategy.yaml),
            seed=seed,
            lane=lane,
            require_gpu=require_gpu,
            names_lane=wish.lane is not None or (waited_in_lane and wish.mode is None),
        ),
        # A lane that is named now counts for more than the mode of then.
        wish.mode or (record.mode if wish.lane is None else None),
    )


def decided(again: TrainingAgain, decision: Decision | None) -> SubmitTraining:
    """Return what is submitted, given where it runs; None: in its lane, and nowhere else."""
    is_local = decision is not None and decision.where is Place.LOCAL
    lane = LOCAL_LANE if is_local else again.submission.lane
    return replace(again.submission, decision=decision, lane=lane)


def retry_for_command(
    settings: Settings, name: str, wish: RetryWish
) -> tuple[OperationRecord, Decision | None]:
    """Record a command's training once more, for whoever carries it; return it, and where it runs. Blocks.

    On hosts, ``ktrdr serve`` carries it; here, the next process that works.

    Args:
        settings: where everything is.
        name: the id of the one that failed or was cancelled, or its unique beginning or end.
        wish: what differs.

    Raises:
        OperationNotFoundError: there is none of that name, or several.
        KtrdrError: as `training_again`; or as `decide_for_command`.
    """
    with OperationStore.open(settings, create=False) as store:
        found = store.get_request(store.find(name).operation_id)
        with closing(open_blob_store(settings)) as blobs:
            again = training_again(*found, wish, blobs)
        decision = decide_for_command(settings, again.wish, again.mode)
        asked = decided(again, decision)
        if decision is not None and decision.where is Place.LOCAL:
            return asyncio.run(keep_for_later(lambda _: asked, settings)), decision
        return Submitter(settings, store).submit(asked).operation, decision
