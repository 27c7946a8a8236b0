"""Network types, one registry."""

from ktrdr.networks import mlp, recurrent, transformer
from ktrdr.networks.base import NETWORKS, Network

__all__ = ["NETWORKS", "Network", "mlp", "recurrent", "transformer"]
