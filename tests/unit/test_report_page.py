"""The report as a browser gets it."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from plotly.offline import get_plotlyjs

from ktrdr.models.bundle import STRATEGY_FILE
from ktrdr.models.report import ReportContext, render_report
from tests.unit.report_cases import CONTEXT, STRATEGY, Case, classified, regressed

VOID = {"meta", "br", "img", "link", "input", "hr"}
BOTH = [pytest.param(classified, id="classification"), pytest.param(regressed, id="regression")]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&lt;b&gt;\"'{{7*7}}%{x}$x$@up"


class Element:
    """An element, its attributes and the text directly in it."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.text = ""


class Page(HTMLParser):
    """Every element of a page; fails on one that is not closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {[element.tag for element in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].text += data

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def by_id(self, key: str) -> Element:
        (element,) = (element for element in self.elements if element.attributes.get("id") == key)
        return element

    @property
    def figures(self) -> dict[str, dict[str, object]]:
        figures: dict[str, dict[str, object]] = json.loads(self.by_id("figures").text)
        return figures

    @property
    def text(self) -> str:
        unseen = ("script", "style")
        seen = " ".join(element.text for element in self.elements if element.tag not in unseen)
        return re.sub(r"\s+", " ", seen)


def rendered(case: Case, context: ReportContext = CONTEXT) -> str:
    return render_report(case.files, context).decode()


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)


@pytest.mark.parametrize("case", BOTH)
def test_every_element_is_closed_and_every_id_is_unique(case):
    page = Page(rendered(case()))
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("case", BOTH)
def test_equal_inputs_give_equal_bytes(case):
    assert render_report(case().files, CONTEXT) == render_report(dict(case().files), CONTEXT)


@pytest.mark.parametrize("case", BOTH)
def test_nothing_is_loaded_from_anywhere(case):
    html = rendered(case())
    page = Page(html)
    for element in page.elements:
        assert "src" not in element.attributes
        assert element.attributes.get("href", "#").startswith("#")
    assert "://" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_fetched():
    page = Page(rendered(classified()))
    (policy,) = (m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    scripts = [element for element in page.all("script") if "type" not in element.attributes]
    library = zlib.decompress(base64.b64decode(page.by_id("plotting-library").text)).decode()
    assert library == get_plotlyjs()
    allowed = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (*(script.text for script in scripts), library)
    ]
    assert sorted(rules["script-src"].split()) == sorted(allowed)
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    assert rules["form-action"] == rules["base-uri"] == "'none'"


def test_plotly_is_told_not_to_offer_sending_data_to_its_maker():
    (script,) = (e for e in Page(rendered(classified())).all("script") if "type" not in e.attributes)
    assert "showSendToCloud: false" in script.text
    assert 'plotlyServerURL: ""' in script.text


@pytest.mark.parametrize("case", BOTH)
def test_every_chart_has_its_data_and_a_description(case):
    page = Page(rendered(case()))
    plots = [element for element in page.elements if "data-figure" in element.attributes]
    assert [plot.attributes["data-figure"] for plot in plots] != []
    assert {plot.attributes["data-figure"] for plot in plots} == set(page.figures)
    for plot in plots:
        assert plot.attributes["role"] == "img"
        assert len(page.by_id(plot.attributes["aria-describedby"]).text) > 20
        assert page.by_id(plot.attributes["aria-labelledby"]).text


@pytest.mark.parametrize("case", BOTH)
def test_typed_arrays_can_be_decoded_and_the_axes_of_a_trace_are_of_one_length(case):
    for figure in Page(rendered(case())).figures.values():
        for trace in figure["data"]:
            lengths = {key: _length(trace[key]) for key in ("x", "y") if key in trace}
            if trace["type"] == "heatmap":
                cells = np.array(trace["text"])
                assert cells.shape == (lengths["y"], lengths["x"] - 1)
                assert _length(trace["z"]) == cells.size
            else:
                assert lengths["x"] == lengths["y"]


def _length(values: object) -> int:
    if isinstance(values, dict):
        data = np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"]))
        return len(data)
    assert isinstance(values, list)
    return len(values)


@pytest.mark.parametrize("case", BOTH)
def test_tables_have_captions_and_links_lead_somewhere(case):
    page = Page(rendered(case()))
    assert len(page.all("caption")) == len(page.all("table"))
    for link in page.all("a"):
        assert page.by_id(link.attributes["href"].removeprefix("#"))


def test_the_page_says_what_the_metadata_says():
    case = classified()
    page = Page(rendered(case))
    metadata = case.metadata
    expected = [
        "eurusd_momentum/EURUSD_1h_v3",
        "op_0198c0de",
        "embedded",
        "2026-03-04 05:06 UTC",
        metadata.weights_sha256,
        metadata.strategy_sha256,
        metadata.datasets[0].blob.sha256,
        *(hashlib.sha256(content).hexdigest() for content in case.files.values()),
        *metadata.resolved_features,
        "training.epochs",
        "412.0 MB",
        "1.84 s",
        "0.6.4",
        "zscore: offset 0.0001, scale 0.0021",
        f"{metadata.best_epoch} of {len(metadata.history)}",
        "period 14",
        f"{100 * metadata.test_metrics['accuracy']:.1f} %",
        f"{100 * metadata.baselines['majority_class']['accuracy']:.1f} %",
    ]
    text = page.text.replace("\u00a0", " ")
    assert [wanted for wanted in expected if wanted not in text] == []


def test_the_confusion_matrix_is_the_metadatas():
    case = classified()
    (table,) = re.findall(r'<table class="confusion">.*?</table>', rendered(case), re.S)
    counts = [int(text.replace("\u202f", "")) for text in re.findall(r"<strong>(.*?)</strong>", table)]
    assert counts == [count for line in case.metadata.confusion for count in line]


def test_the_strategy_is_shown_line_by_line_as_it_is():
    html = rendered(classified())
    (source,) = re.findall(r'<pre class="source".*?</pre>', html, re.S)
    page = Page(source)
    lines = [element for element in page.all("span") if element.attributes["class"] == "line"]
    assert len(lines) == STRATEGY.count("\n")
    shown = re.sub(r"<[^>]+>", "", source).replace("&#34;", '"')
    assert shown.strip("\n") == STRATEGY.strip("\n")


def test_a_class_keeps_its_colour_in_every_chart_and_table():
    page = Page(rendered(classified()))
    colours = {
        trace["marker"]["color"] if trace["type"] == "bar" else trace["line"]["color"]
        for figure in page.figures.values()
        for trace in figure["data"]
        if trace.get("name") == "SELL"
    }
    assert colours == {"@down"}
    swatches = {
        e.attributes["style"] for e in page.all("span") if e.text == "SELL" and "style" in e.attributes
    }
    assert swatches == {"--role: var(--down)"}


@pytest.mark.parametrize("case", BOTH)
def test_every_colour_of_a_chart_is_defined_for_light_and_dark(case):
    page = Page(rendered(case()))
    style = page.all("style")[0].text
    light, dark = style.split("prefers-color-scheme: dark", 1)
    roles = {
        text[1:].split("/")[0]
        for text in strings(page.figures)
        if re.fullmatch(r"@[a-z0-9-]+(/[0-9.]+)?", text)
    }
    assert roles
    for role in roles:
        # The script takes hexadecimal colours apart.
        assert re.search(rf"--{role}: #[0-9a-f]{{6}};", light)
        assert re.search(rf"--{role}: #[0-9a-f]{{6}};", dark)


def hostile_case() -> Case:
    case = classified((f"BUY{HOSTILE}", "HOLD", "SELL"))
    features = [feature.model_dump() for feature in case.metadata.features]
    for number, feature in enumerate(features):
        for name in ("feature_id", "indicator", "fuzzy_set", "membership"):
            if feature[name] is not None:
                feature[name] += f"{HOSTILE}{number if name != 'fuzzy_set' else ''}"
    changed = case.changed(
        strategy_name=HOSTILE,
        strategy_version=HOSTILE,
        symbol=HOSTILE,
        label_source=HOSTILE,
        label_parameters={HOSTILE: HOSTILE},
        overrides={HOSTILE: HOSTILE},
        model_type=HOSTILE,
        device=HOSTILE,
        features=features,
        test_metrics={**case.metadata.test_metrics, HOSTILE: 0.5},
        baselines={**case.metadata.baselines, HOSTILE: {"accuracy": 0.5}},
    )
    return Case({**changed.files, STRATEGY_FILE: HOSTILE.encode()}, changed.metadata, CONTEXT)


def test_hostile_names_stay_text():
    harmless, hostile = Page(rendered(classified())), Page(rendered(hostile_case()))
    assert not [
        element for element in hostile.elements if any(a.startswith("on") for a in element.attributes)
    ]
    assert len(hostile.all("script")) == len(harmless.all("script"))
    assert not hostile.all("img")
    assert HOSTILE in hostile.text


def test_hostile_names_in_the_context_stay_text():
    context = ReportContext(HOSTILE, 1, HOSTILE, CONTEXT.created_at, agent=HOSTILE, device=HOSTILE)
    page = Page(rendered(classified(), context))
    assert page.all("h1")[0].text == HOSTILE
    assert page.all("title")[0].text.startswith(HOSTILE)
    assert not page.all("img")


def test_hostile_names_are_no_markup_for_the_plotting_library():
    figures = Page(rendered(hostile_case())).figures
    for text in strings(figures):
        assert "<img" not in text
        assert "<script" not in text
    names = {trace.get("name") for figure in figures.values() for trace in figure["data"]}
    assert any(name and "&lt;img" in name for name in names)
    templates = [
        trace["hovertemplate"]
        for figure in figures.values()
        for trace in figure["data"]
        if "hovertemplate" in trace
    ]
    assert not [template for template in templates if "alert" in template]


def test_json_in_the_page_has_no_character_that_could_end_the_script():
    html = rendered(hostile_case())
    (raw,) = re.findall(r'id="figures">(.*?)</script>', html, re.S)
    assert not set("<>&\u2028\u2029") & set(raw)


def test_rendering_needs_neither_torch_nor_pandas(tmp_path: Path):
    for name, content in classified().files.items():
        (tmp_path / name).write_bytes(content)
    program = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from ktrdr.models.report import ReportContext, render_report
files = {path.name: path.read_bytes() for path in Path(sys.argv[1]).iterdir()}
render_report(files, ReportContext("a/b_v1", 1, "op", datetime.now(UTC)))
print([name for name in ("torch", "pandas", "talib", "plotly.graph_objects") if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_a_report_without_timings_agent_or_memory_leaves_them_out():
    context = ReportContext("a/b_v1", 1, "op-1", CONTEXT.created_at)
    text = Page(rendered(classified(), context)).text
    for heading in ("Time by stage", "Agent", "Peak memory"):
        assert heading not in text
    assert "cpu, 1 thread" in text


def test_a_model_with_raw_features_only_has_no_fuzzy_sets_to_draw():
    case = regressed()
    raw = case.changed(features=[case.metadata.features[-1].model_dump()])
    assert not [key for key in Page(rendered(raw)).figures if key.startswith("chart-set")]


def test_a_model_that_was_trained_for_one_epoch_has_a_report():
    case = classified()
    short = case.changed(history=[case.metadata.history[0].model_dump()], best_epoch=1, stopped_early=False)
    loss = Page(rendered(short)).figures["chart-loss"]
    assert loss["data"][0]["mode"] == "markers"


def test_the_size_hardly_grows_with_the_rows():
    small, large = (
        len(render_report(case.files, CONTEXT)) for case in (classified(), _repeated(classified(), 200_000))
    )
    assert small < 2_600_000
    assert large < small + 300_000


def test_what_is_left_out_of_a_chart_is_said():
    summary = Page(rendered(_repeated(classified(), 200_000))).by_id("chart-timeline-1-summary").text
    assert "lowest and highest close of every 50 rows" in summary
    assert re.search(r"\b2[56] rows share a cell", summary)


def _repeated(case: Case, rows: int) -> Case:
    """Return a case of so many rows, each of the original ones many times in a row."""
    table = case.evaluation
    numbers = np.sort(np.arange(rows) % len(table))
    minutes = np.datetime64("2000-01-01", "us") + np.arange(rows) * np.timedelta64(60_000_000, "us")
    longer = table.take(pa.array(numbers)).set_column(0, "timestamp", pa.array(minutes))
    counts = {value["values"]: value["counts"] for value in longer["part"].value_counts().to_pylist()}
    split = case.metadata.split.model_dump()
    for part, part_rows in counts.items():
        split[part]["rows"] = part_rows
    return case.changed(split=split).with_evaluation(longer)
