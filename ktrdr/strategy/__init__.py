"""The strategy language: YAML in, a checked and resolved strategy out."""

from ktrdr.strategy.directory import StrategyDirectory
from ktrdr.strategy.parse import load_strategy, parse_strategy, read_strategy
from ktrdr.strategy.strategy import (
    CostModel,
    DataSplit,
    Decisions,
    EarlyStopping,
    LrScheduler,
    Optimizer,
    ParsedStrategy,
    Strategy,
    TrainingOptions,
)

__all__ = [
    "CostModel",
    "DataSplit",
    "Decisions",
    "EarlyStopping",
    "LrScheduler",
    "Optimizer",
    "ParsedStrategy",
    "Strategy",
    "StrategyDirectory",
    "TrainingOptions",
    "load_strategy",
    "parse_strategy",
    "read_strategy",
]
