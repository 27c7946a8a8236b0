"""The indicators that TA-Lib lacks, written out from their formulas: plain loops over plain numbers.

Each takes columns by name and parameters, and gives a value for each bar from the first at which it can: NaN
before. They share nothing with `ktrdr.features.indicators`.
"""

import math
from collections.abc import Callable, Sequence

NAN = math.nan
Column = list[float]
Columns = dict[str, Column]


def windows(values: Sequence[float], period: int) -> list[Sequence[float] | None]:
    """The ``period`` values up to each; None where there are fewer, or one of them is missing."""
    found: list[Sequence[float] | None] = []
    for end in range(1, len(values) + 1):
        window = values[max(end - period, 0) : end]
        complete = len(window) == period and not any(math.isnan(value) for value in window)
        found.append(window if complete else None)
    return found


def of_windows(calculate: Callable[[Sequence[float]], float], values: Column, period: int) -> Column:
    return [NAN if window is None else calculate(window) for window in windows(values, period)]


def highest(values: Column, period: int) -> Column:
    return of_windows(max, values, period)


def lowest(values: Column, period: int) -> Column:
    return of_windows(min, values, period)


def total(values: Column, period: int) -> Column:
    return of_windows(math.fsum, values, period)


def mean(values: Column, period: int) -> Column:
    return [value / period for value in total(values, period)]


def recursive(values: Column, period: int, weight: float) -> Column:
    """An average that starts from the mean of its first ``period`` values and moves to each by a weight."""
    averages: Column = []
    for value, first in zip(values, mean(values, period), strict=True):
        before = averages[-1] if averages else NAN
        averages.append(first if math.isnan(before) else before + weight * (value - before))
    return averages


def exponential(values: Column, period: int) -> Column:
    return recursive(values, period, 2 / (period + 1))


def average_true_range(bars: Columns, period: int) -> Column:
    ranges = [NAN]
    for before, high, low in zip(bars["close"], bars["high"][1:], bars["low"][1:], strict=False):
        ranges.append(max(high - low, abs(high - before), abs(low - before)))
    return recursive(ranges, period, 1 / period)


def ago(values: Column, bars: int) -> Column:
    return [values[at - bars] if at >= bars else NAN for at in range(len(values))]


def difference(these: Column, those: Column) -> Column:
    return [this - that for this, that in zip(these, those, strict=True)]


def ratio(these: Column, those: Column, undefined: float) -> Column:
    return [this / that if that else undefined for this, that in zip(these, those, strict=True)]


def money_flow(bars: Columns) -> tuple[Column, Column]:
    multipliers = [
        ((close - low) - (high - close)) / (high - low) if high > low else 0.0
        for high, low, close in zip(bars["high"], bars["low"], bars["close"], strict=True)
    ]
    return multipliers, [
        multiplier * volume for multiplier, volume in zip(multipliers, bars["volume"], strict=True)
    ]


def adline(bars: Columns, use_sma_smoothing: bool = False, smoothing_period: int = 21) -> dict[str, Column]:
    multipliers, flows = money_flow(bars)
    line = [math.fsum(flows[: end + 1]) for end in range(len(flows))]
    if use_sma_smoothing:
        line = mean(line, smoothing_period)
    fifty = mean(line, 50)
    return {
        "line": line,
        "mf_multiplier": multipliers,
        "mf_volume": flows,
        "roc_10": [100 * value for value in ratio(difference(line, ago(line, 10)), ago(line, 10), NAN)],
        "momentum_21": difference(line, ago(line, 21)),
        "relative_strength": [100 * value for value in ratio(difference(line, fifty), fifty, NAN)],
    }


def cmf(bars: Columns, period: int = 21) -> dict[str, Column]:
    multipliers, flows = money_flow(bars)
    flow = ratio(total(flows, period), total(bars["volume"], period), 0.0)
    signal = exponential(flow, 9)
    return {
        "cmf": flow,
        "mf_multiplier": multipliers,
        "mf_volume": flows,
        "momentum": difference(flow, ago(flow, 5)),
        "signal": signal,
        "histogram": difference(flow, signal),
        "above_zero": [float(value > 0) for value in flow],
        "below_zero": [float(value < 0) for value in flow],
    }


def vwap(bars: Columns, period: int = 20, use_typical_price: bool = True) -> dict[str, Column]:
    prices = [
        (high + low + close) / 3 if use_typical_price else close
        for high, low, close in zip(bars["high"], bars["low"], bars["close"], strict=True)
    ]
    volumes = bars["volume"]
    flows = [price * volume for price, volume in zip(prices, volumes, strict=True)]
    if period == 0:
        sums = [math.fsum(flows[: end + 1]) for end in range(len(flows))]
        return {"": ratio(sums, [math.fsum(volumes[: end + 1]) for end in range(len(flows))], NAN)}
    return {"": ratio(total(flows, period), total(volumes, period), NAN)}


def volumeratio(bars: Columns, period: int = 20) -> dict[str, Column]:
    return {"": ratio(bars["volume"], mean(bars["volume"], period), 1.0)}


def distancefromma(
    bars: Columns, period: int = 20, ma_type: str = "SMA", source: str = "close"
) -> dict[str, Column]:
    values = bars[source]
    average = mean(values, period) if ma_type == "SMA" else exponential(values, period)
    return {"": [100 * value for value in ratio(difference(values, average), average, NAN)]}


def donchianchannels(bars: Columns, period: int = 20) -> dict[str, Column]:
    upper, lower = highest(bars["high"], period), lowest(bars["low"], period)
    middle = [(top + bottom) / 2 for top, bottom in zip(upper, lower, strict=True)]
    return {"upper": upper, "middle": middle, "lower": lower}


def keltnerchannels(
    bars: Columns, period: int = 20, atr_period: int = 10, multiplier: float = 2.0
) -> dict[str, Column]:
    middle = exponential(bars["close"], period)
    ranges = average_true_range(bars, atr_period)
    return {
        "upper": [value + multiplier * width for value, width in zip(middle, ranges, strict=True)],
        "middle": middle,
        "lower": [value - multiplier * width for value, width in zip(middle, ranges, strict=True)],
    }


def squeezeintensity(
    bars: Columns,
    bb_period: int = 20,
    bb_multiplier: float = 2.0,
    kc_period: int = 20,
    kc_multiplier: float = 2.0,
    source: str = "close",
) -> dict[str, Column]:
    def deviation(window: Sequence[float]) -> float:
        center = math.fsum(window) / len(window)
        return math.sqrt(math.fsum((value - center) ** 2 for value in window) / len(window))

    channel = keltnerchannels(bars, kc_period, 10, kc_multiplier)
    intensity = []
    for center, spread, upper, lower in zip(
        mean(bars[source], bb_period),
        of_windows(deviation, bars[source], bb_period),
        channel["upper"],
        channel["lower"],
        strict=True,
    ):
        gap = min(upper - (center + bb_multiplier * spread), (center - bb_multiplier * spread) - lower)
        intensity.append(max(gap, 0.0) / (upper - lower) if upper != lower else 0.0)
    return {"": intensity}


def supertrend(bars: Columns, period: int = 10, multiplier: float = 3.0) -> dict[str, Column]:
    closes = bars["close"]
    ranges = average_true_range(bars, period)
    trend, directions = [NAN] * len(closes), [NAN] * len(closes)
    for at in range(period, len(closes)):
        center = (bars["high"][at] + bars["low"][at]) / 2
        basic_upper, basic_lower = center + multiplier * ranges[at], center - multiplier * ranges[at]
        if at == period:
            final_upper, final_lower, direction = basic_upper, basic_lower, 1.0
        else:
            if basic_upper < final_upper or closes[at - 1] > final_upper:
                final_upper = basic_upper
            if basic_lower > final_lower or closes[at - 1] < final_lower:
                final_lower = basic_lower
        if direction == 1 and closes[at] < final_lower:
            direction = -1.0
        elif direction == -1 and closes[at] > final_upper:
            direction = 1.0
        directions[at] = direction
        trend[at] = final_lower if direction == 1 else final_upper
    return {"trend": trend, "direction": directions}


def ichimoku(
    bars: Columns,
    tenkan_period: int = 9,
    kijun_period: int = 26,
    senkou_b_period: int = 52,
    displacement: int = 26,
) -> dict[str, Column]:
    def middle(period: int) -> Column:
        return donchianchannels(bars, period)["middle"]

    tenkan, kijun = middle(tenkan_period), middle(kijun_period)
    return {
        "tenkan": tenkan,
        "kijun": kijun,
        "senkou_a": ago([(a + b) / 2 for a, b in zip(tenkan, kijun, strict=True)], displacement),
        "senkou_b": ago(middle(senkou_b_period), displacement),
        "chikou": bars["close"],
    }


def fishertransform(bars: Columns, period: int = 10, smoothing: int = 3) -> dict[str, Column]:
    transformed = []
    for high, low, top, bottom in zip(
        bars["high"],
        bars["low"],
        highest(bars["high"], period),
        lowest(bars["low"], period),
        strict=True,
    ):
        place = 2 * ((high + low) / 2 - bottom) / (top - bottom) - 1 if top != bottom else 0.0
        place = min(max(place, -0.999), 0.999) if not math.isnan(place) else NAN
        transformed.append(0.5 * math.log((1 + place) / (1 - place)))
    fisher = exponential(transformed, smoothing)
    return {"fisher": fisher, "signal": ago(fisher, 1)}


def rvi(bars: Columns, period: int = 10, signal_period: int = 4) -> dict[str, Column]:
    def smoothed(values: Column) -> Column:
        return of_windows(lambda four: (four[0] + 2 * four[1] + 2 * four[2] + four[3]) / 6, values, 4)

    vigor = smoothed(difference(bars["close"], bars["open"]))
    height = smoothed(difference(bars["high"], bars["low"]))
    index = ratio(total(vigor, period), total(height, period), 0.0)
    return {"rvi": index, "signal": mean(index, signal_period)}


def zigzag(bars: Columns, threshold: float = 0.05, source: str = "close") -> dict[str, Column]:
    prices = bars[source]
    known = [prices[0]] * len(prices)
    first = next(
        (at for at, price in enumerate(prices) if abs(price - prices[0]) >= threshold * prices[0]), None
    )
    if first is None:
        return {"": known}
    rising, begin = prices[first] > prices[0], first
    for at in range(first, len(prices)):
        leg = prices[begin : at + 1]
        if rising:
            turns = prices[at] <= max(leg) * (1 - threshold)
        else:
            turns = prices[at] >= min(leg) * (1 + threshold)
        if turns:
            known[at:] = [max(leg) if rising else min(leg)] * (len(prices) - at)
            rising, begin = not rising, at
    return {"": known}


OTHERS: dict[str, Callable[..., dict[str, Column]]] = {
    function.__name__: function
    for function in (
        adline,
        cmf,
        distancefromma,
        donchianchannels,
        fishertransform,
        ichimoku,
        keltnerchannels,
        rvi,
        squeezeintensity,
        supertrend,
        volumeratio,
        vwap,
        zigzag,
    )
}
