"""A model as its runner leaves it: safe on the disk before anyone is told that it is made."""

import hashlib
from pathlib import Path

from host_agent.durable import sync_directory, write_whole
from host_agent.endings import Trained
from ktrdr.events.references import ModelManifest
from ktrdr.training.job import TrainedModel


def leave_model(model: TrainedModel, bundle: Path) -> None:
    """Write a model's packed bundle, and beside it what is in it; blocks on the disk.

    Raises:
        OSError: the disk does not take it.
    """
    write_whole(_manifest_of(bundle), model.manifest.model_dump_json().encode())
    write_whole(bundle, model.bundle)
    sync_directory(bundle.parent)


def find_model(bundle: Path) -> Trained | None:
    """Return how the run ended that has left a whole model here, or None if none has."""
    try:
        manifest = ModelManifest.model_validate_json(_manifest_of(bundle).read_bytes())
        is_whole = sha256_of(bundle) == manifest.bundle_sha256
    except (OSError, ValueError):
        return None
    return Trained(manifest=manifest) if is_whole else None


def sha256_of(path: Path) -> str:
    """Return the hash of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest_of(bundle: Path) -> Path:
    return bundle.with_suffix(".json")
