"""A trained model, ready to predict: the same features as in training, from bars to probabilities."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from ktrdr.errors import DataError, ModelCorruptError, ModelNotFoundError, PluginError, StrategyError
from ktrdr.features.compute import compute_features, compute_indicators, drop_warmup
from ktrdr.features.normalization import Scaling, apply_scalings
from ktrdr.features.windows import Windows, complete_windows
from ktrdr.market.bars import BAR_COLUMNS, Bars
from ktrdr.market.context import ContextTable, check_context, read_context
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe
from ktrdr.market.validation import validate
from ktrdr.models.bundle import METADATA_FILE, STRATEGY_FILE, WEIGHTS_FILE
from ktrdr.models.inference import predict
from ktrdr.models.metadata import METADATA_VERSION, ModelMetadata
from ktrdr.plugins import installed_plugins
from ktrdr.strategy import parse_strategy
from ktrdr.strategy.strategy import Strategy


class LoadedModel:
    """A model version; see `load_model`.

    Attributes:
        metadata: everything about the model that is not a weight.
        context: the series that it needs beside the bars: source id → what gives it. Mostly none.
    """

    def __init__(self, metadata: ModelMetadata, strategy: Strategy, module: nn.Module) -> None:
        self.metadata = metadata
        self.context = strategy.context
        self._plan = strategy.feature_plan
        self._window = strategy.network.window
        self._module = module
        self._scalings = {
            feature_id: Scaling(record.method, record.offset, record.scale)
            for feature_id, record in metadata.normalization_params.items()
        }

    def read_context(self, data_dir: Path | str) -> dict[str, ContextTable]:
        """Return the series that `predict` needs beside the bars, from their files in a data directory.

        Raises:
            DataError: a file is missing or has problems.
        """
        return {series.source_id: series.table for series in read_context(self.context, Path(data_dir))}

    def predict(
        self, bars: Bars | Mapping[str, Bars], context: Mapping[str, ContextTable] | None = None
    ) -> pd.DataFrame:
        """Return the model's answer for each bar of one symbol, known at the bar's close.

        Args:
            bars: of the base timeframe, indexed by aware open times, with the columns open, high, low, close
                and volume; or such tables by timeframe. A timeframe that is not given is made of the coarsest
                finer one. Bars from before the first answer that is wanted are needed: the
                indicators' warm-up has none, and recursive averages remember further back.
            context: source id → rows, indexed by the aware times at which they became known, with the same
                columns; see `read_context`. A bar sees the rows that were known at its close.

        Returns:
            A table indexed by time (UTC): a probability per class, in columns named as the classes, or the
            column ``value`` for a regression. Bars in the warm-up are absent, and so are, for a network that
            is given sequences, those with too few bars since the start or since a hole in the data.

        Raises:
            DataError: the bars are not what is described above, have problems, or are too few.
        """
        given = bars if isinstance(bars, Mapping) else {self._plan.base_timeframe: bars}
        complete = self._complete(given)
        known = self._check_context(context or {})
        values = compute_indicators(self._plan, complete, _go_on, known)
        matrix, _ = drop_warmup(compute_features(self._plan, values, complete, _go_on, known))
        apply_scalings(matrix.feature_ids, matrix.values, self._scalings)
        opens = pd.DatetimeIndex(complete[self._plan.base_timeframe].index)
        timeframe = Timeframe.parse(self._plan.base_timeframe)
        ends = complete_windows(matrix, opens, timeframe, self._window)
        if not len(ends):
            raise DataError(
                f"The model needs {self._window} consecutive bars with a value for every feature; "
                f"of {len(opens)} bars, {len(matrix.times)} have one.",
                fix="Give more bars.",
            )
        inputs = Windows(matrix.values, ends, self._window)
        outputs = predict(self._module, inputs, self.metadata.output_type, _go_on)
        columns = list(self.metadata.classes) or ["value"]
        return pd.DataFrame(outputs, index=matrix.times[ends], columns=columns)

    def _complete(self, given: Mapping[str, Bars]) -> dict[str, Bars]:
        """Return checked bars of every timeframe that the features need."""
        needed = self._plan.timeframes
        finer = {
            timeframe: [
                name for name in given if Timeframe.parse(timeframe).is_multiple_of(Timeframe.parse(name))
            ]
            for timeframe in needed
        }
        if not set(given) <= set(needed) or not all(finer.values()):
            raise DataError(
                f"The model needs bars of {', '.join(needed)}; given: {', '.join(given) or 'none'}.",
                fix="Give tables by timeframe; one that is missing is made of a finer one.",
            )
        checked = {timeframe: _check(table, timeframe) for timeframe, table in given.items()}
        for timeframe in needed:
            if timeframe not in checked:
                source = max(finer[timeframe], key=Timeframe.parse)
                checked[timeframe] = resample(
                    checked[source], Timeframe.parse(source), Timeframe.parse(timeframe)
                )
        return {timeframe: checked[timeframe] for timeframe in needed}

    def _check_context(self, given: Mapping[str, ContextTable]) -> dict[str, ContextTable]:
        """Return the checked rows of every series that the features need."""
        if set(given) != set(self.context):
            raise DataError(
                f"The model needs context {', '.join(self.context) or 'of no kind'}; "
                f"given: {', '.join(given) or 'none'}.",
                fix="Give what `read_context` of the model returns, or tables like those.",
            )
        checked = {}
        for source, table in given.items():
            rows = _as_numbers(table, f"the context {source}")
            check_context(rows, f"the context {source}")
            checked[source] = rows
        return checked

    def __repr__(self) -> str:
        model = self.metadata
        return f"LoadedModel({model.strategy_name} {model.symbol} {model.timeframe})"


def load_model(path: Path | str) -> LoadedModel:
    """Load a model version.

    Nothing of it is executed: weights are safetensors, the rest is JSON and YAML.

    Args:
        path: the version's directory, or a ``…_latest`` link to one.

    Raises:
        ModelNotFoundError: there is no model.
        PluginError: a plug-in that it is made of is not installed.
        ModelCorruptError: its files are not what was persisted.
    """
    directory = Path(path)
    metadata = _read_metadata(directory)
    _require_plugins(directory, metadata)
    strategy = _read_strategy(directory, metadata)
    weights = _read(directory, WEIGHTS_FILE)
    _require_hash(directory, WEIGHTS_FILE, weights, metadata.weights_sha256)
    # Without memory, because it gets all its weights here: nothing is drawn from torch's generator.
    with torch.device("meta"):
        module = strategy.network.build(len(metadata.resolved_features), len(metadata.classes) or 1)
    try:
        module.load_state_dict(load_tensors(weights), assign=True)
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise _corrupt(directory, WEIGHTS_FILE, f"has not the weights of this network: {error}") from error
    return LoadedModel(metadata, strategy, module)


def _check(table: object, timeframe: str) -> Bars:
    """Return a table as bars; further columns are left out, and whole numbers are fine."""
    what = f"the {timeframe} bars"
    bars = _as_numbers(table, what)
    validate(bars, Timeframe.parse(timeframe), what)
    return bars


def _as_numbers(table: object, what: str) -> pd.DataFrame:
    """Return a table with the columns of bars and no others, as float64, in UTC."""
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"{what} are a {type(table).__name__}, not a DataFrame.")
    missing = [name for name in BAR_COLUMNS if name not in table.columns]
    if missing:
        raise DataError(
            f"{what} lack the columns {', '.join(missing)}; they have {', '.join(map(str, table.columns))}.",
            fix=f"Name the columns {', '.join(BAR_COLUMNS)}.",
        )
    bars = table.loc[:, list(BAR_COLUMNS)]
    if bars.shape[1] != len(BAR_COLUMNS):
        raise DataError(f"{what} have a column twice.")
    try:
        bars = bars.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} have values that are not numbers: {error}.") from error
    if isinstance(bars.index, pd.DatetimeIndex) and bars.index.tz is not None:
        bars.index = bars.index.tz_convert("UTC")
    return bars


def _read_metadata(directory: Path) -> ModelMetadata:
    content = _read(directory, METADATA_FILE)
    try:
        metadata = ModelMetadata.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _corrupt(directory, METADATA_FILE, f"is not valid: {where}: {first['msg']}") from error
    if metadata.metadata_version != METADATA_VERSION:
        raise ModelCorruptError(
            f"{directory / METADATA_FILE} has version {metadata.metadata_version}; "
            f"this program reads version {METADATA_VERSION}.",
            fix="Load it with the version of ktrdr that made it.",
        )
    return metadata


def _require_plugins(directory: Path, metadata: ModelMetadata) -> None:
    for plugin in metadata.plugins:
        if not any(each.name.lower() == plugin.name for each in installed_plugins(plugin.group)):
            raise PluginError(
                f"The model in {directory} needs '{plugin.name}' ({plugin.group}) of {plugin.distribution} "
                f"{plugin.version}, which is not installed.",
                fix=f"Install {plugin.distribution}=={plugin.version} where ktrdr is installed.",
            )


def _read_strategy(directory: Path, metadata: ModelMetadata) -> Strategy:
    content = _read(directory, STRATEGY_FILE)
    _require_hash(directory, STRATEGY_FILE, content, metadata.strategy_sha256)
    try:
        parsed = parse_strategy(
            content.decode(), source=str(directory / STRATEGY_FILE), overrides=metadata.overrides
        )
    except (StrategyError, UnicodeDecodeError) as error:
        raise _corrupt(directory, STRATEGY_FILE, f"cannot be used: {error}") from error
    strategy = parsed.strategy
    if strategy.feature_plan.feature_ids != metadata.resolved_features:
        raise _corrupt(directory, STRATEGY_FILE, "has other features than the metadata")
    if strategy.label.classes != metadata.classes:
        raise _corrupt(directory, STRATEGY_FILE, "has other classes than the metadata")
    return strategy


def _read(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except FileNotFoundError as error:
        if directory.is_dir() and any(
            (directory / other).exists() for other in (WEIGHTS_FILE, METADATA_FILE)
        ):
            raise _corrupt(directory, name, "is missing") from error
        raise ModelNotFoundError(
            f"There is no model in {directory}.", fix="List the models with `ktrdr models list`."
        ) from error
    except OSError as error:
        raise ModelNotFoundError(f"{directory / name} cannot be read: {error.strerror}.") from error


def _require_hash(directory: Path, name: str, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise _corrupt(directory, name, f"has the SHA-256 {found}, not {expected} as in {METADATA_FILE}")


def _corrupt(directory: Path, name: str, how: str) -> ModelCorruptError:
    return ModelCorruptError(f"{directory / name} {how}.", fix="Train the model again, or restore its files.")


def _go_on() -> None:
    """Nobody can cancel a prediction."""
