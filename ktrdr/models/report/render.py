"""The page as bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError

from ktrdr.errors import ModelCorruptError
from ktrdr.models.bundle import EVALUATION_FILE, METADATA_FILE, STRATEGY_FILE, WEIGHTS_FILE
from ktrdr.models.metadata import ModelMetadata
from ktrdr.models.report import formatting
from ktrdr.models.report.baselines import baseline_title
from ktrdr.models.report.context import ReportContext
from ktrdr.models.report.library import PlottingLibrary, csp_hash, plotting_library
from ktrdr.models.report.page import make_page
from ktrdr.models.report.rows import read_rows


def render_report(files: Mapping[str, bytes], context: ReportContext) -> bytes:
    """Return ``report.html`` of a model: one file that needs no network and no other file.

    Equal files and contexts give equal bytes.

    Args:
        files: of the model's bundle, by name; others in it are listed with their hashes.
        context: what the files do not say.

    Raises:
        ModelCorruptError: a file is missing or cannot be read, or the files contradict each other.
    """
    for name in (WEIGHTS_FILE, METADATA_FILE, STRATEGY_FILE, EVALUATION_FILE):
        if name not in files:
            raise ModelCorruptError(f"The model has no {name}.")
    try:
        metadata = ModelMetadata.model_validate_json(files[METADATA_FILE])
        strategy = files[STRATEGY_FILE].decode()
    except (ValidationError, UnicodeDecodeError) as error:
        raise ModelCorruptError(
            f"The model's {METADATA_FILE} or {STRATEGY_FILE} cannot be read: {error}"
        ) from error
    rows = read_rows(files[EVALUATION_FILE], metadata)
    page = make_page(files, metadata, strategy, rows, context)
    template = _environment().get_template("report.html.jinja")
    return template.render(page=page, assets=_assets(), metadata=metadata, context=context).encode()


@dataclass(frozen=True, slots=True)
class _Assets:
    """What is the same in every report."""

    style: Markup
    script: Markup
    library: PlottingLibrary
    security_policy: str


@cache
def _assets() -> _Assets:
    templates = _environment().loader
    assert templates is not None
    style, _, _ = templates.get_source(_environment(), "report.css")
    script, _, _ = templates.get_source(_environment(), "report.js")
    library = plotting_library()
    # The two scripts by their hashes, so that even text that got past the escaping could not run. plotly.js
    # sets styles, and needs blob: and data: for its "download as PNG".
    policy = (
        f"default-src 'none'; script-src {csp_hash(script.encode())} {library.csp_hash}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return _Assets(Markup(style), Markup(script), library, policy)  # noqa: S704 - our own files


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ktrdr.models.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "baseline": baseline_title,
        "count": formatting.count,
        "date_time": formatting.date_time,
        "duration": formatting.duration,
        "in_usual_order": formatting.in_usual_order,
        "metric": formatting.metric,
        "metric_title": lambda name: formatting.measure(name).title,
        "number": formatting.number,
        "plain": formatting.plain,
        "percent": formatting.percent,
        "size": formatting.size,
        "utc": formatting.utc,
    }
    return environment
