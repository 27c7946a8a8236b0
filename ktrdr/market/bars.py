"""What bars are."""

from typing import TypeAlias

import pandas as pd

Bars: TypeAlias = pd.DataFrame
"""A table of one symbol and timeframe.

Index: ``timestamp``, the bar's **open** time, UTC, strictly increasing.
Columns: `BAR_COLUMNS`, float64.
"""

BAR_COLUMNS = ("open", "high", "low", "close", "volume")
