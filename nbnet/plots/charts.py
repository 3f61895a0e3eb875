"""Charts: learning curves, the losses of a range test, the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.errors import DataError, DTypeError, ShapeError
from nbnet.plots.figures import FAINT, INK, TRAIN, VALIDATION, axes_grid, drawn_name, finished

CELLS = 30  # up to this many classes, counts are written into the cells of a confusion matrix
PANELS = 3  # learning curves side by side


def curves(history: Mapping[str, Sequence[float]], path: str | Path | None = None, *, ax: Any = None) -> Any:
    """Draw loss, accuracy and the metrics by epoch, training and validation, side by side.

    Args:
        history: as Trainer.fit returns it; all columns but lr and seconds are drawn, a column beside the one with "val_" before its name.
        path: the file to write; its suffix sets the format. ax: Matplotlib axes to draw into; None makes a figure.
    Returns:
        the figure.
    Raises:
        DataError: the history is empty, or the file cannot be written.
    """
    names = dict.fromkeys(["loss", "accuracy", *(name.removeprefix("val_") for name in history if name not in ("lr", "seconds"))])
    panels = [name for name in names if history.get(name) or history.get(f"val_{name}")]
    if not panels:
        raise DataError(f"the history has {', '.join(history) or 'no column'}: expected at least one epoch of loss or accuracy")
    drawn = {name: _numbers(history, name) for panel in panels for name in (panel, f"val_{panel}")}
    columns, rows = min(len(panels), PANELS), -(-len(panels) // PANELS)
    made, grid = axes_grid(ax, 5.2 * columns, 3.9 * rows, rows, columns)
    places = grid.reshape(-1)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, name in zip(places, panels):
        for column, label, colour in ((name, "training", TRAIN), (f"val_{name}", "validation", VALIDATION)):
            values = drawn[column]
            if np.isfinite(values).any():
                _curve(axes, values, label, colour, "{:.1%}" if _is_share(name) else "{:.3g}")
        _dress(axes, name)
    return finished(made, path)


def _numbers(history: Mapping[str, Sequence[float]], name: str) -> np.ndarray:
    try:
        return np.asarray(history.get(name, ()), np.float64)
    except (ValueError, TypeError):
        wrong = next((value for value in history[name] if not isinstance(value, Real)), history[name])
        raise DataError(f"the history has {wrong!r} in {name}, expected numbers") from None


def _is_share(name: str) -> bool:
    """Whether a metric is drawn in percent."""
    return name.endswith("accuracy") or name in ("precision", "recall", "f1")


def _curve(axes: Any, values: np.ndarray, label: str, colour: str, form: str) -> None:
    epochs = np.arange(1, len(values) + 1)
    last = np.flatnonzero(np.isfinite(values))[-1]
    text = form.format(values[last]).replace("%", " %")
    axes.plot(epochs, values, color=colour, linewidth=1.8, label=f"{label}, {text} at the end")
    axes.plot(epochs[last], values[last], "o", color=colour, markersize=5)


def _dress(axes: Any, name: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    drawn = np.concatenate([line.get_ydata() for line in axes.get_lines()] or [np.zeros(0)])
    drawn = drawn[np.isfinite(drawn)]
    if _is_share(name):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    elif drawn.size and drawn.min() > 0 and drawn.max() > 20 * drawn.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_title(name, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel("epoch")
    axes.grid(True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def rates(rates: np.ndarray, losses: np.ndarray, path: str | Path | None = None, *, ax: Any = None) -> Any:
    """Draw the losses of a learning rate range test, and their moving average (weight of the old one 0.8, corrected for its start).

    Args:
        rates, losses: (steps,); what is not finite is left out. path, ax: as of `curves`.
    Returns:
        the figure.
    Raises:
        ShapeError: rates and losses do not fit. DataError: there is no loss, or the file cannot be written.
    """
    rates, losses = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    if losses.ndim != 1 or rates.shape != losses.shape:
        raise ShapeError(f"rates {rates.shape} and losses {losses.shape}: expected one loss for each rate, (steps,)")
    finite = np.isfinite(losses)
    rates, losses = rates[finite], losses[finite]
    if not losses.size:
        raise DataError("there are no finite losses, expected those of at least one step")
    weights = 0.8 ** np.arange(losses.size)
    smooth = np.convolve(losses, weights)[: losses.size] / np.cumsum(weights)
    made, [[axes]] = axes_grid(ax, 5.6, 3.9)
    axes.plot(rates, losses, color=FAINT, linewidth=0.8, label="loss of a batch")
    axes.plot(rates, smooth, color=TRAIN, linewidth=1.8, label="moving average")
    axes.set_xscale("log")
    low, high = smooth.min(), max(smooth[0], smooth.min() + 1e-12)
    axes.set_ylim(low - 0.2 * (high - low), high + 0.6 * (high - low))
    axes.set_title("loss", loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel("learning rate")
    axes.grid(True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return finished(made, path)


def confusion(matrix: np.ndarray, class_names: Sequence[str], path: str | Path | None = None, *, ax: Any = None) -> Any:
    """Draw a confusion matrix: counts, shaded by the share of the true class (blue is right, orange is wrong), and recalls.

    Args:
        matrix: (C, C) counts, one row per true class, one column per predicted class. class_names: C names.
        path, ax: as of `curves`.
    Returns:
        the figure.
    Raises:
        ShapeError: matrix and names do not fit. DTypeError, DataError: the matrix has no counts, or the file cannot be written.
    """
    matrix = np.asarray(matrix)
    classes = len(class_names)
    if matrix.shape != (classes, classes) or not classes:
        hint = "one row and one column per class name, and at least one class"
        raise ShapeError(f"matrix has shape {matrix.shape}, expected ({classes}, {classes}): {hint}")
    if matrix.dtype.kind not in "biuf":
        raise DTypeError(f"matrix has dtype {matrix.dtype}, expected counts, as nb.metrics.confusion_matrix returns them")
    counts = np.isfinite(matrix) & (matrix >= 0)
    if not counts.all():
        raise DataError(f"matrix has {matrix[~counts][0]}, expected counts, at least 0")
    rows = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    names = [drawn_name(name) for name in class_names]
    longest = max(len(name) for name in names)
    side = min(max(3.0, 0.52 * classes), 16.0)
    made, [[axes]] = axes_grid(ax, side + 1.9 + 0.09 * longest, side + 1.2 + (0.06 * longest if longest > 2 else 0))
    axes.imshow(_shades(share))
    size = 10 if classes <= 12 else 8 if classes <= CELLS else max(3, 240 // classes)
    crowded = 0.009 * size * longest > side / classes  # inches: a letter is about 0.65 times as wide as its size in points
    turn: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(range(classes), names, fontsize=size, **turn)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="#ececec", linewidth=1.0)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(classes), [f"{100 * share[i, i]:.1f} %" if rows[i] else "none" for i in range(classes)], fontsize=size)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    right.set_ylabel("recall of the class", fontsize=9, color=FAINT)
    if classes <= CELLS:
        _write_counts(axes, matrix, share, size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    total, hits = int(matrix.sum()), int(np.trace(matrix))
    accuracy = f"{100 * hits / total:.2f} % right: {hits:,} of {total:,}" if total else "no images"
    axes.set_title(accuracy, loc="left", fontsize=12, fontweight="bold", color=INK)
    return finished(made, path)


def _shades(share: np.ndarray) -> np.ndarray:
    """(C, C, 4) colours: hits blue, mistakes orange. The square root keeps single mistakes visible next to hundreds of hits."""
    from matplotlib import colormaps

    depth = np.sqrt(share)
    hits, misses = colormaps["Blues"](0.85 * depth), colormaps["Oranges"](0.75 * depth)
    return np.where(depth[..., None] == 0, 1.0, np.where(np.eye(len(share), dtype=bool)[..., None], hits, misses))


def _write_counts(axes: Any, matrix: np.ndarray, share: np.ndarray, size: float) -> None:
    for i, j in np.ndindex(*matrix.shape):
        count = int(matrix[i, j])
        colour = "#c4ccd4" if not count else "white" if share[i, j] > 0.45 else INK
        axes.text(j, i, f"{count:,}" if count else "·", ha="center", va="center", fontsize=size, color=colour)
