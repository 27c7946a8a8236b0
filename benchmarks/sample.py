"""The sample strategy on the sample bars, as every benchmark uses it."""

from pathlib import Path

from ktrdr.backend.preparation import PreparedTraining, prepare_training
from ktrdr.blobs.directory import DirectoryBlobStore
from ktrdr.training.job import Dataset, TrainingJob

ROOT = Path(__file__).parents[1]
STRATEGY = ROOT / "strategies" / "eurusd_momentum.yaml"
EPOCHS = 10


def prepared(home: Path, *, epochs: int = EPOCHS) -> tuple[PreparedTraining, DirectoryBlobStore]:
    """Snapshot the sample's bars; the sample trains exactly so many epochs."""
    blobs = DirectoryBlobStore(home / "blobs")
    training = prepare_training(
        STRATEGY,
        strategies_dir=ROOT / "strategies",
        data_dir=ROOT / "data",
        blobs=blobs,
        overrides={"training.epochs": epochs, "training.early_stopping": False},
    )
    return training, blobs


def job(home: Path, *, epochs: int = EPOCHS) -> TrainingJob:
    """Return the sample as a job for the executor."""
    training, blobs = prepared(home, epochs=epochs)
    return TrainingJob(
        operation_id="benchmark",
        attempt=1,
        strategy_name=training.strategy.name,
        strategy_yaml=training.strategy.yaml,
        overrides=training.strategy.overrides,
        datasets=tuple(
            Dataset(ref, blobs.fetch(ref.blob, home / f"{ref.blob.sha256}.parquet"))
            for ref in training.datasets
        ),
        seed=7,
    )
