"""`context_data` and `data_source` of a strategy."""

from typing import Any

import pytest
import yaml

from ktrdr.errors import Problem, StrategyError
from ktrdr.market.context import CotContext, FredContext, SymbolContext
from ktrdr.strategy import ParsedStrategy, parse_strategy
from tests.unit.training_cases import MOMENTUM

ENTRIES: list[dict[str, Any]] = [
    {"provider": "ib", "symbol": "GBPUSD", "timeframe": "4h", "instrument_type": "FOREX"},
    {"provider": "fred", "series": ["DGS2", "IRLTLT01DEM156N"], "frequency": "daily"},
    {"provider": "cftc_cot", "report": "EUR", "alignment": "forward_fill"},
]
SOURCES = [
    "GBPUSD",
    "fred_DGS2",
    "fred_IRLTLT01DEM156N",
    "yield_spread_DGS2_IRLTLT01DEM156N",
    "cot_EUR_net_pos",
    "cot_EUR_net_pct",
]


def parse(entries: Any, source: Any = "GBPUSD", *, strict: bool = False) -> ParsedStrategy:
    """Parse the sample strategy with these entries and one indicator on that source."""
    data = yaml.safe_load(MOMENTUM)
    if entries is not None:
        data["context_data"] = entries
    data["indicators"]["other_rsi"] = {"type": "rsi", "period": 14, "data_source": source}
    data["nn_inputs"].append({"raw_indicator": "other_rsi", "timeframes": "all"})
    return parse_strategy(yaml.safe_dump(data, sort_keys=False), source="s.yaml", strict=strict)


def problem(entries: Any, source: Any = "GBPUSD") -> Problem:
    with pytest.raises(StrategyError) as caught:
        parse(entries, source)
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_every_series_of_the_entries_may_be_a_source(source: str) -> None:
    strategy = parse(ENTRIES, source).strategy
    assert strategy.feature_plan.sources == {"other_rsi": source}
    assert list(strategy.context) == [source]
    assert strategy.feature_plan.feature_ids[-1] == "1h_other_rsi_raw"


def test_entries_are_what_gives_the_series() -> None:
    assert parse(ENTRIES, "GBPUSD").strategy.context["GBPUSD"] == SymbolContext("GBPUSD", "4h")
    assert parse(ENTRIES, "fred_DGS2").strategy.context["fred_DGS2"] == FredContext(
        ("DGS2", "IRLTLT01DEM156N")
    )
    assert parse(ENTRIES, "cot_EUR_net_pct").strategy.context["cot_EUR_net_pct"] == CotContext("EUR")


def test_a_single_series_needs_no_list_and_may_have_a_lag() -> None:
    entries = [{"provider": "fred", "series": "DGS2", "publication_lag": "2d"}]
    assert parse(entries, "fred_DGS2", strict=False).strategy.context["fred_DGS2"] == FredContext(
        ("DGS2",), "2d"
    )


def test_another_symbol_has_the_timeframe_of_the_labelled_bars_unless_it_says_which() -> None:
    context = parse([{"provider": "ib", "symbol": "GBPUSD"}]).strategy.context
    assert context == {"GBPUSD": SymbolContext("GBPUSD", "1h")}


def test_what_nothing_reads_is_told_and_so_are_entries_that_no_feature_needs() -> None:
    told = {warning.path: warning.message for warning in parse(ENTRIES).warnings}
    assert told["context_data.0.instrument_type"] == "has no effect: nothing depends on it"
    assert told["context_data.1.frequency"] == "has no effect: the rows are as they are in the file"
    assert told["context_data.2"] == (
        "has no effect: no feature is of an indicator with data_source cot_EUR_net_pos or cot_EUR_net_pct"
    )
    assert "context_data.0" not in told


def test_keys_of_another_provider_have_no_effect() -> None:
    entries = [{"provider": "ib", "symbol": "GBPUSD", "report": "EUR"}]
    (warning,) = parse(entries).warnings
    assert warning.path == "context_data.0.report"
    assert warning.message == "has no effect: provider ib does not read it"


@pytest.mark.parametrize(
    ("entries", "path", "message"),
    [
        (["GBPUSD"], "context_data.0", "must be a mapping with a provider, one of: cftc_cot, fred, ib"),
        ([{"symbol": "X"}], "context_data.0", "must be a mapping with a provider"),
        ([{"provider": "ib"}], "context_data.0.symbol", "is missing"),
        ([{"provider": "fred"}], "context_data.0.series", "is missing"),
        ([{"provider": "cftc_cot"}], "context_data.0.report", "is missing"),
        ([{"provider": "cftc_cot", "report": "../EUR"}], "context_data.0.report", "must match pattern"),
        ([{"provider": "fred", "series": 5}], "context_data.0.series", "must be a list, not 5"),
        ([{"provider": "fred", "series": []}], "context_data.0.series", "should have at least 1 item"),
        ([{"provider": "fred", "series": "a/b"}], "context_data.0.series.0", "must match pattern"),
        ([{"provider": "fred", "series": ["A", "A"]}], "context_data.0.series", "names a series twice"),
        (
            [{"provider": "fred", "series": "A", "publication_lag": "soon"}],
            "context_data.0.publication_lag",
            "'soon' is not a timeframe",
        ),
        (
            [{"provider": "ib", "symbol": "GBPUSD", "timeframe": "1x"}],
            "context_data.0.timeframe",
            "'1x' is not a timeframe",
        ),
        (
            [{"provider": "ib", "symbol": "GBPUSD", "alignment": "nearest"}],
            "context_data.0.alignment",
            "must be 'forward_fill', not 'nearest'",
        ),
    ],
)
def test_an_entry_that_is_wrong_is_the_only_problem(entries: Any, path: str, message: str) -> None:
    found = problem(entries)
    assert found.path == path
    assert message in found.message
    assert found.line is not None


def test_an_unknown_provider_is_told_with_those_that_there_are() -> None:
    found = problem([{"provider": "freed", "series": "A"}])
    assert found.message == "unknown provider 'freed'; available: cftc_cot, fred, ib"
    assert found.suggestion == "fred"


def test_a_misspelt_key_is_told_with_the_one_that_is_meant() -> None:
    found = problem([{"provider": "ib", "symbol": "GBPUSD", "time_frame": "1h"}])
    assert (found.path, found.suggestion) == ("context_data.0.time_frame", "timeframe")


def test_a_series_that_two_entries_give_is_a_problem() -> None:
    found = problem([{"provider": "ib", "symbol": "GBPUSD"}, {"provider": "ib", "symbol": "GBPUSD"}])
    assert (found.path, found.message) == (
        "context_data.1",
        "gives GBPUSD, which an entry before it gives too",
    )


def test_a_source_that_no_entry_gives_is_told_with_the_nearest() -> None:
    found = problem(ENTRIES, "cot_EUR_net_pc")
    assert found.path == "indicators.other_rsi.data_source"
    assert found.message.startswith("unknown series of context_data 'cot_EUR_net_pc'; available: GBPUSD, ")
    assert found.suggestion == "cot_EUR_net_pct"


@pytest.mark.parametrize("source", ["GBPUSD", 3, ["GBPUSD"]])
def test_a_source_without_context_data_is_a_problem(source: Any) -> None:
    assert "available: none" in problem(None, source).message
