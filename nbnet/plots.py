"""Pictures of a run: learning curves, the confusion matrix, the mistakes.

Each function returns a Matplotlib figure, which a notebook shows, and writes it to a file where a path is given. With ax= it draws into
these axes of a figure of yours.

Only Matplotlib's object interface is used: no pyplot, no window, no global figure, and nothing is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import storage
from nbnet.errors import ArgumentError, DataError, DTypeError, NbnetError, ShapeError, unknown
from nbnet.preprocessing import check_labels

TRAIN, VALIDATION, INK, FAINT = "#1f6f9f", "#e07b1a", "#222222", "#8a8a8a"
DPI = 130
CELLS = 30  # up to this many classes, counts are written into the cells of a confusion matrix
SHOWN = 24  # mistakes
COLUMNS = 6
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
    made, grid = _panels(ax, 5.2 * columns, 3.9 * rows, rows, columns)
    places = grid.reshape(-1)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, name in zip(places, panels):
        for column, label, colour in ((name, "training", TRAIN), (f"val_{name}", "validation", VALIDATION)):
            values = drawn[column]
            if np.isfinite(values).any():
                _curve(axes, values, label, colour, "{:.1%}" if _is_share(name) else "{:.3g}")
        _dress(axes, name)
    return _done(made, path)


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
    made, [[axes]] = _panels(ax, 5.6, 3.9)
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
    return _done(made, path)


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
    names = [_text(name) for name in class_names]
    longest = max(len(name) for name in names)
    side = min(max(3.0, 0.52 * classes), 16.0)
    made, [[axes]] = _panels(ax, side + 1.9 + 0.09 * longest, side + 1.2 + (0.06 * longest if longest > 2 else 0))
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
    return _done(made, path)


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


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    path: str | Path | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw the wrongly classified images, the most confident first, each with its true and its predicted class.

    Args:
        images: (N, H, W, 1 or 3), uint8, or float from 0 to 1. labels, predictions: (N,) class numbers.
        probabilities: (N, C), as Sequential.predict_proba returns them. class_names: C names. path, ax: as of `curves`.
    Returns:
        the figure.
    Raises:
        ShapeError: the arrays do not fit. DTypeError, DataError: a label is no class, or the file cannot be written.
    """
    images, labels, predictions, probabilities = (np.asarray(array) for array in (images, labels, predictions, probabilities))
    count = labels.size
    shapes = [array.shape for array in (images, labels, predictions, probabilities)]
    expected = [(count, *shapes[0][1:3], 3 if shapes[0][3:] == (3,) else 1), (count,), (count,), (count, len(class_names))]
    if len(shapes[0]) != 4 or shapes != expected:
        raise ShapeError(f"images, labels, predictions, probabilities have shapes {shapes}: expected (N, H, W, 1 or 3), (N,), (N,), (N, C)")
    labels, predictions = (_classes(array, len(class_names), name) for array, name in ((labels, "labels"), (predictions, "predictions")))
    confidence = probabilities[np.arange(count), predictions]
    wrong = np.flatnonzero(labels != predictions)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN]
    if len(shown) == 0:
        return _done(_nothing_wrong(count, ax), path)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    height, width = images.shape[1:3]
    aspect = min(max(height / width, 0.4), 2.5)
    made, grid = _panels(ax, max(1.75 * columns, 6.4), rows * (1.5 * aspect + 0.55) + 0.55, rows, columns)
    note = "" if len(wrong) == len(shown) else f", the {len(shown)} most confident"
    title = f"{len(wrong):,} mistake{'s' if len(wrong) > 1 else ''} in {count:,} images{note}"
    title = f"{title}: true class → what the model said"
    if ax is None:
        made.suptitle(title, x=0.02, ha="left", fontsize=11, fontweight="bold", color=INK)
    else:
        ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    for place, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if place < len(shown):
            i = shown[place]
            image = images[i, ..., 0] if images.shape[3] == 1 else images[i]
            limit = 255 if images.dtype == np.uint8 else 1.0
            axes.imshow(image, cmap="gray", vmin=0, vmax=limit, interpolation="nearest")
            names = f"{_short(class_names[labels[i]])} → {_short(class_names[predictions[i]])}"
            axes.set_title(f"{names}\n{100 * confidence[i]:.0f} %", fontsize=9, color=INK, linespacing=1.15)
    return _done(made, path)


def _classes(array: np.ndarray, classes: int, name: str) -> np.ndarray:
    try:
        return check_labels(array, classes)
    except NbnetError as error:
        raise type(error)(f"{name}: {error}") from None


def augmented(images: np.ndarray, epochs: np.ndarray, path: str | Path | None = None, *, ax: Any = None) -> Any:
    """Draw images as they are, and beside them what training sees in each epoch.

    Args:
        images: (N, H, W, 1 or 3), uint8, or float from 0 to 1. epochs: (E, N, H, W, 1 or 3) float from 0 to 1, as nbnet.augment.apply
            returns them without Normalize; values outside are cut off. path, ax: as of `curves`.
    Returns:
        the figure.
    Raises:
        ShapeError: the arrays do not fit. DataError: the file cannot be written.
    """
    images, epochs = np.asarray(images), np.asarray(epochs)
    if images.ndim != 4 or images.shape[3] not in (1, 3) or epochs.shape[1:] != images.shape or not epochs.size:
        raise ShapeError(f"images have shape {images.shape} and epochs {epochs.shape}: expected (N, H, W, 1 or 3) and (E, N, H, W, 1 or 3)")
    columns = np.stack([images / (255 if images.dtype == np.uint8 else 1), *epochs])
    pictures = np.clip(columns.squeeze(-1) if images.shape[3] == 1 else columns, 0, 1)
    aspect = min(max(images.shape[1] / images.shape[2], 0.4), 2.5)
    made, grid = _panels(ax, 1.05 * len(columns), 1.05 * aspect * len(images) + 0.3, len(images), len(columns))
    for place, axes in enumerate(grid.flat):
        row, column = divmod(place, len(columns))
        axes.set_axis_off()
        axes.imshow(pictures[column, row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if row == 0:
            axes.set_title(f"epoch {column}" if column else "image", fontsize=9, color=INK)
    return _done(made, path)


def _nothing_wrong(count: int, ax: Any) -> Any:
    made, [[axes]] = _panels(ax, 5.6, 2.2)
    axes.set_axis_off()
    place: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.58, "no mistakes", fontsize=20, fontweight="bold", color=TRAIN, **place)
    axes.text(0.5, 0.3, f"all {count:,} images were classified right", fontsize=11, color=INK, **place)
    return made


def _panels(ax: Any, width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, np.ndarray]:
    """A figure and its axes (rows, columns): a new one of this size in inches, or that of `ax` with axes inside it."""
    if ax is None:
        made = figure(width, height)
        return made, made.subplots(rows, columns, squeeze=False)
    if getattr(ax, "name", None) != "rectilinear":  # what Matplotlib calls them; others are polar, 3d or maps
        expected = "Matplotlib axes with a straight x and y, such as plt.subplots()[1]"
        raise ArgumentError(f"ax is a {type(ax).__name__}, expected {expected}")
    if rows == columns == 1:
        return ax.figure, np.array([[ax]])
    ax.set_axis_off()
    inside = [[(c / columns, 1 - (r + 0.8) / rows, 0.8 / columns, 0.6 / rows) for c in range(columns)] for r in range(rows)]
    return ax.figure, np.array([[ax.inset_axes(place) for place in row] for row in inside])


def _done(made: Any, path: str | Path | None) -> Any:
    if path is not None:
        save(made, path)
    return made


def _short(name: Any, limit: int = 11) -> str:
    name = str(name)
    return _text(name if len(name) <= limit else name[: limit - 1] + "…")


def _text(name: Any) -> str:
    """A name as Matplotlib draws it: `$` does not start a formula, and what is no printable text (a file name may be any bytes) is `?`."""
    return "".join(character if character.isprintable() else "?" for character in str(name)).replace("$", r"\$")


def figure(width: float, height: float, dpi: int = DPI) -> Any:
    """A Matplotlib figure of this size in inches, drawn by Agg alone, whatever MPLBACKEND says."""
    if "matplotlib" not in sys.modules:
        _import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made: Any = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(made)
    made._repr_png_ = partial(_png, made)  # what a notebook shows; it draws figures of pyplot itself
    return made


def _png(figure: Any) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor="white")
    return picture.getvalue()


def _import_matplotlib() -> None:
    """Import it although MPLBACKEND may name what is not installed here: a notebook passes its own to the commands that it runs."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):
        if backend:
            matplotlib.rcParams["backend"] = backend  # for pyplot, as the import would have


def save(figure: Any, path: str | Path) -> None:
    """Write a Matplotlib figure with storage.write_file; the path's suffix sets the format, and without one it gets .png.

    Raises:
        DataError: the format is unknown, or the file cannot be written.
    """
    path = Path(path) if Path(path).suffix else Path(f"{path}.png")
    known = figure.canvas.get_supported_filetypes()
    kind = path.suffix[1:].lower()
    if kind not in known:
        raise DataError(f"cannot write {path}: " + unknown("format", kind, known))
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, facecolor="white")
    storage.write_file(path, picture.getvalue())
