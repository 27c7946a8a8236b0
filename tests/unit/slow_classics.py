"""The indicators that TA-Lib has, written out from their formulas: plain loops over plain numbers."""

import math
from collections.abc import Callable, Sequence

from tests.unit.slow_indicators import (
    NAN,
    Column,
    Columns,
    ago,
    average_true_range,
    difference,
    exponential,
    highest,
    lowest,
    mean,
    of_windows,
    ratio,
    recursive,
    total,
)


def typical_prices(bars: Columns) -> Column:
    return [sum(prices) / 3 for prices in zip(bars["high"], bars["low"], bars["close"], strict=True)]


def sma(bars: Columns, period: int = 20, source: str = "close") -> dict[str, Column]:
    return {"": mean(bars[source], period)}


def ema(bars: Columns, period: int = 20, source: str = "close") -> dict[str, Column]:
    return {"": exponential(bars[source], period)}


def wma(bars: Columns, period: int = 20, source: str = "close") -> dict[str, Column]:
    def weighted(window: Sequence[float]) -> float:
        return math.fsum(weight * value for weight, value in enumerate(window, 1)) / (
            period * (period + 1) / 2
        )

    return {"": of_windows(weighted, bars[source], period)}


def macd(
    bars: Columns,
    fast_period: int = 12,
    slow_period: int = 26,
    signal_period: int = 9,
    source: str = "close",
) -> dict[str, Column]:
    values = bars[source]
    # The fast average begins late, so that both have their first value at the same bar.
    late = slow_period - fast_period
    fast = [NAN] * late + exponential(values[late:], fast_period)
    line = difference(fast, exponential(values, slow_period))
    signal = exponential(line, signal_period)
    return {"line": line, "signal": signal, "histogram": difference(line, signal)}


def rsi(bars: Columns, period: int = 14, source: str = "close") -> dict[str, Column]:
    changes = difference(bars[source], ago(bars[source], 1))
    gains = recursive([NAN, *(max(change, 0.0) for change in changes[1:])], period, 1 / period)
    losses = recursive([NAN, *(max(-change, 0.0) for change in changes[1:])], period, 1 / period)
    both = [gain + loss for gain, loss in zip(gains, losses, strict=True)]
    return {"": [100 * share for share in ratio(gains, both, 0.5)]}


def roc(bars: Columns, period: int = 10, source: str = "close") -> dict[str, Column]:
    before = ago(bars[source], period)
    return {"": [100 * share for share in ratio(difference(bars[source], before), before, NAN)]}


def momentum(bars: Columns, period: int = 10, source: str = "close") -> dict[str, Column]:
    return {"": difference(bars[source], ago(bars[source], period))}


def place(bars: Columns, period: int) -> Column:
    bottom = lowest(bars["low"], period)
    return ratio(difference(bars["close"], bottom), difference(highest(bars["high"], period), bottom), 0.5)


def stochastic(bars: Columns, k_period: int = 14, d_period: int = 3, smooth_k: int = 3) -> dict[str, Column]:
    k = mean([100 * share for share in place(bars, k_period)], smooth_k)
    return {"k": k, "d": mean(k, d_period)}


def williamsr(bars: Columns, period: int = 14) -> dict[str, Column]:
    return {"": [100 * share - 100 for share in place(bars, period)]}


def cci(bars: Columns, period: int = 20) -> dict[str, Column]:
    def index(window: Sequence[float]) -> float:
        center = math.fsum(window) / period
        deviation = math.fsum(abs(value - center) for value in window) / period
        return (window[-1] - center) / (0.015 * deviation) if deviation > 1e-12 * center else 0.0

    return {"": of_windows(index, typical_prices(bars), period)}


def adx(bars: Columns, period: int = 14) -> dict[str, Column]:
    ranges, ups, downs = [], [], []
    for at in range(1, len(bars["close"])):
        high, low, before = bars["high"][at], bars["low"][at], bars["close"][at - 1]
        up, down = high - bars["high"][at - 1], bars["low"][at - 1] - low
        ups.append(up if up > max(down, 0) else 0.0)
        downs.append(down if down > max(up, 0) else 0.0)
        ranges.append(max(high, before) - min(low, before))

    def sums(values: Column) -> Column:
        """Wilder's running sums; the first is of one value less than a period."""
        running, result = sum(values[: period - 1]), [NAN] * period
        for value in values[period - 1 :]:
            running += value - running / period
            result.append(running)
        return result

    height = sums(ranges)
    plus = [100 * share for share in ratio(sums(ups), height, 0.0)]
    minus = [100 * share for share in ratio(sums(downs), height, 0.0)]
    strength = [100 * abs(p - m) / (p + m) if p + m else 0.0 for p, m in zip(plus, minus, strict=True)]
    return {"adx": recursive(strength, period, 1 / period), "plus_di": plus, "minus_di": minus}


def aroon(bars: Columns, period: int = 14) -> dict[str, Column]:
    def recent(extreme: Callable[[Sequence[float]], float]) -> Callable[[Sequence[float]], float]:
        # The newest of equals: it comes first in reverse.
        return lambda window: 100 * (period - window[::-1].index(extreme(window))) / period

    up = of_windows(recent(max), bars["high"], period + 1)
    down = of_windows(recent(min), bars["low"], period + 1)
    return {"up": up, "down": down, "oscillator": difference(up, down)}


def parabolicsar(
    bars: Columns, initial_af: float = 0.02, step_af: float = 0.02, max_af: float = 0.2
) -> dict[str, Column]:
    high, low = bars["high"], bars["low"]
    fall = low[0] - low[1]
    rising = not (fall > 0 and fall > high[1] - high[0])
    extreme, stop = (high[1], low[0]) if rising else (low[1], high[0])
    factor, stops = initial_af, [NAN]
    before = 1  # the bar before; at the start there is none but the bar itself
    for at in range(1, len(high)):
        if low[at] <= stop if rising else high[at] >= stop:
            rising = not rising
            stop = min(extreme, low[before], low[at]) if rising else max(extreme, high[before], high[at])
            stops.append(stop)
            factor, extreme = initial_af, high[at] if rising else low[at]
        else:
            stops.append(stop)
            if high[at] > extreme if rising else low[at] < extreme:
                extreme = high[at] if rising else low[at]
                factor = min(factor + step_af, max_af)
        stop += factor * (extreme - stop)
        stop = min(stop, low[before], low[at]) if rising else max(stop, high[before], high[at])
        before = at
    return {"": stops}


def atr(bars: Columns, period: int = 14) -> dict[str, Column]:
    return {"": average_true_range(bars, period)}


def deviation(window: Sequence[float]) -> float:
    center = math.fsum(window) / len(window)
    return math.sqrt(math.fsum((value - center) ** 2 for value in window) / len(window))


def bollingerbands(
    bars: Columns, period: int = 20, multiplier: float = 2.0, source: str = "close"
) -> dict[str, Column]:
    middle, spread = mean(bars[source], period), of_windows(deviation, bars[source], period)
    return {
        "upper": [center + multiplier * width for center, width in zip(middle, spread, strict=True)],
        "middle": middle,
        "lower": [center - multiplier * width for center, width in zip(middle, spread, strict=True)],
    }


def bollingerbandwidth(
    bars: Columns, period: int = 20, multiplier: float = 2.0, source: str = "close"
) -> dict[str, Column]:
    width = [2 * multiplier * value for value in of_windows(deviation, bars[source], period)]
    return {"": ratio(width, mean(bars[source], period), NAN)}


def obv(bars: Columns) -> dict[str, Column]:
    closes, volumes = bars["close"], bars["volume"]
    running = volumes[:1]
    for at in range(1, len(closes)):
        sign = (closes[at] > closes[at - 1]) - (closes[at] < closes[at - 1])
        running.append(running[-1] + sign * volumes[at])
    return {"": running}


def mfi(bars: Columns, period: int = 14) -> dict[str, Column]:
    # Two bars of equal typical price must be equal, whatever binary fractions make of a third of it.
    typical = [round(price, 9) for price in typical_prices(bars)]
    changes = difference(typical, ago(typical, 1))
    flows = [price * volume for price, volume in zip(typical, bars["volume"], strict=True)]
    up = [NAN, *(flow if change > 0 else 0.0 for flow, change in zip(flows[1:], changes[1:], strict=True))]
    down = [NAN, *(flow if change < 0 else 0.0 for flow, change in zip(flows[1:], changes[1:], strict=True))]
    rising, falling = total(up, period), total(down, period)
    both = [gain + loss for gain, loss in zip(rising, falling, strict=True)]
    return {"": [100 * share for share in ratio(rising, both, 0.5)]}


CLASSICS: dict[str, Callable[..., dict[str, Column]]] = {
    function.__name__: function
    for function in (
        adx,
        aroon,
        atr,
        bollingerbands,
        bollingerbandwidth,
        cci,
        ema,
        macd,
        mfi,
        momentum,
        obv,
        parabolicsar,
        roc,
        rsi,
        sma,
        stochastic,
        williamsr,
        wma,
    )
}
