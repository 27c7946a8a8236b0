"""What a strategy would train, in words and numbers, from the strategy alone: no bars are read."""

import pandas as pd

from ktrdr.docstrings import describe
from ktrdr.errors import DataError
from ktrdr.features.indicators import INDICATORS
from ktrdr.features.memberships import MEMBERSHIPS
from ktrdr.features.plan import FeatureColumn, FeaturePlan
from ktrdr.language.allowed import as_written
from ktrdr.language.explained import (
    BarsExplained,
    ContextExplained,
    Explanation,
    FeatureExplained,
    LabelExplained,
    NetworkExplained,
    TrainingExplained,
)
from ktrdr.losses import LOSSES
from ktrdr.market.timeframe import Timeframe
from ktrdr.parameters import Parameters
from ktrdr.strategy.strategy import DataSplit, ParsedStrategy, TrainingOptions
from ktrdr.training.split import MINIMUM_ROWS, split_rows


def explain(parsed: ParsedStrategy) -> Explanation:
    """Return what a strategy would train."""
    strategy = parsed.strategy
    plan, label, network = strategy.feature_plan, strategy.label, strategy.network
    features = [_feature(plan, column) for column in plan.columns]
    first_bar = max(feature.first_bar for feature in features)
    rows = _fewest_rows(strategy.training.data_split, label.horizon_bars)
    outputs = len(label.classes) or 1
    return Explanation(
        name=strategy.name,
        description=strategy.description,
        bars=BarsExplained(
            symbols=strategy.symbols,
            timeframes=strategy.timeframes,
            base_timeframe=strategy.base_timeframe,
            start=strategy.start,
            end=strategy.end,
            at_least=max(first_bar + network.window - 1, label.warmup_bars) + rows + label.horizon_bars,
        ),
        context=[
            ContextExplained(source, entry.definition(source)) for source, entry in strategy.context.items()
        ],
        features=features,
        first_bar=first_bar,
        label=LabelExplained(
            source=strategy.label_source,
            parameters=label.model_dump(mode="json"),
            definition=describe(type(label)).text.partition("\n\n")[0],
            classes=label.classes,
            horizon_bars=label.horizon_bars,
        ),
        output_format=strategy.decisions.output_format,
        network=NetworkExplained(
            type=strategy.model_type,
            parameters=network.model_dump(mode="json"),
            definition=describe(type(network)).text.partition("\n\n")[0],
            window=network.window,
            inputs=len(features),
            outputs=outputs,
            parameter_count=network.parameter_count(len(features), outputs),
        ),
        training=_training(strategy.training),
        warnings=parsed.warnings,
    )


def _feature(plan: FeaturePlan, column: FeatureColumn) -> FeatureExplained:
    indicator = plan.indicators[column.indicator_id]
    formula = written(INDICATORS.name_of(type(indicator)), indicator)
    if column.output:
        formula += f".{column.output}"
    source = plan.sources.get(column.indicator_id)
    if source is not None:
        formula += f" on {source}"
    if column.membership is not None:
        formula = f"{written(MEMBERSHIPS.name_of(type(column.membership)), column.membership)} of {formula}"
    bars = 1 if source is not None else indicator.warmup_bars + 1
    closes_after = Timeframe.parse(column.timeframe).duration * bars
    return FeatureExplained(
        feature_id=column.feature_id,
        timeframe=column.timeframe,
        formula=formula,
        normalization=column.normalization,
        # The first row that closes no earlier than the bar with the first value.
        first_bar=-(-closes_after // Timeframe.parse(plan.base_timeframe).duration) - 1,
        context=source,
        context_rows=indicator.warmup_bars + 1 if source is not None else 0,
    )


def _training(options: TrainingOptions) -> TrainingExplained:
    split, stopping, scheduler = options.data_split, options.early_stopping, options.lr_scheduler
    moved = f", momentum={options.momentum:g}" if options.momentum else ""
    decay = f"learning_rate={options.learning_rate:g}, weight_decay={options.weight_decay:g}{moved}"
    falls = None
    if scheduler is not None:
        of_type = {
            "step": f"step_size={scheduler.step_size}, gamma={scheduler.gamma:g}",
            "exponential": f"gamma={scheduler.gamma:g}",
            "reduce_on_plateau": f"factor={scheduler.factor:g}, patience={scheduler.patience}",
        }
        falls = f"{scheduler.type}({of_type[scheduler.type]})"
    stops = None
    if stopping is not None:
        stops = f"after {stopping.patience} epochs in which {stopping.monitor} improves by no more than "
        stops += f"{stopping.min_delta:g}"
    return TrainingExplained(
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=f"{options.optimizer}({decay})",
        loss=written(LOSSES.name_of(type(options.loss)), options.loss),
        gradient_clip=options.gradient_clip,
        early_stopping=stops,
        lr_scheduler=falls,
        keeps=stopping.monitor if stopping is not None else "val_loss",
        split={"train": split.train, "validation": split.validation, "test": round(split.test, 9)},
    )


def written(name: str, parameters: Parameters) -> str:
    """Return a name with parameters: ``rsi(period=14, source=close)``."""
    values = parameters.model_dump(mode="json")
    inside = ", ".join(f"{key}={as_written(value)}" for key, value in values.items())
    return f"{name}({inside})" if inside else name


def _fewest_rows(shares: DataSplit, horizon: int) -> int:
    """Return how many labelled rows of one symbol can be split at all."""
    parts = ((MINIMUM_ROWS + horizon, shares.train), (MINIMUM_ROWS + horizon, shares.validation))
    rows = max(int(needed / share) for needed, share in (*parts, (MINIMUM_ROWS, shares.test)))
    rows = max(rows - 3, 3)  # rounding may leave a part with one more than its share
    while True:
        times = pd.date_range("2000-01-01", periods=rows + horizon, freq="h", tz="UTC")
        try:
            split_rows(times[:rows], times[horizon:], shares.train, shares.validation)
        except DataError:
            rows += 1
        else:
            return rows
