"""The second half of the moving-average demonstration: the three switches in fine-tuning, and small batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import nbnet as nb
from nbnet.demos import Settings, drawing
from nbnet.demos.drawing import at_seeds, said, spread

# (use_batch_statistics, update_statistics, trainable)
SWITCHES = {
    "training": (True, True, True),
    "gamma, beta fixed": (True, True, False),
    "moving statistics": (False, False, True),
    "freeze()": (False, False, False),
}
MEASURES = {
    "moving_mean": "moving mean moved,\nlargest, in deviations",
    "gamma": "gamma moved,\nlargest change",
    "dark": "right on\ndark test images",
    "old": "right on the old\n(bright) test images",
}
DARK, TUNE_IMAGES, TUNE_BATCH, TUNE_STEPS = 0.4, 64, 4, 100  # brightness; the small set to fine-tune on

NONE, NORM, RENORM = "no batch norm", "batch norm", "batch renormalisation"
COLOURS = {NONE: drawing.INK, NORM: drawing.RED, RENORM: drawing.BLUE}
SIZES, ONE_CLASS = (2, 4, 8, 32), 32  # batches of random images; and of images of one class
IMAGES, ONE_CLASS_IMAGES = 6000, 16000  # seen in training
QUICK_SHARE = 20  # --quick trains on this part of them

Small = dict[str, dict[str, list[float]]]  # kind of network, batches: test accuracy by seed


class Digits(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def digits(brightness: float = 1.0) -> Digits:
    """The digits that come with nbnet, in [0, brightness]."""
    (x, y), (x_test, y_test), _ = nb.datasets.load("digits")
    x, x_test = (images.astype(np.float32) / 255 * np.float32(brightness) for images in (x, x_test))
    return Digits(x, y, x_test, y_test)


def convolutional(options: dict[str, Any]) -> nb.Sequential:
    """Two convolutions with batch norm of these options."""
    layers: list[nb.Layer] = []
    for filters in (8, 16):
        layers += [nb.Conv2D(filters, 3, use_bias=False), nb.BatchNorm(**options), nb.ReLU(), nb.MaxPool2D(2)]
    return nb.Sequential([*layers, nb.Flatten(), nb.Dense(10)])


def norms(model: nb.Sequential) -> list[nb.BatchNorm]:
    return [layer for layer in model.walk() if isinstance(layer, nb.BatchNorm)]


def accuracy(model: nb.Sequential, data: Digits) -> float:
    return float((model.predict(data.x_test).argmax(axis=1) == data.y_test).mean())


def accuracy_by_batch(model: nb.Sequential, data: Digits) -> float:
    """Accuracy with each batch norm in training mode on the test images as one batch; nothing is learnt from them."""
    for layer in norms(model):
        layer.update_statistics = False
    scores, _ = model.forward(data.x_test, train=True)
    for layer in norms(model):
        layer.update_statistics = True
    return float((scores.argmax(axis=1) == data.y_test).mean())


# ----------------------------------------------------------------------------------------------- three switches


def fine_tune(trained: nb.Sequential, seed: int, settings: Settings, advance: Any) -> dict[str, dict[str, float]]:
    """Train on a few dark images with each setting of the switches; report what changed and the accuracy afterwards."""
    bright, dark = digits(), digits(DARK)
    found = {}
    before = {name: array.copy() for name, array in trained.state().items()}
    for name, (by_batch, update, trainable) in SWITCHES.items():
        model = convolutional({"decay": 0.9})
        model.build((8, 8, 1), backend=settings.backend, seed=seed)
        for key, array in model.state().items():
            array[:] = before[key]
        for layer in norms(model):
            layer.use_batch_statistics, layer.update_statistics, layer.trainable = by_batch, update, trainable
        trainer = nb.Trainer(model, optimizer=nb.Adam(1e-3))
        rng = np.random.default_rng([seed, 2])
        for _ in range(TUNE_STEPS // (10 if settings.quick else 1)):
            rows = rng.choice(TUNE_IMAGES, TUNE_BATCH, replace=False)
            trainer.train_batch(dark.x[rows], dark.y[rows])
        found[name] = {
            "moving_mean": _moved(model, before, "moving_mean", "moving_var"),
            "gamma": _moved(model, before, "gamma"),
            "dark": accuracy(model, dark),
            "old": accuracy(model, bright),
        }
    advance()
    return found


def _moved(model: nb.Sequential, before: dict[str, np.ndarray], name: str, variance: str | None = None) -> float:
    """The largest change of these arrays in all layers, in deviations where the name of a variance is given."""
    changes = []
    for key, array in model.state().items():
        if key.endswith(name):
            unit = 1.0 if variance is None else np.sqrt(before[key.replace(name, variance)])
            changes.append(float(np.max(np.abs(array - before[key]) / unit)))
    return max(changes)


def switch_figures(tuned: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    return {name: {measure: spread(each[name][measure] for each in tuned) for measure in MEASURES} for name in SWITCHES}


def switch_summary(tuned: list[dict[str, dict[str, float]]]) -> list[str]:
    lines = []
    for name in SWITCHES:
        mean, gamma, dark, old = ([each[name][measure] for each in tuned] for measure in MEASURES)
        lines.append(
            f"Fine-tuned on {TUNE_IMAGES} dark images, batches of {TUNE_BATCH}, {name}: moving means moved by {said(mean, '{:.2g}')} "
            f"deviations, gamma by {said(gamma, '{:.2g}')}; {said(dark, '{:.1%}')} right on dark test images, "
            f"{said(old, '{:.1%}')} on bright ones."
        )
    return lines


def draw_switches(tuned: list[dict[str, dict[str, float]]], settings: Settings) -> None:
    made = drawing.figure(12, 3.9)
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    colours = (drawing.RED, drawing.ORANGE, drawing.GREEN, drawing.BLUE)
    for place, (axes, (measure, title)) in enumerate(zip(made.subplots(1, 4, sharey=True), MEASURES.items())):
        for row, (name, colour) in enumerate(zip(SWITCHES, colours)):
            values = np.array([each[name][measure] for each in tuned])
            offsets = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
            axes.plot(values, row + offsets, "o", color=colour, markersize=5.5, alpha=0.75, markeredgewidth=0)
            axes.plot([np.median(values)] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=2.4)
        marks = [
            f"{name}\nbatch {'✓' if a else '–'}  update {'✓' if b else '–'}  train {'✓' if c else '–'}"
            for name, (a, b, c) in SWITCHES.items()
        ]
        axes.set_yticks(range(4), marks, fontsize=10)
        axes.set_ylim(3.6, -0.6)
        drawing.dress(axes, "", title)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        if place < 2:
            axes.set_xlim(left=-0.04 * max(axes.get_xlim()[1], 1e-3))
        else:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    drawing.save(made, settings.out / "switches.png")


# ------------------------------------------------------------------------------------------------ small batches


def dense(kind: str, steps: int) -> nb.Sequential:
    """Dense layers, whose batch norm has as many values per channel as the batch has rows; renormalisation warms up."""
    layers: list[nb.Layer] = [nb.Flatten()]
    for _ in range(2):
        layers.append(nb.Dense(64, use_bias=kind == NONE))
        if kind != NONE:
            warm = nb.Renorm.warm_up(steps // 40, steps // 8, steps // 8) if kind == RENORM and steps >= 40 else None
            layers.append(nb.BatchNorm(0.99, renorm=warm))
        layers.append(nb.ReLU())
    return nb.Sequential([*layers, nb.Dense(10)])


def _plan(settings: Settings) -> dict[str, tuple[int, bool, int]]:
    """Name: batch size, whether of one class, steps."""
    share = QUICK_SHARE if settings.quick else 1
    plan = {f"{size}": (size, False, IMAGES // size // share) for size in (SIZES[::2] if settings.quick else SIZES)}
    return plan | {f"{ONE_CLASS},\none class": (ONE_CLASS, True, ONE_CLASS_IMAGES // ONE_CLASS // share)}


def work(settings: Settings) -> int:
    """How often `small_batches` calls advance."""
    return settings.seeds * len(COLOURS) * len(_plan(settings))


def small_batches(data: Digits, settings: Settings, advance: Any) -> Small:
    """Test accuracy of each kind of network for each kind of batch, after the same number of images."""
    found: Small = {kind: {} for kind in COLOURS}
    for name, (size, one_class, steps) in _plan(settings).items():
        for kind in COLOURS:
            found[kind][name] = [
                _train_small(kind, size, one_class, steps, seed, data, settings) for seed in range(settings.seeds) if not advance()
            ]
    return found


def _train_small(kind: str, size: int, one_class: bool, steps: int, seed: int, data: Digits, settings: Settings) -> float:
    model = dense(kind, steps)
    model.build((8, 8, 1), backend=settings.backend, seed=seed)
    trainer = nb.Trainer(model, optimizer=nb.Adam(1e-3))
    rng = np.random.default_rng([seed, 3])
    every = np.arange(len(data.x))
    of_class = [np.flatnonzero(data.y == label) for label in range(10)]
    for _ in range(steps):
        rows = rng.choice(of_class[rng.integers(10)] if one_class else every, size, replace=False)
        trainer.train_batch(data.x[rows], data.y[rows])
    return accuracy(model, data)


def small_figures(small: Small) -> dict[str, Any]:
    return {kind: {name.replace("\n", " "): spread(values) for name, values in each.items()} for kind, each in small.items()}


def small_summary(small: Small) -> list[str]:
    lines = []
    for name, plain in small[NORM].items():
        better = [a > b for a, b in zip(small[RENORM][name], plain)]
        each = ", ".join(f"{kind} {said(values[name], '{:.1%}')}" for kind, values in small.items())
        words = f"Batches of {name}".replace(",\none class", " images of one class")
        lines.append(f"{words}: {each}; renormalisation is better than plain batch norm {at_seeds(better)}.")
    return lines


def draw_small(small: Small, settings: Settings) -> None:
    made = drawing.figure(9.5, 4.6)
    axes = made.subplots()
    names = list(small[NORM])
    for shift, (kind, each) in zip((-0.25, 0, 0.25), small.items()):
        for place, name in enumerate(names):
            drawing.dots(axes, place + shift, each[name], COLOURS[kind], None if place else kind, width=0.1)
    axes.axvline(len(names) - 1.5, color=drawing.GRID, linewidth=6)
    axes.set_xticks(range(len(names)), names, fontsize=10.5)
    axes.set_ylim(0, 1.03)
    drawing.percent(axes)
    drawing.dress(axes, "small batches, and batches of one class", "images a batch", "test images classified right", "lower left")
    drawing.save(made, settings.out / "small.png")
