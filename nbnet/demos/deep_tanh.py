"""Eight narrow tanh layers that start from small weights: without batch norm they learn nothing, with it they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nbnet as nb
from nbnet.demos import Result, Settings, animation, drawing, progress
from nbnet.demos.drawing import at_seeds, said, spread

TITLE = "Eight tanh layers, with and without batch norm"
SEEDS = 5
BACKEND = "serial"  # 128 rows of 10 numbers are not worth a second thread

LAYERS, UNITS, DECAY = 8, 10, 0.4
LR, BATCH, STEPS, QUICK_STEPS = 0.03, 128, 250, 60
SATURATED = 0.95  # |tanh| beyond which its slope is below a tenth
STILL = 0.01  # a unit whose output varies by less than this over all test points carries no information about x
RANGES = ((-3.0, 3.0), (-1.0, 1.0))  # of pre-activations and activations in the histograms
BINS = 30
NAMES = {False: "without batch norm", True: "with batch norm"}
COLOURS = {False: drawing.RED, True: drawing.BLUE}


class Data(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Run(NamedTuple):
    steps: list[int]  # before which the network was recorded
    losses: list[float]  # on the test points, at these steps
    fit: np.ndarray  # (200,) the final predictions
    layers: list[list[tuple[np.ndarray, np.ndarray]]]  # at these steps: pre-activations and activations per layer


def checked(steps: int) -> list[int]:
    """Steps before which a network is recorded: closer together at first, when it changes most."""
    return [*range(0, 20, 2), *range(20, steps + 1, 5)]


def make_data(seed: int) -> Data:
    """y = x^2 + N(0, 0.2^2): 2,000 shuffled training points and 200 test points on [-7, 10]."""
    rng = np.random.default_rng([seed, 0])
    x, x_test = rng.permutation(np.linspace(-7, 10, 2000)), np.linspace(-7, 10, 200)
    arrays = (x, x**2 + rng.normal(0, 0.2, x.shape), x_test, x_test**2 + rng.normal(0, 0.2, x_test.shape))
    return Data(*(array.astype(np.float32)[:, None] for array in arrays))


def network(batch_norm: bool) -> nb.Sequential:
    """8 dense layers of 10 units, weights N(0, 0.1^2), biases 0; batch norm on the input and before each tanh."""
    small = nb.initializers.normal(0.1)
    layers: list[nb.Layer] = [nb.BatchNorm(DECAY)] if batch_norm else []
    for _ in range(LAYERS):
        layers += [nb.Dense(UNITS, weight_initializer=small), *([nb.BatchNorm(DECAY)] if batch_norm else []), nb.Tanh()]
    return nb.Sequential([*layers, nb.Dense(1, weight_initializer=small)])


def inside(model: nb.Sequential, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs and outputs of each tanh, on moving statistics; first x and the input of the first dense layer."""
    first = model.layers[0]
    y = first.forward(x)[0] if isinstance(first, nb.BatchNorm) else x
    values = [(x, y)]
    for layer in model.layers[1 if isinstance(first, nb.BatchNorm) else 0 :]:
        x, y = y, layer.forward(y)[0]
        if isinstance(layer, nb.Tanh):
            values.append((x, y))
    return values


def train(seed: int, batch_norm: bool, steps: int, backend: str, advance: Any) -> Run:
    """Train one network for `steps` batches; every epoch has a new order."""
    data = make_data(seed)
    model = network(batch_norm)
    model.build((1,), backend=backend, seed=seed)
    trainer = nb.Trainer(model, loss="mean_squared_error", optimizer=nb.Adam(LR))
    rng = np.random.default_rng([seed, 1])
    checks = checked(steps)
    losses, layers = [], []
    batches: list[np.ndarray] = []
    for step in range(steps + 1):
        if step in checks:
            losses.append(trainer.evaluate(data.x_test, data.y_test)["loss"])
            layers.append(inside(model, data.x_test))
        if step < steps:
            batches = batches or np.split(rng.permutation(len(data.x)), range(BATCH, len(data.x), BATCH))
            rows = batches.pop(0)
            trainer.train_batch(data.x[rows], data.y[rows])
            advance()
    return Run(checks, losses, model.predict(data.x_test)[:, 0], layers)


def run(settings: Settings) -> Result:
    """Train both networks with every seed and draw the results."""
    steps = QUICK_STEPS if settings.quick else STEPS
    runs: dict[bool, list[Run]] = {False: [], True: []}
    with progress("training", 2 * settings.seeds * steps) as advance:
        for seed in range(settings.seeds):
            for batch_norm in runs:
                runs[batch_norm].append(train(seed, batch_norm, steps, settings.backend, advance))
    tests = [make_data(seed).y_test for seed in range(settings.seeds)]
    trainings = [make_data(seed).y for seed in range(settings.seeds)]
    mean_loss = [float(np.mean((y - train.mean()) ** 2)) for y, train in zip(tests, trainings)]
    figures = {"steps": steps, "test_loss_of_the_mean": spread(mean_loss)} | {
        key: _figures(runs[batch_norm]) for batch_norm, key in ((False, "without"), (True, "with"))
    }
    _draw_losses(runs, mean_loss, settings.out / "losses.png")
    _draw_fits(runs, settings.out / "fits.png")
    _draw_units(figures, settings.out / "units.png")
    _animate(runs, 6 if settings.quick else 1, settings.out)
    pictures = [
        (
            "layers.gif",
            f"What goes into each layer's tanh and what comes out, over {steps} steps: seed 0, the 200 test points. Each histogram is "
            "scaled to its tallest bar; its outer bars hold all that lies beyond. Batch norm is shown as the test sees it, on moving "
            "statistics: they start at mean 0 and deviation 1, which changes nothing, and follow the batches within a few steps.",
        ),
        ("layers.png", f"The same after {steps} steps."),
        ("losses.png", "Test loss: median (line) and range (shade) over the seeds."),
        ("fits.png", "The fitted curves, one a seed, over the test points."),
        ("units.png", f"Units that say little: saturated (|tanh| > {SATURATED}) or still (the same for every x, within {STILL})."),
    ]
    return Result(TITLE, _summary(figures), figures, pictures)


def _figures(runs: list[Run]) -> dict[str, Any]:
    """Over the seeds: the final test loss, and for each hidden layer the share of saturated activations and of still units."""
    outs = [[activation for _, activation in run.layers[-1][1:]] for run in runs]
    saturated = np.array([[np.mean(np.abs(out) > SATURATED) for out in out_of] for out_of in outs])
    still = np.array([[np.mean(np.ptp(out, axis=0) < STILL) for out in out_of] for out_of in outs])
    return {
        "test_loss": spread(run.losses[-1] for run in runs),
        "saturated_share_by_layer": [spread(column) for column in saturated.T],
        "still_share_by_layer": [spread(column) for column in still.T],
    }


def _summary(figures: dict[str, Any]) -> list[str]:
    """Sentences computed from this run's figures."""
    plain, normed = figures["without"]["test_loss"]["seeds"], figures["with"]["test_loss"]["seeds"]
    mean = figures["test_loss_of_the_mean"]["seeds"]
    sentences = [
        f"After {figures['steps']} steps the test loss is {said(plain, '{:.0f}')} without batch norm and {said(normed, '{:.0f}')} with it: "
        f"lower with it {at_seeds([b < a for a, b in zip(plain, normed)])} (medians, ranges over the seeds in brackets)."
    ]
    idle = [a > 0.98 * b for a, b in zip(plain, mean)]
    if any(idle):
        sentences.append(
            f"Always predicting the mean of y gives a loss of {said(mean, '{:.0f}')}: without batch norm the network "
            f"has learnt no more than that {at_seeds(idle)}."
        )
    still = {key: [layer["median"] for layer in figures[key]["still_share_by_layer"]] for key in ("without", "with")}
    sentences.append(
        f"In the last hidden layer {still['without'][-1]:.0%} of the units are constant without batch norm (the same output for every x, "
        f"within {STILL}) and {still['with'][-1]:.0%} with it (medians)."
    )
    saturated = {key: [layer["median"] for layer in figures[key]["saturated_share_by_layer"]] for key in ("without", "with")}
    sentences.append(
        f"From {min(saturated['without']):.0%} to {max(saturated['without']):.0%} of a layer's outputs are saturated (beyond {SATURATED}) "
        f"without batch norm, and from {min(saturated['with']):.0%} to {max(saturated['with']):.0%} with it (medians, by layer)."
    )
    return [sentence.replace("%", " %") for sentence in sentences]


# ----------------------------------------------------------------------------------------------------- pictures


def _draw_losses(runs: dict[bool, list[Run]], mean_loss: list[float], path: Path) -> None:
    figure = drawing.figure(7.2, 4.2)
    axes = figure.subplots()
    for batch_norm, many in runs.items():
        losses = [run.losses for run in many]
        drawing.band(
            axes, many[0].steps, losses, f"{NAMES[batch_norm]}, {np.median(losses, axis=0)[-1]:.0f} at the end", COLOURS[batch_norm]
        )
    axes.axhline(float(np.median(mean_loss)), color=drawing.INK, linewidth=1, linestyle=":", label="always the mean of y")
    axes.set_ylim(bottom=0)
    seeds = len(runs[True])
    title = f"Loss on the test points, median and range of {seeds} seeds" if seeds > 1 else "Loss on the test points, one seed"
    drawing.dress(axes, title, f"training steps (batches of {BATCH})", "mean squared error", "lower left")
    drawing.save(figure, path)


def _draw_fits(runs: dict[bool, list[Run]], path: Path) -> None:
    data = make_data(0)
    x = data.x_test[:, 0]
    figure = drawing.figure(9.6, 4.2)
    for axes, (batch_norm, many) in zip(figure.subplots(1, 2, sharey=True), runs.items()):
        axes.plot(x, data.y_test[:, 0], ".", color="#a6a6a6", markersize=4, label="test points")
        for run in many:
            axes.plot(x, run.fit, color=COLOURS[batch_norm], linewidth=1, alpha=0.5, label="one seed" if run is many[0] else None)
        axes.plot(x, np.median([run.fit for run in many], axis=0), color=COLOURS[batch_norm], linewidth=2.6, label="median of the fits")
        drawing.dress(axes, NAMES[batch_norm].capitalize(), "x", "y = x² + noise" if not batch_norm else "", "upper center")
    drawing.save(figure, path)


def _draw_units(figures: dict[str, Any], path: Path) -> None:
    figure = drawing.figure(9.6, 4.0)
    places = np.arange(1, LAYERS + 1)
    kinds = (("saturated_share_by_layer", f"Saturated: |tanh| > {SATURATED}"), ("still_share_by_layer", "Still: the same for every x"))
    for axes, (key, title) in zip(figure.subplots(1, 2, sharey=True), kinds):
        for offset, batch_norm, name in ((-0.2, False, "without"), (0.2, True, "with")):
            layers = figures[name][key]
            middle = np.array([layer["median"] for layer in layers])
            reach = [middle - [layer["min"] for layer in layers], [layer["max"] for layer in layers] - middle]
            style = {"ecolor": drawing.INK, "error_kw": {"linewidth": 1, "capsize": 2}}
            axes.bar(places + offset, middle, 0.38, yerr=reach, color=COLOURS[batch_norm], label=NAMES[batch_norm], **style)
        axes.set_xticks(places)
        axes.set_ylim(0, 1.02)
        drawing.percent(axes)
        drawing.dress(axes, title, "hidden layer", "share of outputs" if "saturated" in key else "share of units")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    drawing.save(figure, path)


def _animate(runs: dict[bool, list[Run]], every: int, folder: Path) -> None:
    """layers.gif, and its last frame as layers.png: 4 rows of histograms, one column for the input and one per hidden layer."""
    figure = drawing.figure(13.2, 6.4)
    figure.set_dpi(85)
    figure.set_layout_engine("none")  # the same positions in every frame
    places = {"left": 0.05, "right": 0.99, "top": 0.88, "bottom": 0.045, "wspace": 0.16, "hspace": 0.32}
    grid = figure.subplots(4, LAYERS + 1, gridspec_kw=places)
    rows = [(part, batch_norm) for part in (0, 1) for batch_norm in (False, True)]
    patches, notes = [], []
    for row, (part, batch_norm) in enumerate(rows):
        for column, axes in enumerate(grid[row]):
            low, high = _range(part, batch_norm, column)
            patches.append(axes.stairs(np.zeros(BINS), np.linspace(low, high, BINS + 1), fill=True, color=COLOURS[batch_norm]))
            notes.append(axes.text(0.5, 0.95, "", transform=axes.transAxes, ha="center", va="top", fontsize=8, color=drawing.INK))
            axes.set(xlim=(low, high), ylim=(0, 1.28), yticks=[], xticks=[low, (low + high) / 2, high] if column else [low, high])
            axes.tick_params(labelsize=7.5, length=2)
            axes.spines[["top", "right", "left"]].set_visible(False)
            if row == 0:
                axes.set_title(f"layer {column}" if column else "input", fontsize=10.5, fontweight="bold", color=drawing.INK)
        grid[row, 0].set_ylabel(f"{('into tanh', 'out of tanh')[part]}\n{NAMES[batch_norm]}", color=COLOURS[batch_norm], fontsize=9.5)
    steps, frames = runs[True][0].steps, []
    shown = sorted({*range(0, len(steps), every), len(steps) - 1})
    with progress("drawing", len(shown)) as advance:
        for i in shown:
            _set(patches, notes, [runs[batch_norm][0].layers[i][column][part] for part, batch_norm in rows for column in range(LAYERS + 1)])
            losses = ", ".join(f"test loss {runs[b][0].losses[i]:.0f} {NAMES[b]}" for b in runs)
            figure.suptitle(f"step {steps[i]}: {losses}", fontsize=13, x=0.01, y=0.985, ha="left", color=drawing.INK)
            frames.append(animation.frame(figure))
            advance()
    animation.save(frames, folder / "layers.gif", [*[180] * (len(frames) - 1), 3000])
    figure.set_dpi(drawing.DPI)
    drawing.save(figure, folder / "layers.png")


def _range(part: int, batch_norm: bool, column: int) -> tuple[float, float]:
    return RANGES[part] if column else (-3.0, 3.0) if part and batch_norm else (-8.0, 11.0)


def _set(patches: list[Any], notes: list[Any], values: list[np.ndarray]) -> None:
    """Show these values: values outside a histogram's range count in its outer bars; the tallest bar has height 1."""
    for place, (patch, note, shown) in enumerate(zip(patches, notes, values)):
        edges = patch.get_data().edges
        inner = np.clip(shown, edges[0] + 1e-6, edges[-1] - 1e-6)
        counts = np.histogram(inner, edges)[0]
        patch.set_data(counts / counts.max())
        if place >= 2 * (LAYERS + 1) and place % (LAYERS + 1):
            note.set_text(f"{100 * np.mean(np.abs(shown) > SATURATED):.0f} % saturated")
