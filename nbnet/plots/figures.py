"""Figures: made, shared with the user's axes, shown in notebooks, written to files."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import storage
from nbnet.errors import ArgumentError, DataError, unknown

TRAIN, VALIDATION, INK, FAINT = "#1f6f9f", "#e07b1a", "#222222", "#8a8a8a"
DPI = 130


def axes_grid(ax: Any, width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, np.ndarray]:
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


def finished(made: Any, path: str | Path | None) -> Any:
    """The figure, written to a file where there is a path."""
    if path is not None:
        save(made, path)
    return made


def short_name(name: Any, limit: int = 11) -> str:
    """The start of a name, as `drawn_name` gives it."""
    name = str(name)
    return drawn_name(name if len(name) <= limit else name[: limit - 1] + "…")


def drawn_name(name: Any) -> str:
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
