"""Loss, accuracy and learning rate by epoch."""

from collections.abc import Sequence

from ktrdr.models.metadata import EpochRecord, ModelMetadata
from ktrdr.models.report.figure import Figure, Json, Trace, axis
from ktrdr.models.report.formatting import number, percent, plain
from ktrdr.models.report.palette import colour

_HEIGHT_PX = 300


def history_figures(metadata: ModelMetadata) -> tuple[Figure, ...]:
    """Return the curves that there are: a learning rate that never changes is no curve."""
    history = metadata.history
    if not history:
        return ()
    figures = [_losses(metadata)]
    if any(record.val_accuracy is not None for record in history):
        figures.append(_accuracies(metadata))
    if len({record.learning_rate for record in history}) > 1:
        figures.append(_learning_rates(metadata))
    return tuple(figures)


def _losses(metadata: ModelMetadata) -> Figure:
    history = metadata.history
    best = _best(metadata)
    end = "stopped early, after epoch" if metadata.stopped_early else "ran to the last epoch"
    return Figure(
        key="chart-loss",
        title="Loss",
        summary=(
            f"Validation loss was lowest in epoch {best.epoch}, {number(best.val_loss)} (training "
            f"{number(best.train_loss)}), whose weights are kept; training {end} {history[-1].epoch}."
        ),
        traces=(
            _curve(history, [record.train_loss for record in history], "Training", "train", "%{y:.4~g}"),
            _curve(history, [record.val_loss for record in history], "Validation", "validation", "%{y:.4~g}"),
            {
                "type": "scatter",
                "mode": "markers",
                "x": [best.epoch],
                "y": [best.val_loss],
                "name": "Best epoch",
                "showlegend": False,
                "hoverinfo": "skip",
                "marker": {
                    "size": 9,
                    "color": colour("validation"),
                    "line": {"width": 2, "color": colour("panel")},
                },
            },
        ),
        layout=_layout("Loss", metadata),
        height_px=_HEIGHT_PX,
    )


def _accuracies(metadata: ModelMetadata) -> Figure:
    history = metadata.history
    title = "Sign accuracy" if metadata.output_type == "regression" else "Accuracy"
    best = _best(metadata)
    summary = f"In epoch {best.epoch}: validation {percent(best.val_accuracy)}"
    if best.train_accuracy is not None:
        summary += f", training {percent(best.train_accuracy)} (with dropout on)"
    traces = [
        _curve(history, [record.train_accuracy for record in history], "Training", "train", "%{y:.1%}"),
        _curve(history, [record.val_accuracy for record in history], "Validation", "validation", "%{y:.1%}"),
    ]
    majority = _majority_share(metadata)
    if majority is not None:
        summary += f"; always answering the majority class would give {percent(majority)} in validation"
        line = _curve(history, [majority] * len(history), "Majority class", "muted", "%{y:.1%}")
        traces.append({**line, "line": {"width": 1.5, "dash": "dot", "color": colour("muted")}})
    return Figure(
        key="chart-accuracy",
        title=title,
        summary=f"{summary}.",
        traces=tuple(traces),
        layout=_layout(title, metadata, tickformat=".0%"),
        height_px=_HEIGHT_PX,
    )


def _majority_share(metadata: ModelMetadata) -> float | None:
    """Return the share of validation rows that have the most usual class of the training part."""
    train, validation = (metadata.class_counts.get(part) for part in ("train", "validation"))
    if not train or not validation or not sum(validation.values()):
        return None
    majority = max(train, key=lambda label: train[label])
    return validation.get(majority, 0) / sum(validation.values())


def _learning_rates(metadata: ModelMetadata) -> Figure:
    rates = [record.learning_rate for record in metadata.history]
    return Figure(
        key="chart-learning-rate",
        title="Learning rate",
        summary=f"From {plain(rates[0])} to {plain(rates[-1])}; "
        f"{plain(_best(metadata).learning_rate)} in the best epoch.",
        traces=(
            {
                **_curve(metadata.history, rates, "Learning rate", "accent", "%{y:.3~g}"),
                "line": {"shape": "hv", "width": 2, "color": colour("accent")},
            },
        ),
        layout=_layout("Learning rate", metadata, type="log"),
        height_px=_HEIGHT_PX,
    )


def _best(metadata: ModelMetadata) -> EpochRecord:
    history = metadata.history
    return next((record for record in history if record.epoch == metadata.best_epoch), history[-1])


def _curve(
    history: Sequence[EpochRecord], values: Sequence[float | None], name: str, role: str, value: str
) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines" if len(history) > 1 else "markers",
        "x": [record.epoch for record in history],
        "y": values,
        "name": name,
        "line": {"width": 2, "color": colour(role)},
        "hovertemplate": value,
    }


def _layout(title: str, metadata: ModelMetadata, **y_axis: Json) -> dict[str, Json]:
    return {
        "hovermode": "x unified",
        "xaxis": axis("Epoch", tickformat="d", hoverformat="d"),
        "yaxis": axis(title, **y_axis),
        "shapes": _marks(metadata),
    }


def _marks(metadata: ModelMetadata) -> list[Json]:
    last = metadata.history[-1].epoch
    marks = [_mark(metadata.best_epoch, "best epoch", "validation", last)]
    if metadata.stopped_early:
        marks.append(_mark(last, "stopped early", "muted", last))
    return marks


def _mark(epoch: int, text: str, role: str, last: int) -> Json:
    return {
        "type": "line",
        "yref": "paper",
        "x0": epoch,
        "x1": epoch,
        "y0": 0,
        "y1": 1,
        "line": {"color": colour(role), "width": 1, "dash": "dash"},
        "label": {
            "text": f"{text}: {epoch}",
            "textposition": "end",
            "textangle": 0,
            "xanchor": "right" if epoch > last / 2 else "left",
            "padding": 5,
            "font": {"size": 11, "color": colour(role)},
        },
    }
