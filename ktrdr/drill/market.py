"""Something to train: bars that never were, and a strategy that is quickly done with them."""

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

SYMBOL = "DRILL"
STRATEGY = "drill"

_BARS = 900
_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
_SEED = 1

_STRATEGY = f"""\
name: {STRATEGY}
description: A walk at random, to have something to train
training_data:
  symbols: {{ mode: single, symbol: {SYMBOL} }}
  timeframes: {{ mode: single, timeframe: 1h }}
indicators:
  rsi_14: {{ type: rsi, period: 14 }}
fuzzy_sets:
  rsi:
    indicator: rsi_14
    low: {{ type: trapezoidal, parameters: [-1, 0, 30, 50] }}
    high: {{ type: trapezoidal, parameters: [50, 70, 100, 101] }}
nn_inputs:
  - {{ fuzzy_set: rsi, timeframes: all }}
model:
  type: mlp
  architecture: {{ hidden_layers: [8], activation: relu }}
training:
  epochs: 20
  batch_size: 32
  early_stopping: false
  labels: {{ source: triple_barrier, pt_multiplier: 2.0, sl_multiplier: 2.0, max_holding_period: 12 }}
decisions:
  output_format: classification
"""


def write_strategy(directory: Path) -> Path:
    """Write the strategy's file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{STRATEGY}.yaml"
    path.write_text(_STRATEGY)
    return path


def write_bars(directory: Path) -> Path:
    """Write a walk at random, the same each time."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{SYMBOL}_1h.csv"
    rng = random.Random(_SEED)  # noqa: S311  # nothing is to be kept secret
    lines = ["timestamp,open,high,low,close,volume"]
    price = 100.0
    for number in range(_BARS):
        opened, price = price, price * math.exp(rng.gauss(0.0, 0.004))
        high = max(opened, price) * (1 + abs(rng.gauss(0.0, 0.001)))
        low = min(opened, price) * (1 - abs(rng.gauss(0.0, 0.001)))
        at = _BEGIN + timedelta(hours=number)
        lines.append(f"{at:%Y-%m-%dT%H:%M:%SZ},{opened:.5f},{high:.5f},{low:.5f},{price:.5f},1000")
    path.write_text("\n".join(lines) + "\n")
    return path
