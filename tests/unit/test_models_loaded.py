"""A model that is loaded from its directory."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load, save

from ktrdr.errors import DataError, ModelCorruptError, ModelNotFoundError
from ktrdr.market.resample import resample
from ktrdr.market.timeframe import Timeframe
from ktrdr.models.bundle import unpack
from ktrdr.models.loaded import LoadedModel, load_model
from ktrdr.training.cancellation import ManualCancellation
from ktrdr.training.executor import TrainingExecutor
from ktrdr.training.job import TrainingJob
from ktrdr.training.progress import SilentObserver
from tests.unit.training_cases import TWO_TIMEFRAMES, job

ROWS = 1200
REGRESSION: dict[str, Any] = {
    "decisions.output_format": "regression",
    "decisions.cost_model": {"round_trip_cost": 0.0001, "min_edge_multiplier": 1.0},
    "training.loss": "huber",
    "training.labels": {"source": "forward_return", "horizon": 6},
}
RAW: dict[str, Any] = {
    "nn_inputs": [
        {"fuzzy_set": "rsi", "timeframes": "all"},
        {"raw_indicator": "roc_24", "timeframes": "all", "normalization": "zscore"},
    ]
}


def write_model(of: TrainingJob, directory: Path) -> Path:
    bundle = TrainingExecutor().run(of, SilentObserver(), ManualCancellation()).bundle
    directory.mkdir()
    for name, content in unpack(bundle).items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(scope="module")
def bars(eurusd: pd.DataFrame) -> pd.DataFrame:
    return eurusd.iloc[:ROWS]


@pytest.fixture
def directory(bars: pd.DataFrame, tmp_path: Path) -> Path:
    return write_model(job(bars, tmp_path), tmp_path / "EURUSD_1h_v1")


@pytest.fixture(scope="module")
def model(bars: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    root = tmp_path_factory.mktemp("model")
    return load_model(write_model(job(bars, root), root / "EURUSD_1h_v1"))


def evaluated(directory: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(
        pa.BufferReader((directory / "evaluation.parquet").read_bytes())
    ).to_pandas()
    return frame.set_index("timestamp")


# --- predicting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("overrides", [{}, RAW], ids=["fuzzy", "raw and normalized"])
def test_it_says_of_the_training_bars_exactly_what_the_training_said(
    bars: pd.DataFrame, tmp_path: Path, overrides: dict[str, Any], threads: int
) -> None:
    directory = write_model(job(bars, tmp_path, overrides=overrides), tmp_path / "model")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = load_model(directory).predict(bars)
    finally:
        torch.set_num_threads(before)
    expected = evaluated(directory)
    assert list(found.columns) == ["BUY", "HOLD", "SELL"]
    for name in found.columns:
        assert (found.loc[expected.index, name] == expected[f"p_{name}"]).all()


def test_a_regression_gives_the_values_of_the_training(bars: pd.DataFrame, tmp_path: Path) -> None:
    directory = write_model(job(bars, tmp_path, overrides=REGRESSION), tmp_path / "model")
    found = load_model(directory).predict(bars)
    expected = evaluated(directory)
    assert list(found.columns) == ["value"]
    assert (found.loc[expected.index, "value"] == expected["prediction"]).all()


def test_every_bar_after_the_warm_up_has_an_answer(model: LoadedModel, bars: pd.DataFrame) -> None:
    found = model.predict(bars)
    assert (found.index == bars.index[33:]).all()
    assert found.index.name == "timestamp"
    assert found.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-6)


def test_an_answer_does_not_depend_on_later_bars(model: LoadedModel, bars: pd.DataFrame) -> None:
    whole = model.predict(bars)
    for rows in (34, 500, 1000):
        part = model.predict(bars.iloc[:rows])
        pd.testing.assert_frame_equal(part, whole.iloc[: rows - 33])


def test_coarser_bars_are_made_where_they_are_not_given(eurusd: pd.DataFrame, tmp_path: Path) -> None:
    bars = eurusd.iloc[:2500]
    directory = write_model(job(bars, tmp_path, TWO_TIMEFRAMES, coarser="4h"), tmp_path / "model")
    model = load_model(directory)
    coarse = resample(bars, Timeframe.parse("1h"), Timeframe.parse("4h"))
    made = model.predict(bars)
    pd.testing.assert_frame_equal(made, model.predict({"1h": bars}))
    pd.testing.assert_frame_equal(made, model.predict({"4h": coarse, "1h": bars}))
    expected = evaluated(directory)
    assert (made.loc[expected.index, "BUY"] == expected["p_BUY"]).all()


def test_further_columns_another_order_whole_numbers_and_other_zones_are_fine(
    model: LoadedModel, bars: pd.DataFrame
) -> None:
    other = bars.assign(spread=0.1, volume=1000)[["spread", "volume", "close", "low", "high", "open"]]
    other.index = pd.DatetimeIndex(other.index).tz_convert("America/New_York").as_unit("ns")
    before = other.copy()
    found = model.predict(other)
    assert np.array_equal(found.to_numpy(), model.predict(bars).to_numpy())
    assert (found.index == bars.index[33:]).all()
    pd.testing.assert_frame_equal(other, before)


def test_predicting_draws_nothing_and_changes_nothing(directory: Path, bars: pd.DataFrame) -> None:
    state = torch.get_rng_state()
    model = load_model(str(directory))
    first = model.predict(bars)
    pd.testing.assert_frame_equal(model.predict(bars), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_link_to_the_latest_version_is_followed(directory: Path) -> None:
    link = directory.parent / "EURUSD_1h_latest"
    link.symlink_to(directory.name)
    assert load_model(link).metadata == load_model(directory).metadata


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda bars: bars.drop(columns=["close", "volume"]), "lack the columns close, volume"),
        (lambda bars: bars.rename(columns={"close": "Close"}), "lack the columns close; they have .*Close"),
        (lambda bars: bars.astype({"close": str}).replace({"close": {"1.05227": "x"}}), "not numbers"),
        (lambda bars: pd.concat([bars, bars[["close"]]], axis=1), "a column twice"),
        (lambda bars: bars.tz_localize(None), "time zone|UTC"),
        (lambda bars: bars.reset_index(drop=True), "time"),
        (lambda bars: bars.iloc[::-1], "out of order"),
        (lambda bars: pd.concat([bars, bars.iloc[-1:]]), "double times"),
        (lambda bars: bars.assign(high=bars["low"] * 0.9), "high below another price"),
        (lambda bars: bars.assign(close=bars["close"].where(bars.index != bars.index[50])), "missing"),
        (lambda bars: bars.iloc[:0], "no bars"),
        (lambda bars: bars.iloc[:20], "(?i)indicator 'macd' needs at least"),
        (lambda bars: bars.iloc[:33], "No bar has a value for every feature|needs at least"),
        (lambda bars: bars["close"], "Series, not a DataFrame"),
        (lambda bars: {"4h": bars}, "needs bars of 1h; given: 4h"),
        (lambda bars: {"1h": bars, "1d": bars}, "needs bars of 1h; given: 1h, 1d"),
        (lambda bars: {}, "given: none"),
        (
            lambda bars: bars.set_axis(pd.date_range("2020", periods=len(bars), freq="min", tz="UTC")),
            "closer",
        ),
    ],
)
def test_bars_that_are_none_are_refused(
    model: LoadedModel, bars: pd.DataFrame, change: Callable[[pd.DataFrame], Any], match: str
) -> None:
    with pytest.raises(DataError, match=match):
        model.predict(change(bars))


# --- loading ---------------------------------------------------------------------------------------


def change_metadata(directory: Path, **fields: Any) -> None:
    path = directory / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def replace_weights(
    directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    """Write other weights, and the metadata to go with them."""
    path = directory / "model.safetensors"
    path.write_bytes(save(change(load(path.read_bytes()))))
    change_metadata(directory, weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def flip_a_bit(directory: Path) -> None:
    path = directory / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def not_safetensors(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"\x80\x04pickle")
    change_metadata(directory, weights_sha256=hashlib.sha256(b"\x80\x04pickle").hexdigest())


def other_strategy(directory: Path, old: str, new: str) -> None:
    path = directory / "strategy.yaml"
    path.write_text(path.read_text().replace(old, new))
    change_metadata(directory, strategy_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("tamper", "match"),
    [
        (flip_a_bit, "model.safetensors has the SHA-256"),
        (not_safetensors, "has not the weights of this network"),
        (lambda d: replace_weights(d, lambda w: {k: t for k, t in w.items() if k != "0.bias"}), "0.bias"),
        (lambda d: replace_weights(d, lambda w: {**w, "9.bias": torch.ones(1)}), "9.bias"),
        (lambda d: replace_weights(d, lambda w: {k: t[:2].clone() for k, t in w.items()}), "size mismatch"),
        (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda d: (d / "strategy.yaml").unlink(), "strategy.yaml is missing"),
        (lambda d: (d / "metadata.json").unlink(), "metadata.json is missing"),
        (lambda d: (d / "metadata.json").write_text("{"), "metadata.json is not valid"),
        (lambda d: (d / "metadata.json").write_text("[]"), "metadata.json is not valid"),
        (lambda d: (d / "metadata.json").write_bytes(b"\xff\xfe"), "metadata.json is not valid"),
        (lambda d: change_metadata(d, seed="x"), "metadata.json is not valid: seed"),
        (lambda d: change_metadata(d, extra=1), "metadata.json is not valid: extra"),
        (lambda d: change_metadata(d, metadata_version=99), "has version 99"),
        (lambda d: change_metadata(d, resolved_features=["1h_rsi_oversold"]), "other features"),
        (lambda d: change_metadata(d, classes=["BUY", "SELL"]), "other classes"),
        (lambda d: change_metadata(d, overrides={"indicators.rsi_14.period": "x"}), "cannot be used"),
        (lambda d: (d / "strategy.yaml").write_text("name: other"), "strategy.yaml has the SHA-256"),
        (lambda d: other_strategy(d, "name: eurusd_momentum", "nam: x"), "strategy.yaml cannot be used"),
    ],
)
def test_files_that_are_not_what_was_persisted_are_refused(
    directory: Path, tamper: Callable[[Path], object], match: str
) -> None:
    load_model(directory)
    tamper(directory)
    with pytest.raises(ModelCorruptError, match=match) as caught:
        load_model(directory)
    assert caught.value.fix


def test_where_there_is_no_model_it_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelNotFoundError, match="There is no model in") as caught:
            load_model(path)
        assert caught.value.fix
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        load_model(tmp_path / "file")


def test_a_model_of_another_seed_answers_differently(
    model: LoadedModel, bars: pd.DataFrame, tmp_path: Path
) -> None:
    other = load_model(write_model(replace(job(bars, tmp_path), seed=99), tmp_path / "model"))
    assert not other.predict(bars).equals(model.predict(bars))
    assert repr(other) == "LoadedModel(eurusd_momentum EURUSD 1h)"


def test_bars_of_a_coarser_base_timeframe_see_the_finer_ones_that_have_closed(
    eurusd: pd.DataFrame, tmp_path: Path
) -> None:
    bars = eurusd.iloc[:2500]
    overrides = {"training_data.timeframes.base_timeframe": "4h", "training.epochs": 1}
    directory = write_model(job(bars, tmp_path, TWO_TIMEFRAMES, overrides, coarser="4h"), tmp_path / "model")
    model = load_model(directory)
    coarse = resample(bars, Timeframe.parse("1h"), Timeframe.parse("4h"))
    made = model.predict({"1h": bars})
    assert set(made.index) <= set(coarse.index)
    expected = evaluated(directory)
    assert (made.loc[expected.index, "BUY"] == expected["p_BUY"]).all()

    # Whatever comes after the close of a 4h bar changes nothing of it; its own last hour does.
    last = made.index[-40]
    close = last + pd.Timedelta(hours=4)
    later = bars.copy()
    later.loc[later.index >= close, ["open", "high", "low", "close"]] *= 1.1
    pd.testing.assert_frame_equal(model.predict({"1h": later}).loc[:last], made.loc[:last])
    within = bars.copy()
    within.loc[within.index == close - pd.Timedelta(hours=1), ["open", "high", "low", "close"]] *= 1.1
    assert not model.predict({"1h": within}).loc[last].equals(made.loc[last])


def test_a_base_timeframe_cannot_be_made_of_a_coarser_one(eurusd: pd.DataFrame, tmp_path: Path) -> None:
    bars = eurusd.iloc[:2500]
    directory = write_model(job(bars, tmp_path, TWO_TIMEFRAMES, coarser="4h"), tmp_path / "model")
    coarse = resample(bars, Timeframe.parse("1h"), Timeframe.parse("4h"))
    with pytest.raises(DataError, match="needs bars of 1h, 4h; given: 4h"):
        load_model(directory).predict({"4h": coarse})
