"""What the demonstrations' pictures share: colours for colour-blind readers, medians with their spread, labelled axes.

Matplotlib's object interface alone, as in nbnet.plots.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nbnet import plots
from nbnet.plots import save as save

# Okabe and Ito 2008, "Color universal design"
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, FAINT, GRID = "#222222", "#7a7a7a", "#e6e6e6"
DPI = 120


def figure(width: float, height: float) -> Any:
    """A matplotlib figure of this size in inches, without a window."""
    return plots.figure(width, height, DPI)


def band(axes: Any, x: Any, runs: Any, label: str | None, colour: str, line: str = "-", shade: bool = True) -> None:
    """Draw the median of the runs (S, T) over x (T,), and their range."""
    runs = np.asarray(runs, np.float64)
    axes.plot(x, np.median(runs, axis=0), line, color=colour, linewidth=1.9, label=label)
    if shade and len(runs) > 1:
        axes.fill_between(x, runs.min(axis=0), runs.max(axis=0), color=colour, alpha=0.18, linewidth=0)


def dots(axes: Any, place: float, values: Any, colour: str, label: str | None = None, width: float = 0.3) -> None:
    """One dot per seed around x = place, and a bar at their median."""
    values = np.asarray(values, np.float64)
    offsets = np.linspace(-0.5, 0.5, len(values)) * width if len(values) > 1 else np.zeros(1)
    axes.plot(place + offsets, values, "o", color=colour, markersize=5.5, alpha=0.75, markeredgewidth=0, label=label)
    axes.plot([place - width, place + width], [np.median(values)] * 2, color=colour, linewidth=2.4, solid_capstyle="butt")


def dress(axes: Any, title: str, x: str = "", y: str = "", legend: str | bool = False) -> None:
    """Title, axis labels, a light grid; `legend` is its position, or False."""
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK)
    axes.set_xlabel(x, fontsize=10.5)
    axes.set_ylabel(y, fontsize=10.5)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(loc=legend, frameon=True, framealpha=0.9, edgecolor="none", fontsize=9.5)


def percent(axes: Any) -> None:
    """Show shares on the y axis in per cent."""
    from matplotlib.ticker import FuncFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def plain_log(axis: Any) -> None:
    """A logarithmic axis with numbers such as 0.05 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


# -------------------------------------------------------------------------------------------------------- words


def spread(values: Iterable[float]) -> dict[str, Any]:
    """One quantity over the seeds: median, least, most, mean, standard deviation (of one seed: 0), and each value."""
    each = [float(value) for value in values]
    middle = {"median": float(np.median(each)), "min": min(each), "max": max(each)}
    return middle | {"mean": float(np.mean(each)), "deviation": float(np.std(each, ddof=min(1, len(each) - 1))), "seeds": each}


def said(values: Iterable[float], form: str = "{:.3g}", unit: str = "") -> str:
    """ "0.31 (0.29 to 0.35)": the median, and the range over the seeds where there are several. A percentage takes "{:.1%}"."""
    each = list(values)
    middle, low, high = (form.format(value).removesuffix("%") for value in (np.median(each), min(each), max(each)))
    unit = " %" if form.endswith("%}") else f" {unit}" if unit else ""
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low} to {high})"


def at_seeds(truths: Sequence[bool]) -> str:
    """ "at all 5 seeds", "at 3 of 5 seeds"."""
    count, total = sum(bool(truth) for truth in truths), len(truths)
    if total == 1:
        return "at the one seed" if count else "not at the one seed"
    return f"at all {total} seeds" if count == total else f"at none of {total} seeds" if not count else f"at {count} of {total} seeds"
