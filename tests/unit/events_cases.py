"""One example of every event type."""

from datetime import UTC, datetime

from ktrdr.events import (
    AgentPresence,
    BlobRef,
    CancelRequested,
    CheckpointSaved,
    Codec,
    DatasetKind,
    DatasetRef,
    Event,
    FailureCause,
    FileDigest,
    InlineModel,
    LogEntry,
    ModelDiscarded,
    ModelManifest,
    ModelPersisted,
    ModelReady,
    RunningAttempt,
    StageTiming,
    StrategyDocument,
    TrainingAccepted,
    TrainingCancelled,
    TrainingFailed,
    TrainingLogged,
    TrainingProgress,
    TrainingRequested,
)
from ktrdr.events.training import EpochMetrics

SHA = "0123456789abcdef" * 4
BLOB = BlobRef(uri=f"blob:{SHA}", sha256=SHA, size=204_800, codec=Codec.ZSTD)
CLAIM = {"operation_id": "op-1", "attempt": 2, "claim_id": "k3f9x2mq", "agent_id": "host-a"}
MANIFEST = ModelManifest(
    strategy="eurusd_momentum",
    symbol="EURUSD",
    timeframe="1h",
    output_format="classification",
    features=("1h_rsi_oversold", "1h_rsi_overbought"),
    classes=("BUY", "HOLD", "SELL"),
    metrics={"accuracy": 0.52, "baseline_majority_class_accuracy": 0.4},
    epochs_trained=37,
    best_epoch=27,
    train_rows=4300,
    validation_rows=900,
    test_rows=900,
    parameters=3043,
    strategy_sha256=SHA,
    weights_sha256=SHA,
    bundle_sha256=SHA,
    bundle_size=20_000,
    files={"model.safetensors": FileDigest(sha256=SHA, size=12_500)},
    seed=7,
    device="cpu",
    timings=(StageTiming(stage="Training", seconds=4.25),),
    peak_memory_bytes=300_000_000,
)

EXAMPLES: tuple[Event, ...] = (
    TrainingRequested(
        operation_id="op-1",
        attempt=2,
        strategy=StrategyDocument(
            name="eurusd_momentum",
            yaml="name: eurusd_momentum\n",
            sha256=SHA,
            overrides={"training.epochs": 10, "model.layers": [16, 8], "note": None},
        ),
        datasets=(
            DatasetRef(
                symbol="EURUSD",
                timeframe="1h",
                blob=BLOB,
                rows=6225,
                start=datetime(2024, 1, 1, tzinfo=UTC),
                end=datetime(2024, 12, 31, 23, tzinfo=UTC),
            ),
            DatasetRef(
                kind=DatasetKind.CONTEXT,
                symbol="fred_DGS2",
                timeframe="1d",
                blob=BLOB,
                rows=250,
                start=datetime(2024, 1, 3, 21, 15, tzinfo=UTC),
                end=datetime(2024, 12, 31, 21, 15, tzinfo=UTC),
            ),
        ),
        seed=7,
        lane="gpu",
        requested_at=datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC),
        accept_within_s=300.0,
    ),
    TrainingAccepted(**CLAIM, slot=1, device="cpu", lease_s=30.0),
    TrainingProgress(
        **CLAIM,
        sequence=412,
        stage="Training",
        stage_number=6,
        stages=8,
        epoch=37,
        epochs=100,
        metrics={"train_loss": 0.8, "val_loss": 0.812, "val_accuracy": 0.5},
        earlier=(EpochMetrics(epoch=36, metrics={"train_loss": 0.81, "val_loss": 0.82}),),
        fraction=0.41,
        eta_s=12.5,
    ),
    TrainingLogged(
        **CLAIM,
        lines=(
            LogEntry(
                number=7,
                at=datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC),
                level="info",
                source="executor",
                event="[2/8] Computing indicators",
            ),
            LogEntry(
                number=9,
                at=datetime(2026, 3, 1, 12, 30, 16, tzinfo=UTC),
                level="debug",
                source="executor",
                event="stage done",
                fields={"stage": "Computing indicators", "seconds": 0.75, "outputs": 3, "note": None},
            ),
        ),
    ),
    CheckpointSaved(**CLAIM, epoch=10, checkpoint=BLOB),
    ModelReady(**CLAIM, manifest=MANIFEST, inline=InlineModel(codec=Codec.ZSTD, data=bytes(range(256)))),
    TrainingFailed(
        **CLAIM, cause=FailureCause.OUT_OF_MEMORY, message="The runner was killed.\nTwice.", epoch=3
    ),
    TrainingCancelled(**CLAIM, epoch=12),
    CancelRequested(operation_id="op-1", attempt=2, claim_id="k3f9x2mq", reason="cancelled by the user"),
    ModelPersisted(
        operation_id="op-1",
        attempt=2,
        claim_id="k3f9x2mq",
        model="eurusd_momentum/EURUSD_1h_v3",
        model_version=3,
        bundle_sha256=SHA,
    ),
    ModelDiscarded(operation_id="op-1", attempt=2, claim_id="k3f9x2mq", reason="already completed"),
    AgentPresence(
        agent_id="host-a",
        state="ready",
        device="cuda:0",
        device_name="Some GPU",
        memory_bytes=8 * 1024**3,
        lanes=("any", "gpu"),
        slots_total=2,
        slots_busy=1,
        running=(RunningAttempt(operation_id="op-1", attempt=2, claim_id="k3f9x2mq"),),
    ),
)


def example(event_type: str) -> Event:
    """The example of the event type of that name, without its version."""
    return next(event for event in EXAMPLES if event.type == event_type)
