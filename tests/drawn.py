"""Matplotlib figures as text: what they show, as data. See tests/descriptions.py, which compares such text with files."""

import numpy as np
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Annotation
from matplotlib.ticker import AutoLocator, FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

FEW = 8  # values that are all written; of more, some
USUAL_MARKS = (2, 3.5)  # of minor and major ticks
SHARES = (0.002, 0.05, 1.5, 12345.0)  # what a formatter is shown with


def caught(monkeypatch):
    """A list that gets the lines of each figure that is saved from now on; the files stay empty."""
    found = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: found.extend(["--- a picture", *figure_lines(figure)]))
    return found


def figure_lines(figure):
    """The lines that describe a figure: its size, its texts, and each of its axes."""
    width, height = figure.get_size_inches()
    return [f"{number(width)} x {number(height)} inches, {number(figure.dpi)} dpi{_engine(figure)}", *_group_lines(figure)]


def number(value):
    """Five digits; what is nothing but a rounding is 0."""
    value = float(value)
    return f"{value:.5g}" if not abs(value) < 1e-9 else "0"


def numbers(values):
    """A short text for many numbers: all of them if they are few, otherwise how many, some, the mean and the extremes."""
    values = np.ma.filled(np.ma.asarray(values, np.float64).ravel(), np.nan)
    if len(values) <= FEW:
        return f"[{', '.join(map(number, values))}]"
    known = values[np.isfinite(values)]
    gaps = f", {len(values) - len(known)} gaps" if len(known) < len(values) else ""
    some = values[np.linspace(0, len(values) - 1, FEW).round().astype(int)]
    if not len(known):
        return f"{len(values)} gaps"
    deviations = f"mean {number(known.mean())}, deviation {number(known.std())}, from {number(known.min())} to {number(known.max())}"
    rising = ", increasing" if (np.diff(known) > 0).all() else ""
    return f"{len(values)} values{gaps}: {', '.join(map(number, some))}; {deviations}{rising}"


def _group_lines(group):
    """Of a figure, or of a part of one."""
    found = []
    for kind in ("suptitle", "supxlabel", "supylabel"):
        text = getattr(group, f"_{kind}", None)
        if text is not None:
            found.append(f"{kind} {_text(text)}")
    found += [f"text {_text(text)}" for text in group.texts if text is not getattr(group, "_suptitle", None)]
    found += [f"legend {line}" for legend in group.legends for line in _legend(legend)]
    inside = {axes for part in group.subfigs for axes in part.axes}
    for axes in group.axes:
        if axes not in inside:
            found += ["axes", *(f"  {line}" for line in _axes(axes))]
    for part in group.subfigs:
        found += ["subfigure", *(f"  {line}" for line in _group_lines(part))]
    return found


def _engine(figure):
    engine = figure.get_layout_engine()
    if not isinstance(engine, ConstrainedLayoutEngine):
        return ", places as given"
    usual = type(engine)().get()
    return _options(**{f", {name}": value for name, value in engine.get().items() if value != usual[name]})


def _axes(axes):
    found = [f"place {_place(axes)}", f"sides {_sides(axes)}"]
    found += ["axis off"] if not axes.axison else []
    found += [f"{name} title {_text(title)}" for name, title in _titles(axes) if title.get_text()]
    found += [f"aspect {axes.get_aspect()}"] if axes.get_aspect() != "auto" else []
    found += [f"below lines {axes.get_axisbelow()}"] if axes.get_axisbelow() != "line" else []
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        found += [f"{name} {line}" for line in _axis(axes, name, axis)]
    for kind, artists, describe in (
        ("line", axes.lines, _line),
        ("patch", axes.patches, _patch),
        ("collection", axes.collections, _collection),
        ("image", axes.images, _image),
        ("text", axes.texts, _text),
    ):
        found += [f"{kind} {describe(artist)}" for artist in artists]
    legend = axes.get_legend()
    found += [f"legend {line}" for line in _legend(legend)] if legend is not None else []
    for child in axes.child_axes:
        found += ["axes inside", *(f"  {line}" for line in _axes(child))]
    return found


def _sides(axes):
    """Those that are drawn, with a colour where it is not black."""
    shown = {name: _hex(spine.get_edgecolor()) for name, spine in axes.spines.items() if spine.get_visible()}
    return " ".join(name if colour == "#000000ff" else f"{name} {colour}" for name, colour in shown.items())


def _place(axes):
    spec = axes.get_subplotspec()
    if spec is None:
        return axes.get_label() or "of its own"
    rows, columns, first, last = spec.get_geometry()
    grid = spec.get_gridspec()
    ratios = [f"{name} ratios {numbers(values)}" for name, values in _ratios(grid) if len({*values}) > 1]
    gaps = [f"{name} {number(value)}" for name, value in vars(grid).items() if isinstance(value, float)]
    shared = [f"shares {name}" for name in "xy" if len(getattr(axes, f"get_shared_{name}_axes")().get_siblings(axes)) > 1]
    return ", ".join([f"{first} to {last} of {rows} x {columns}", *ratios, *gaps, *shared])


def _ratios(grid):
    return ("height", grid.get_height_ratios()), ("width", grid.get_width_ratios())


def _titles(axes):
    return ("centre", axes.title), ("left", axes._left_title), ("right", axes._right_title)


def _axis(axes, name, axis):
    scale, (low, high) = axis.get_scale(), getattr(axes, f"get_{name}lim")()
    found = []
    if scale != "linear":
        found.append(f"scale {scale} {_options(base=getattr(axis.get_transform(), 'base', None))}")
    if not getattr(axes, f"get_autoscale{name}_on")():
        found.append(f"limits {number(low)} to {number(high)}")
    if axis.label.get_text():
        found.append(f"label {_text(axis.label)}")
    for kind, lines in (("ticks", axis.get_major_ticks()), ("minor ticks", axis.get_minor_ticks())):
        locator = axis.get_major_locator() if kind == "ticks" else axis.get_minor_locator()
        formatter = axis.get_major_formatter() if kind == "ticks" else axis.get_minor_formatter()
        words = [*_locator(locator), *_formatter(formatter)]
        if isinstance(formatter, NullFormatter) and not isinstance(locator, NullLocator):
            words.append("unnamed")
        words += _ticks(lines[0]) if lines else []
        if words:
            found.append(f"{kind} {'; '.join(words)}")
    return found


def _locator(locator):
    if isinstance(locator, FixedLocator):
        return [f"at {numbers(locator.locs)}"]
    if isinstance(locator, NullLocator):
        return []
    if isinstance(locator, LogLocator):
        return [f"logarithmic {_options(base=locator._base, subs=str(np.asarray(locator._subs)), most=locator.numticks)}"]
    if isinstance(locator, AutoLocator):
        return []
    names = {"_integer": "whole numbers", "_nbins": "bins", "_min_n_ticks": "least"}
    return [f"{type(locator).__name__} {_options(**{word: vars(locator)[name] for name, word in names.items() if name in vars(locator)})}"]


def _formatter(formatter):
    if isinstance(formatter, FuncFormatter):
        return [f"written {' '.join(repr(formatter(value, 0)) for value in SHARES)}"]
    if isinstance(formatter, FixedFormatter):
        return [f"named {formatter.seq!r}"]
    return []


def _ticks(tick):
    """How a mark of an axis looks, its grid line and its label."""
    mark, grid, label = tick.tick1line, tick.gridline, tick.label1
    words = [f"grid {_options(**_stroke(grid))}"] if grid.get_visible() else []
    if mark.get_visible() and mark.get_markersize() not in USUAL_MARKS:
        words.append(f"marks of size {number(mark.get_markersize())}")
    if not mark.get_visible():
        words.append("no marks")
    if (label.get_fontsize(), label.get_rotation(), label.get_color()) != (10, 0, "black"):
        words.append(f"text {number(label.get_fontsize())}, turned {label.get_rotation():g} {label.get_ha()}, {_colour(label)}")
    return words


def _line(line):
    system = "" if line.get_transform() == line.axes.transData else " partly in shares of the axes"
    x, y = numbers(line.get_xdata(orig=False)), numbers(line.get_ydata(orig=False))
    return f"{_label(line)}{_drawn_line(line)} x {x}; y {y}{system}"


def _drawn_line(line):
    style = _options(**_stroke(line)) if line.get_linestyle() not in ("None", "none") else "no line"
    marker = {}
    if line.get_marker() not in ("None", "none", "", None):
        marker = {
            "marker": line.get_marker(),
            "size": line.get_markersize(),
            "face": _hex(line.get_markerfacecolor()) if line.get_marker() not in ("_", "|") else None,
            "edge": _hex(line.get_markeredgecolor()),
            "edge width": line.get_markeredgewidth(),
        }
    order = f" order={number(line.get_zorder())}" if line.get_zorder() != 2 else ""
    return f"{style} {_options(**marker)}".rstrip() + order


def _stroke(line):
    cap = line.get_solid_capstyle() if line.get_linestyle() == "-" else None
    return {
        "colour": _hex(line.get_color()),
        "style": line.get_linestyle(),
        "width": line.get_linewidth(),
        "alpha": line.get_alpha(),
        "cap": cap if cap != "projecting" else None,
    }


def _patch(patch):
    colours = _options(face=_hex(patch.get_facecolor()), edge=_hex(patch.get_edgecolor()), fill=patch.get_fill())
    if isinstance(patch, StepPatch):
        data = patch.get_data()
        return f"steps {_label(patch)}{colours} {numbers(data.values)} between {numbers(data.edges)}"
    if isinstance(patch, Rectangle):
        return f"bar {_label(patch)}{colours} at {numbers(patch.get_xy())}, {number(patch.get_width())} x {number(patch.get_height())}"
    return f"{type(patch).__name__} {_label(patch)}{colours}"


def _collection(shown):
    kind, words = "area", {"face": _many(shown.get_facecolor()), "edge": _many(shown.get_edgecolor()), "alpha": shown.get_alpha()}
    words["width"] = numbers(shown.get_linewidth())
    if isinstance(shown, ContourSet):
        return f"contour {_image_colours(shown)} at {numbers(shown.levels)}, extend {shown.extend}, norm {type(shown.norm).__name__}"
    if isinstance(shown, PathCollection):
        points = shown.get_offsets()
        return f"scatter {_label(shown)}{_options(**words)} x {numbers(points[:, 0])}; y {numbers(points[:, 1])}"
    if isinstance(shown, LineCollection):
        kind = "lines"
    points = np.concatenate([path.vertices for path in shown.get_paths()] or [np.zeros((0, 2))])
    return f"{kind} {_label(shown)}{_options(**words)} x {_range(points[:, 0])}; y {_range(points[:, 1])}"


def _range(values):
    """Without the order and number of points, which Matplotlib chooses."""
    return (
        f"{number(values.min())} to {number(values.max())}, mean {number(np.unique(values.round(9)).mean())}" if len(values) else "nothing"
    )


def _image(image):
    array = np.ma.filled(np.ma.asarray(image.get_array(), np.float64), np.nan)
    colours = "" if array.ndim == 3 else f"{_image_colours(image)} "
    how = image.get_interpolation()
    return f"{array.shape} {colours}{'' if how in ('auto', 'antialiased') else f'interpolation={how} '}{numbers(array)}"


def _image_colours(shown):
    colours = shown.get_cmap()
    return f"{colours.name} bad {_hex(colours.get_bad())} from {number(shown.norm.vmin)} to {number(shown.norm.vmax)}"


def _text(text):
    place = "" if _is_placed(text) else f" at {numbers(text.get_position())}"
    if isinstance(text, Annotation):
        place = f" at {numbers(text.xy)}, moved {numbers(text.xyann)} in {text.anncoords}"
    style = _options(
        size=text.get_fontsize(),
        weight=text.get_fontweight() if text.get_fontweight() != "normal" else None,
        colour=_colour(text),
        align=f"{text.get_ha()} {text.get_va()}",
        turned=text.get_rotation() or None,
        spacing=text._linespacing if text._linespacing not in (1.2, "normal") else None,
    )
    return f"{text.get_text()!r}{place} {style}"


def _is_placed(text):
    """Whether Matplotlib itself chooses the place: of titles and labels of axes."""
    axes = text.axes
    if axes is None:  # labels do not know theirs
        return text in [axis.label for axes in text.figure.axes for axis in (axes.xaxis, axes.yaxis)]
    return text in (axes.title, axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label)


def _legend(legend):
    box = legend.get_frame()
    frame = _options(face=_hex(box.get_facecolor()), edge=_hex(box.get_edgecolor())) if legend.get_frame_on() else "no frame"
    yield f"at {legend._loc}{f' outside, {legend._outside_loc}' if legend._outside_loc else ''}, {legend._ncols} columns, {frame}"
    for handle, text in zip(legend.legend_handles, legend.get_texts()):
        drawn = _drawn_line(handle) if isinstance(handle, Line2D) else _options(face=_many(np.atleast_2d(handle.get_facecolor())))
        yield f"  {text.get_text()!r} size={number(text.get_fontsize())} {drawn}"


def _label(artist):
    label = str(artist.get_label())
    return "" if label.startswith("_") else f"{label!r} "


def _colour(text):
    return _hex(text.get_color())


def _hex(colour):
    return colour if isinstance(colour, str) and colour in ("auto", "none", "inherit") else to_hex(colour, keep_alpha=True)


def _many(colours):
    return " ".join(dict.fromkeys(map(_hex, colours))) or "none"


def _options(**given):
    return " ".join(f"{name}={number(value) if isinstance(value, float) else value}" for name, value in given.items() if value is not None)
