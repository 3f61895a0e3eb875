"""Five convolutions on small images: without batch normalisation, with it, and with dropout as well."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import nbnet as nb
from nbnet.demos import Result, Settings, drawing, progress
from nbnet.demos.drawing import at_seeds, said, spread

TITLE = "A CNN with and without batch norm, and with dropout"
SEEDS = 5
PLAIN, NORM, BOTH = "plain", "batch norm", "batch norm + dropout"
COLOURS = {PLAIN: drawing.RED, NORM: drawing.BLUE, BOTH: drawing.GREEN}
FILTERS = (64, 64, 32, 16)  # and then one per class
DECAY, RATE, LR = 0.9, 0.25, 1e-3
EPOCHS, BATCH = 10, 64
QUICK_EPOCHS, QUICK_IMAGES = 2, 256
SMALLEST = 16  # pixels: three poolings leave 2x2
SHOWN = 2000  # training images that are also evaluated without dropout


class Run(NamedTuple):
    model: nb.Sequential
    history: dict[str, list[float]]
    on_training: dict[str, float]  # loss and accuracy in evaluation mode, on training images


def network(kind: str, classes: int) -> nb.Sequential:
    """3x3 convolutions 64-64-32-16-classes, the first three pooled, then the mean of each channel."""
    layers: list[nb.Layer] = []
    for place, filters in enumerate((*FILTERS, classes)):
        layers.append(nb.Conv2D(filters, 3, use_bias=kind == PLAIN))
        if kind != PLAIN:
            layers.append(nb.BatchNorm(decay=DECAY))
        layers.append(nb.ReLU())
        if place < 3:
            layers.append(nb.MaxPool2D(2))
            if kind == BOTH:
                layers.append(nb.Dropout(RATE))
    return nb.Sequential([*layers, nb.GlobalAvgPool2D()])


def run(settings: Settings) -> Result:
    """Train the three networks with every seed and draw the results."""
    (x, y), (x_test, y_test), names = _data(settings)
    if settings.quick:
        x, y, x_test, y_test = x[:QUICK_IMAGES], y[:QUICK_IMAGES], x_test[:QUICK_IMAGES], y_test[:QUICK_IMAGES]
    epochs = QUICK_EPOCHS if settings.quick else EPOCHS
    runs: dict[str, list[Run]] = {kind: [] for kind in COLOURS}
    with progress(TITLE, settings.seeds * len(COLOURS) * epochs) as advance:
        for seed in range(settings.seeds):
            for kind in COLOURS:
                model = network(kind, len(names))
                model.build(x.shape[1:], backend=settings.backend, seed=seed)
                trainer = nb.Trainer(model, optimizer=nb.Adam(LR), seed=seed)
                for epoch in range(epochs):
                    trainer.fit((x, y), epoch + 1, BATCH, validation=(x_test, y_test), progress=False)
                    advance()
                runs[kind].append(Run(model, trainer.history, trainer.evaluate(x[:SHOWN], y[:SHOWN])))
    _draw_curves(runs, settings)
    _draw_filters({kind: each[0].model.params["0.conv2d.weight"].value for kind, each in runs.items()}, settings)
    right = _draw_mistakes(runs[NORM][0].model, (x_test, y_test), names, settings)
    figures = _figures(runs, settings, (len(x), len(x_test)), epochs)
    pictures = [
        ("curves.png", f"Accuracy and loss by epoch: median of {settings.seeds} seeds, and between which values all of them lie."),
        (
            "filters.png",
            "The 64 filters of the first convolution after training (first seed: the three began alike), each on its own scale.",
        ),
        (
            "mistakes.png",
            f"What the network with batch norm (the first seed, {said([right], '{:.1%}')} right) gets wrong, the most confident first.",
        ),
    ]
    return Result(TITLE, _summary(runs, figures), figures, pictures)


def _data(settings: Settings) -> Any:
    """The data set of the command line; by default the embedded digits, enlarged to 16x16 by doubling pixels."""
    if settings.data in nb.datasets.NAMES:
        train, test, names = nb.datasets.open_data(settings.data, settings.data_dir)
    elif settings.data is not None:
        train, test, names = nb.datasets.open_data(settings.data, settings.data_dir, size=(32, 32))
    else:
        train, test, names = nb.datasets.load("digits")
    factor = -(-SMALLEST // min(train[0].shape[1:3]))
    (x, y), (x_test, y_test) = ((images.repeat(factor, axis=1).repeat(factor, axis=2), labels) for images, labels in (train, test))
    return (x, y), (x_test, y_test), names


# ------------------------------------------------------------------------------------------------------ figures


def _column(runs: list[Run], key: str) -> np.ndarray:
    """(S, epochs)"""
    return np.array([run.history[key] for run in runs])


def _figures(runs: dict[str, list[Run]], settings: Settings, images: tuple[int, int], epochs: int) -> dict[str, Any]:
    goal = np.median(_column(runs[PLAIN], "val_accuracy")[:, -1])
    figures: dict[str, Any] = {
        "data": settings.data or "digits",
        "training_images": images[0],
        "test_images": images[1],
        "epochs": epochs,
        "networks": {},
    }
    for kind, each in runs.items():
        accuracy = _column(each, "val_accuracy")
        reached = [int(np.argmax(row >= goal)) + 1 for row in accuracy if (row >= goal).any()]
        first = min(1, epochs - 1)  # the first epoch of a process includes compilation
        speed = [images[0] / np.median(run.history["seconds"][first:]) for run in each]
        figures["networks"][kind] = {
            "test_accuracy": spread(accuracy[:, -1]),
            "test_loss": spread(_column(each, "val_loss")[:, -1]),
            "training_loss": spread(run.on_training["loss"] for run in each),
            "epochs_to_the_plain_accuracy": spread(reached) if len(reached) == len(each) else None,
            "images_per_second": spread(speed),
        }
    return figures


def _summary(runs: dict[str, list[Run]], figures: dict[str, Any]) -> list[str]:
    networks = figures["networks"]
    accuracy = {kind: networks[kind]["test_accuracy"]["seeds"] for kind in networks}
    wins = [a > b for a, b in zip(accuracy[NORM], accuracy[PLAIN])]
    lines = [
        f"{figures['training_images']:,} training and {figures['test_images']:,} test images of {figures['data']}, {figures['epochs']} "
        f"epochs, Adam {LR:g}, batches of {BATCH}; medians, in brackets the range over {len(wins)} seeds.",
        "Test accuracy: " + ", ".join(f"{kind} {said(values, '{:.1%}')}" for kind, values in accuracy.items()) + ".",
        f"Batch norm ends with a higher test accuracy than the plain network {at_seeds(wins)}.",
    ]
    sooner = networks[NORM]["epochs_to_the_plain_accuracy"]
    if sooner is not None:
        lines.append(
            f"It has the accuracy that the plain network ends with ({said([np.median(accuracy[PLAIN])], '{:.1%}')}, the median) after "
            f"{said(sooner['seeds'], '{:.0f}')} of {figures['epochs']} epochs."
        )
    plain, norm, both = (networks[kind]["test_loss"]["seeds"] for kind in (PLAIN, NORM, BOTH))
    losses = [f"{kind} {said(v['training_loss']['seeds'])} and {said(v['test_loss']['seeds'])}" for kind, v in networks.items()]
    lines.append("Loss on training images (dropout off) and on test images: " + "; ".join(losses) + ".")
    lines.append(f"Batch norm ends with a lower test loss than the plain network {at_seeds([b < a for a, b in zip(plain, norm)])}.")
    gaps = [
        [test - train for train, test in zip(networks[kind]["training_loss"]["seeds"], networks[kind]["test_loss"]["seeds"])]
        for kind in (NORM, BOTH)
    ]
    lines.append(
        f"Test loss minus training loss: {said(gaps[0])} with batch norm, {said(gaps[1])} with dropout too; "
        f"dropout ends with the lower test loss {at_seeds([b < a for a, b in zip(norm, both)])}."
    )
    speeds = [f"{kind} {said(v['images_per_second']['seeds'], '{:,.0f}')}" for kind, v in networks.items()]
    lines.append("Training images per second on this machine: " + ", ".join(speeds) + ".")
    return lines


# ----------------------------------------------------------------------------------------------------- pictures


def _draw_curves(runs: dict[str, list[Run]], settings: Settings) -> None:
    made = drawing.figure(11, 4.6)
    from matplotlib.ticker import MaxNLocator

    for axes, name in zip(made.subplots(1, 2), ("accuracy", "loss")):
        for kind, each in runs.items():
            test = _column(each, f"val_{name}")
            epochs = np.arange(1, test.shape[1] + 1)
            drawing.band(axes, epochs, test, kind if name == "accuracy" else None, COLOURS[kind])
            drawing.band(axes, epochs, _column(each, name), None, COLOURS[kind], ":", shade=False)
        if name == "accuracy":
            drawing.percent(axes)
        else:
            axes.plot([], [], color=drawing.INK, label="on test images")
            axes.plot([], [], ":", color=drawing.INK, label="in training, while the weights change")
            low, high = axes.dataLim.intervaly
            if high > 10 * low:
                axes.set_yscale("log")
                drawing.plain_log(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        unit = "images classified right" if name == "accuracy" else "mean cross-entropy, nats"
        drawing.dress(axes, f"{name}, {len(each)} seed{'s' if len(each) > 1 else ''}", "epoch", unit, "best")
    drawing.save(made, settings.out / "curves.png")


def _draw_filters(weights: dict[str, np.ndarray], settings: Settings) -> None:
    """Each (3, 3, C, 64) as 8x8 tiles; three channels are red, green and blue around grey."""
    made = drawing.figure(11.5, 4.3)
    made.get_layout_engine().set(wspace=0.06)
    for axes, (kind, weight) in zip(made.subplots(1, len(weights)), weights.items()):
        height, width, channels, count = weight.shape
        tiles = weight if channels == 3 else weight.mean(axis=2, keepdims=True)
        tiles = tiles / np.abs(tiles).max(axis=(0, 1, 2))
        rows = -(-count // 8)
        sheet = np.full((rows * (height + 1) - 1, 8 * (width + 1) - 1, tiles.shape[2]), np.nan)
        for i in range(count):
            top, left = i // 8 * (height + 1), i % 8 * (width + 1)
            sheet[top : top + height, left : left + width] = tiles[..., i]
        if channels == 3:
            axes.imshow(np.nan_to_num(0.5 + 0.5 * sheet, nan=1.0), interpolation="nearest")
        else:
            shown = axes.imshow(sheet[..., 0], cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(kind, loc="left", fontsize=11.5, fontweight="bold", color=COLOURS[kind])
    if channels != 3:
        bar = made.colorbar(shown, ax=made.axes, shrink=0.8, ticks=[-1, 0, 1])
        bar.ax.set_yticklabels(["−", "0", "+"])
        bar.set_label("weight / largest weight of its filter", fontsize=10)
    drawing.save(made, settings.out / "filters.png")


def _draw_mistakes(model: nb.Sequential, test: tuple[np.ndarray, np.ndarray], names: list[str], settings: Settings) -> float:
    """Draw the mistakes. Returns the accuracy."""
    from nbnet import plots

    x, y = test
    probabilities = model.predict_proba(x)
    said_so = probabilities.argmax(axis=1)
    plots.mistakes(x, y, said_so, probabilities, names, settings.out / "mistakes.png")
    return float((said_so == y).mean())
