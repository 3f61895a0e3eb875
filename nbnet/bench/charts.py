"""The report as charts: bars by backend and peer, a roofline, cost against size, cost against threads.

Matplotlib's object interface alone, as in nbnet.plots.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.bench.results import NBNET, fastest_peer
from nbnet.bench.tables import digits, seconds
from nbnet.demos import drawing

# nbnet in blues, the frameworks in other hues; one colour per contender in every chart (Okabe and Ito 2008, and two greys)
COLOURS = {
    "parallel": drawing.BLUE,
    "serial": drawing.SKY,
    "numpy": "#9db8c7",
    "cuda": "#003f66",
    "torch": drawing.RED,
    "torch-kept": drawing.ORANGE,
    "torch-compile": drawing.PURPLE,
    "jax": drawing.GREEN,
    "tensorflow": "#8a7a5c",
}
MARKS = {"parallel": "o", "serial": "o", "torch": "s", "torch-kept": "s", "torch-compile": "D", "jax": "^", "tensorflow": "v"}
COLUMNS = 4  # panels per row
OPS = {"conv2d": "o", "depthwise": "p", "groups": "h", "conv1d": "8", "batchnorm": "s", "activation": "*", "dropout": "D", "max-pool": "^"}
OPS |= {"dense": "v", "softmax": "P", "adam": "X"}


def draw(report: dict[str, Any], folder: Path) -> list[str]:
    """Draw every chart that the report has data for.

    Returns:
        the names of the files, in the folder.
    Raises:
        DataError: one cannot be written.
    """
    charts: dict[str, Callable[[dict[str, Any]], Any]] = {
        "steps.png": _draw_steps,
        "kernels.png": _draw_kernels,
        "roofline.png": _draw_roofline,
        "size.png": _draw_sizes,
        "threads.png": _draw_threads,
    }
    drawn = []
    for name, make in charts.items():
        figure = make(report)
        if figure is not None:
            drawing.save(figure, folder / name)
            drawn.append(name)
    return drawn


def _main(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["results"] if row["threads"] == report["threads"] and not row["sweep"] and row["contenders"]]


def _titles(report: dict[str, Any]) -> dict[str, str]:
    return report["titles"]


# ----------------------------------------------------------------------------------------------------------- bars


def _draw_steps(report: dict[str, Any]) -> Any:
    rows = [row for row in _main(report) if row["op"] in _STEPS]
    title = f"One training step: median time, 10th to 90th percentile, slowdown relative to nbnet ({_threads(report)})"
    return _bars(report, [(f"{_STEPS[row['op']]}, {row['size']}", row) for row in rows], title) if rows else None


_STEPS = {"five-conv": "five-conv", "mnist-cnn": "MNIST CNN", "digits-cnn": "digits CNN", "mlp": "MLP, float64"}


def _draw_kernels(report: dict[str, Any]) -> Any:
    rows = [row for row in _main(report) if row["op"] not in _STEPS]
    title = f"Kernels: median time, 10th to 90th percentile, slowdown relative to nbnet ({_threads(report)}; float32)"
    return _bars(report, [(_kernel_title(row), row) for row in rows], title) if rows else None


def _kernel_title(row: dict[str, Any]) -> str:
    part = row["part"].replace("backward_", "to ").replace("data", "input")
    return f"{row['op']}{' ' + part if part else ''}\n{row['size'].replace('-', ' → ').replace('/', ', stride ')}"


def _threads(report: dict[str, Any]) -> str:
    return f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}"


def _bars(report: dict[str, Any], panels: list[tuple[str, dict[str, Any]]], title: str) -> Any:
    """One panel per workload, one bar per contender, always in the same order; next to it the median and its ratio to nbnet's."""
    names = [name for name in _titles(report) if any(name in row["contenders"] for _, row in panels)]
    columns = min(COLUMNS if len(panels) > 6 else 3, len(panels))
    lines = -(-len(panels) // columns)
    figure = drawing.figure(max(3.7 * columns, 7.5), lines * (0.27 * len(names) + 0.72) + 0.9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=drawing.INK)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, panel in zip(grid.flat, [*panels, *[None] * (lines * columns - len(panels))]):
        if panel is None:
            axes.set_axis_off()
        else:
            _bar_panel(axes, panel[0], panel[1]["contenders"], names)
    handles = [_patch(COLOURS.get(name, drawing.FAINT), _titles(report)[name]) for name in names]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(names), 4), frameon=False, fontsize=9.5)
    return figure


def _bar_panel(axes: Any, title: str, contenders: dict[str, Any], names: list[str]) -> None:
    """Bars on the left, their numbers in two columns on the right."""
    medians = [each["median"] for each in contenders.values()]
    # A very slow contender would flatten the other bars: its bar ends at the edge with an arrow.
    limit = 1.08 * min(max(medians), 4 * float(np.median(medians)))
    for place, name in enumerate(names):
        each = contenders.get(name)
        if each is None:
            axes.text(0.02 * limit, place, "not measured", va="center", fontsize=8, color=drawing.FAINT)
            continue
        axes.barh(place, min(each["median"], limit), height=0.72, color=COLOURS.get(name, drawing.FAINT))
        if each["median"] > limit:
            axes.plot(0.97 * limit, place, ">", color="white", markersize=5)
        else:
            ends = [each["p10"], min(each["p90"], limit)]
            axes.plot(ends, [place, place], color=drawing.INK, linewidth=1.1, solid_capstyle="butt")
        style: dict[str, Any] = {"va": "center", "ha": "right", "fontsize": 8.5, "color": drawing.INK}
        style["fontweight"] = "bold" if name == NBNET else "normal"
        axes.text(1.36 * limit, place, seconds(each["median"]), **style)
        if each["ratio"] is not None:
            axes.text(1.6 * limit, place, f"{digits(each['ratio']) if each['ratio'] >= 0.1 else format(each['ratio'], '.2g')}×", **style)
    axes.set_xlim(0, 1.62 * limit)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(drawing.FAINT)
    axes.set_title(title, loc="left", fontsize=10, color=drawing.INK, linespacing=1.25)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


# ------------------------------------------------------------------------------------------------------- roofline


def _draw_roofline(report: dict[str, Any]) -> Any:
    """GFLOP/s over operations per byte: the machine's roofs, nbnet's kernels, and the fastest peer of each."""
    rows = [row for row in _main(report) if row["op"] in OPS and NBNET in row["contenders"]]
    roofs = report["floors"].get(str(report["threads"]))
    if not rows or roofs is None:
        return None
    flops = roofs["fma_float32"]["median"]
    bandwidth = max(roofs[name]["median"] for name in ("copy", "copy_streaming"))
    figure = drawing.figure(9.5, 5.8)
    axes = figure.subplots()
    intensities = np.array([row["gflop"] / row["gigabytes"] for row in rows])
    x = np.geomspace(intensities.min() / 3, max(intensities.max() * 3, 30), 200)
    axes.plot(x, np.minimum(flops, bandwidth * x), color=drawing.INK, linewidth=2)
    axes.text(1.3 * flops / bandwidth, flops * 1.07, f"FMA loop {digits(flops)} GFLOP/s", fontsize=9.5, color=drawing.INK)
    ridge = flops / bandwidth
    axes.text(0.12 * ridge, bandwidth * 0.055 * ridge, f"memory copy {digits(bandwidth)} GB/s", fontsize=9.5, color=drawing.INK)
    for row, intensity in zip(rows, intensities):
        best = fastest_peer(row["contenders"], report["peers"])
        ours = row["contenders"][NBNET]["gflops"]
        if best is not None:
            theirs = row["contenders"][best]["gflops"]
            axes.plot([intensity, intensity], [theirs, ours], color=drawing.GRID, linewidth=1.5, zorder=1)
            axes.plot(intensity, theirs, OPS[row["op"]], color=drawing.RED, markersize=6.5, markerfacecolor="white", zorder=2)
        axes.plot(intensity, ours, OPS[row["op"]], color=drawing.BLUE, markersize=8, zorder=3)
    for op in dict.fromkeys(row["op"] for row in rows):
        axes.plot([], [], OPS[op], color=drawing.BLUE, label=op)
    if report["peers"]:
        axes.plot([], [], "o", color=drawing.RED, markerfacecolor="white", label="the fastest peer at the same")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        drawing.plain_log(axis)
    title = f"Roofline: nbnet's kernels against what the machine can do ({_threads(report)}, float32)"
    drawing.dress(
        axes, title, "operations a byte that has to be moved (what stays in a cache can lie above the slope)", "GFLOP/s", "lower right"
    )
    return figure


# ----------------------------------------------------------------------------------------------- against size, threads


def _draw_sizes(report: dict[str, Any]) -> Any:
    """Time over the batch, for the operations that were measured at several."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in report["results"]:
        if row["threads"] == report["threads"] and row["contenders"]:
            rest = "x".join(map(str, row["shape"][1:])) + (f" → {row['outputs']}" if row["outputs"] else "")
            title = f"{_STEPS[row['op']]}, a step" if row["op"] in _STEPS else f"{row['op']} {row['part']} N×{rest}"
            groups.setdefault(title, []).append(row)
    groups = {title: rows for title, rows in groups.items() if len({row["shape"][0] for row in rows}) >= 3}
    if not groups:
        return None

    def x_of(row: dict[str, Any]) -> float:
        return row["shape"][0]

    title = f"Cost against size: time per row of the batch ({_threads(report)})"
    return _lines(
        report, groups, title, "batch", x_of, lambda row, name: 1e6 * row["contenders"][name]["median"] / row["shape"][0], "µs a row"
    )


def _draw_threads(report: dict[str, Any]) -> Any:
    """Time over the number of threads, for the workloads that were measured on several."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in report["results"]:
        if row["contenders"] and not row["sweep"]:
            groups.setdefault(row["workload"], []).append(row)
    groups = {title: rows for title, rows in groups.items() if len(rows) >= 2}
    if not groups:
        return None

    def time_of(row: dict[str, Any], name: str) -> float:
        return 1e3 * row["contenders"][name]["median"]

    return _lines(report, groups, "Cost against threads: median time", "threads", lambda row: row["threads"], time_of, "ms")


def _lines(
    report: dict[str, Any],
    groups: dict[str, list[dict[str, Any]]],
    title: str,
    x_label: str,
    x_of: Callable[[dict[str, Any]], float],
    y_of: Callable[[dict[str, Any], str], float],
    y_label: str,
) -> Any:
    """One panel per group, one line per contender that lacks at most one of its points."""
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = drawing.figure(max(4.3 * columns, 6), 3.4 * lines + 0.9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=drawing.INK)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in list(grid.flat)[len(groups) :]:
        axes.set_axis_off()
    shown: dict[str, None] = {}
    for axes, (name_of_group, rows) in zip(grid.flat, groups.items()):
        rows = sorted(rows, key=x_of)
        for name in _titles(report):
            there = [row for row in rows if name in row["contenders"]]
            if len(there) < max(2, len(rows) - 1):
                continue
            shown[name] = None
            style = "--" if name in ("serial", "numpy") else "-"
            x, y = [x_of(row) for row in there], [y_of(row, name) for row in there]
            axes.plot(x, y, style, marker=MARKS.get(name, "o"), markersize=4.5, color=COLOURS.get(name, drawing.FAINT), linewidth=1.6)
        _axis(axes, sorted({x_of(row) for row in rows}))
        drawing.dress(axes, name_of_group, x_label, y_label)
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS.get(name, drawing.FAINT), marker=MARKS.get(name, "o"), markersize=5, label=_titles(report)[name])
        for name in _titles(report)
        if name in shown
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 6), frameon=False, fontsize=9.5)
    return figure


def _axis(axes: Any, values: list[float]) -> None:
    """Powers of two on the horizontal axis, plain numbers without exponents on the vertical one."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    drawing.plain_log(axes.yaxis)
