"""Images of a data set: those that a model gets wrong, and what training sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.errors import NbnetError, ShapeError
from nbnet.plots.figures import INK, TRAIN, axes_grid, finished, short_name
from nbnet.preprocessing import check_labels

SHOWN = 24  # mistakes
COLUMNS = 6


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
        ShapeError: the arrays do not fit. DTypeError, DataError: a label is not a class, or the file cannot be written.
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
        return finished(_nothing_wrong(count, ax), path)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    height, width = images.shape[1:3]
    aspect = min(max(height / width, 0.4), 2.5)
    made, grid = axes_grid(ax, max(1.75 * columns, 6.4), rows * (1.5 * aspect + 0.55) + 0.55, rows, columns)
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
            names = f"{short_name(class_names[labels[i]])} → {short_name(class_names[predictions[i]])}"
            axes.set_title(f"{names}\n{100 * confidence[i]:.0f} %", fontsize=9, color=INK, linespacing=1.15)
    return finished(made, path)


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
    made, grid = axes_grid(ax, 1.05 * len(columns), 1.05 * aspect * len(images) + 0.3, len(images), len(columns))
    for place, axes in enumerate(grid.flat):
        row, column = divmod(place, len(columns))
        axes.set_axis_off()
        axes.imshow(pictures[column, row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if row == 0:
            axes.set_title(f"epoch {column}" if column else "image", fontsize=9, color=INK)
    return finished(made, path)


def _nothing_wrong(count: int, ax: Any) -> Any:
    made, [[axes]] = axes_grid(ax, 5.6, 2.2)
    axes.set_axis_off()
    place: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.58, "no mistakes", fontsize=20, fontweight="bold", color=TRAIN, **place)
    axes.text(0.5, 0.3, f"all {count:,} images were classified right", fontsize=11, color=INK, **place)
    return made
