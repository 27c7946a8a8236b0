"""`ktrdr models`: trained versions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ktrdr.cli.output import EXIT_FAILED, JsonOption, ago, err, out, print_json, reporting_errors, size, table
from ktrdr.cli.settings import DataOption, installation_for

if TYPE_CHECKING:
    from ktrdr.client.port import Installation

app = typer.Typer(help="Models: list, show, verify, download, predict.", no_args_is_help=True)

_PAGE = 1000

NameArgument = Annotated[
    str,
    typer.Argument(
        help="As in `eurusd_momentum/EURUSD_1h_v3`, `…_latest`, or only the strategy: its newest."
    ),
]


@app.command("list")
def list_models(
    context: typer.Context,
    strategy: Annotated[str | None, typer.Option(help="Only those of this strategy.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, max=1000, help="At most so many.")] = 20,
    before: Annotated[str | None, typer.Option(help="Only those older than this one: the next page.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List model versions, newest first."""
    with reporting_errors(as_json=as_json):
        installation = installation_for(context)
        models = installation.list_models(strategy=strategy, limit=limit, before=before)
    if as_json:
        from ktrdr.cli.training_view import model_as_json

        print_json([model_as_json(model, installation.place_of(model.name)) for model in models])
        return
    if not models:
        err.print("No models yet. Train one: ktrdr train STRATEGY")
        return
    now = datetime.now(UTC)
    listing = table("model", ">test metric", ">majority", ">epochs", ">seed", ">age")
    for model in models:
        manifest = model.manifest
        metric = "accuracy" if "accuracy" in manifest.metrics else "sign_accuracy"
        baseline = manifest.metrics.get(f"baseline_majority_class_{metric}")
        listing.add_row(
            model.name,
            f"{metric.replace('_', ' ')} {manifest.metrics.get(metric, float('nan')):.1%}",
            f"{baseline:.1%}" if baseline is not None else "–",
            str(manifest.epochs_trained),
            str(manifest.seed),
            ago(model.created_at, now),
        )
    out.print(listing)
    if len(models) == limit:
        err.print(f"Older ones: ktrdr models list --before {models[-1].name}", style="dim")


@app.command()
def show(context: typer.Context, model: NameArgument, as_json: JsonOption = False) -> None:
    """Show one version: metrics against baselines, hashes, where its files are."""
    with reporting_errors(as_json=as_json):
        from ktrdr.cli.training_view import model_as_json, print_model

        installation = installation_for(context)
        record = installation.model(model)
    place = installation.place_of(record.name)
    if as_json:
        print_json(model_as_json(record, place))
    else:
        print_model(record, place, title=record.name)


@app.command()
def verify(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="One model; default: all of them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute the hash of every file and compare with what was persisted; exit status 1 on a difference."""
    with reporting_errors(as_json=as_json):
        installation = installation_for(context)
        names = [installation.model(model).name] if model is not None else _all_names(installation)
        found = {name: installation.verify(name) for name in names}
    bad = sum(1 for findings in found.values() if findings)
    if as_json:
        print_json(
            {
                name: [{"file": finding.file, "problem": finding.problem} for finding in findings]
                for name, findings in found.items()
            }
        )
    else:
        for name, findings in found.items():
            out.print(Text("✗ " if findings else "✓ ", style="red" if findings else "green") + Text(name))
            for finding in findings:
                out.print(Text(f"    {finding.file}: {finding.problem}"), soft_wrap=True)
        count = len(names)
        summary = f"{count} model{'s' if count != 1 else ''} verified, {bad} with differences."
        err.print(summary if names else "No models to verify.")
    if bad:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def download(
    context: typer.Context,
    model: NameArgument,
    to: Annotated[
        Path, typer.Option("--to", help="Directory below which it is put.", metavar="DIR")
    ] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Fetch the files of a version and its report into DIR/STRATEGY/VERSION, each compared with its hash.

    It appears there when it is complete; what was interrupted leaves nothing.
    """
    with reporting_errors(as_json=as_json):
        from ktrdr.client.downloading import download_model

        installation = installation_for(context)
        record = installation.model(model)
        total = sum(digest.size for digest in record.files.values())
        with _progress(record.name, total, quiet=as_json) as advance:
            path = download_model(record, to, partial(installation.read_file, record), advance)
    if as_json:
        files = {name: digest.model_dump() for name, digest in record.files.items()}
        print_json({"name": record.name, "path": str(path), "bytes": total, "files": files})
    else:
        out.print(Text(str(path)), soft_wrap=True)
        err.print(f"{record.name}: {len(record.files)} files, {size(total)}, as they were persisted.")


@app.command()
def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model name, or the path of a version directory.")],
    data: DataOption = None,
    symbol: Annotated[
        str | None, typer.Option(help="Whose bars; default: the symbol that the model was trained on.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First prediction, UTC.", metavar="DATE")] = None,
    end: Annotated[str | None, typer.Option(help="Last prediction, UTC.", metavar="DATE")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the last so many bars.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write CSV to this file instead of printing.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict with a model on bars: class probabilities, or the value of a regression, by bar."""
    with reporting_errors(as_json=as_json):
        from ktrdr.errors import DataError
        from ktrdr.models.loaded import load_model

        installation = installation_for(context)
        with installation.files_of(model) as path:
            loaded = load_model(path)
        from ktrdr.market.directory import BarDirectory
        from ktrdr.market.time_range import TimeRange
        from ktrdr.market.times import to_microseconds
        from ktrdr.settings import load_settings

        metadata = loaded.metadata
        if symbol is None and len(metadata.training_symbols) > 1:
            raise DataError(
                f"{model} was trained on {', '.join(metadata.training_symbols)}.",
                fix="Name one with --symbol; another one may be given, too.",
            )
        data_dir = data or load_settings().data_dir
        directory = BarDirectory(data_dir)
        # All earlier bars are read too: the first prediction needs them to warm up.
        bars = {
            timeframe: directory.load(symbol or metadata.symbol, timeframe, end=end)
            for timeframe in metadata.training_timeframes
        }
        predictions = loaded.predict(bars, loaded.read_context(data_dir))
        predictions = predictions.iloc[TimeRange.parse(start, None).rows(to_microseconds(predictions.index))]
        if last is not None:
            predictions = predictions.tail(last)
    if csv is not None:
        predictions.to_csv(csv, index_label="timestamp", date_format="%Y-%m-%dT%H:%M:%SZ")
        err.print(f"Wrote {len(predictions):,} predictions to {csv}")
    elif as_json:
        rows = predictions.itertuples()
        columns = list(predictions.columns)
        print_json(
            [
                {"timestamp": row[0].isoformat(), **dict(zip(columns, map(float, row[1:]), strict=True))}
                for row in rows
            ]
        )
    else:
        listing = table("bar (open, UTC)", *(f">{column}" for column in predictions.columns), "")
        shown = predictions.tail(20)
        for row in shown.itertuples():
            values = dict(zip(predictions.columns, map(float, row[1:]), strict=True))
            best = max(values, key=values.__getitem__) if len(values) > 1 else ""
            listing.add_row(f"{row[0]:%Y-%m-%d %H:%M}", *(f"{value:.4f}" for value in values.values()), best)
        out.print(listing)
        if len(shown) < len(predictions):
            err.print(f"The last {len(shown)} of {len(predictions):,}; all of them: --csv FILE or --json")


@contextmanager
def _progress(name: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how much has come; yields what is told that."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.update(task, completed=count)


def _all_names(installation: "Installation") -> list[str]:
    names: list[str] = []
    before = None
    while page := installation.list_models(strategy=None, limit=_PAGE, before=before):
        before = page[-1].name
        names += [record.name for record in page]
    return names
