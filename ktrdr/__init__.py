"""Event-driven training of neuro-fuzzy trading models.

::

    from ktrdr import load_model, train

    version = train("strategies/eurusd_momentum.yaml", seed=7)
    probabilities = load_model(version.path).predict(bars)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ktrdr.api import ModelVersion, load_model, train
    from ktrdr.publishing import ModelConsumer, TrainingPublisher

__version__ = "0.1.0"
__all__ = ["ModelConsumer", "ModelVersion", "TrainingPublisher", "__version__", "load_model", "train"]

_FROM_PUBLISHING = ("ModelConsumer", "TrainingPublisher")


def __getattr__(name: str) -> object:
    # On demand: `import ktrdr` alone stays quick, and brings neither a database nor an event loop.
    if name in __all__:
        module = "ktrdr.publishing" if name in _FROM_PUBLISHING else "ktrdr.api"
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'ktrdr' has no attribute '{name}'")
