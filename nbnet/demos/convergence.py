"""One hidden tanh layer with and without batch norm: equal in the end from one initialisation, far apart from another."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nbnet as nb
from nbnet.demos import Result, Settings, drawing, progress, torch_twin
from nbnet.demos.drawing import at_seeds, said, spread

TITLE = "How fast a small network converges, with and without batch norm"
SEEDS = 5

TRAIN, TEST, UNITS, LR = 1000, 300, 300, 1e-3
EPOCHS, EPOCHS_SMALL = 10_000, 2_000
QUICK = 60
EARLY = 200  # the epoch at which the start is compared
LEVELS = (10.0, 1.0, 0.1)  # training losses to reach
NAMES = {False: "without batch norm", True: "with batch norm"}
COLOURS = {False: drawing.RED, True: drawing.BLUE}


class Start(NamedTuple):
    """An initialisation: all weights and biases from N(0, deviation^2)."""

    key: str
    deviation: float
    epochs: int
    title: str


class Run(NamedTuple):
    train: np.ndarray  # (epochs + 1,) the loss before each step
    test: np.ndarray  # at `seen(epochs)`
    seconds: float  # of the training steps


def make_data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x = (r, g, b) uniform in [-1, 1]^3; targets (r + 2g + 3b, r^2 + 2g^2 + 3b^2, -3r - 4g - 5b); 1,000 and 300 rows."""
    x = np.random.default_rng([seed, 2]).uniform(-1, 1, (TRAIN + TEST, 3))
    y = np.stack([x @ [1, 2, 3], x**2 @ [1, 2, 3], x @ [-3, -4, -5]], axis=1)
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def network(batch_norm: bool, deviation: float) -> nb.Sequential:
    """3-300-3; batch norm (the dialect that averages the deviation: decay 0.9, eps 1e-6) before the tanh."""
    normal = nb.initializers.normal(deviation)
    hidden, out = (nb.Dense(units, weight_initializer=normal, bias_initializer=normal) for units in (UNITS, 3))
    return nb.Sequential([hidden, *([nb.BatchNorm.preset("sigma")] if batch_norm else []), nb.Tanh(), out])


def seen(epochs: int) -> np.ndarray:
    """Epochs at which the test loss is measured, evenly spaced on a log axis."""
    return np.unique(np.round(np.geomspace(1, epochs + 1, 90)).astype(int)) - 1


def stepper(model: nb.Sequential, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    """A function that takes one full-batch step of Adam and returns the loss before it: Trainer.train_batch without checks."""
    optimizer, params = nb.Adam(LR), model.params

    def step() -> float:
        prediction, tape = model.forward(x, train=True)
        loss = nb.losses.sum_squared_error(prediction, y, backend=model.backend)
        model.backward(loss.gradient, tape, need_dx=False)
        optimizer.step(params, model.backend)
        return loss.total / len(x)

    return step


def train(seed: int, batch_norm: bool, start: Start, backend: str, advance: Callable[..., None]) -> Run:
    """Train one network from one start."""
    x, y, x_test, y_test = make_data(seed)
    model = network(batch_norm, start.deviation)
    model.build((3,), backend=backend, dtype="float64", seed=seed)
    step = stepper(model, x, y)
    tested, when = [], set(seen(start.epochs).tolist())
    losses, seconds = np.empty(start.epochs + 1), 0.0
    for epoch in range(start.epochs + 1):
        if epoch in when:
            prediction = model.forward(x_test)[0]
            tested.append(nb.losses.sum_squared_error(prediction, y_test, backend=backend).total / TEST)
        began = time.perf_counter()
        losses[epoch] = step()
        seconds += time.perf_counter() - began
        advance()
    return Run(losses, np.array(tested), seconds)


def linear_fit(seed: int) -> float:
    """The training loss of the best linear function, which a network is while its tanh units get tiny inputs."""
    x, y, *_ = make_data(seed)
    design = np.column_stack([x, np.ones(TRAIN)])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float((residual**2).sum() / TRAIN)


def beside_pytorch(backend: str, **options: int) -> dict[str, Any] | None:
    """Times of a training step in nbnet and in PyTorch, measured in turns."""
    x, y, *_ = make_data(0)
    ours = {}
    for batch_norm, key in ((False, "without"), (True, "with")):
        model = network(batch_norm, 1.0)
        model.build((3,), backend=backend, dtype="float64")
        ours[key] = stepper(model, x, y)
    return torch_twin.measure(ours, x, y, UNITS, LR, backend, **options)


def run(settings: Settings) -> Result:
    """Train both networks from both starts with every seed, draw the results, and time nbnet against PyTorch where it is installed."""
    starts = [
        Start("tutorial", 1.0, QUICK if settings.quick else EPOCHS, "Weights with standard deviation 1, as in the tutorial"),
        Start("small", 0.01, QUICK if settings.quick else EPOCHS_SMALL, "Weights with standard deviation 0.01"),
    ]
    runs: dict[str, dict[bool, list[Run]]] = {start.key: {False: [], True: []} for start in starts}
    with progress("training", 2 * settings.seeds * sum(start.epochs + 1 for start in starts)) as advance:
        for start in starts:
            for seed in range(settings.seeds):
                for batch_norm in NAMES:
                    runs[start.key][batch_norm].append(train(seed, batch_norm, start, settings.backend, advance))
    figures: dict[str, Any] = {start.key: _figures(start, runs[start.key]) for start in starts}
    figures["linear_fit_loss"] = spread(linear_fit(seed) for seed in range(settings.seeds))
    figures["beside_pytorch"] = None if settings.quick else beside_pytorch(settings.backend)
    _draw_curves(starts, runs, figures["linear_fit_loss"]["median"], settings.out / "curves.png")
    _draw_ratio(starts, runs, settings.out / "ratio.png")
    _draw_epochs(starts, figures, settings.out / "epochs.png")
    pictures = [
        ("curves.png", "The four loss curves of each start: median (line) and range (shade) over the seeds. Both axes are logarithmic."),
        ("ratio.png", "Training loss without batch norm over the loss with it, seed by seed: above 1 batch norm leads."),
        ("epochs.png", "Epochs until a training loss is reached, one dot a seed; a triangle at the top means not within the run."),
    ]
    return Result(TITLE, _summary(starts, figures), figures, pictures)


def _figures(start: Start, runs: dict[bool, list[Run]]) -> dict[str, Any]:
    epochs = sorted({epoch for epoch in (50, EARLY, 400, 1000, 4000) if epoch < start.epochs} | {start.epochs})
    figures: dict[str, Any] = {"epochs": start.epochs, "deviation_of_the_weights": start.deviation}
    for batch_norm, key in ((False, "without"), (True, "with")):
        many = runs[batch_norm]
        figures[key] = {
            "train_loss_at_epoch": {epoch: spread(run.train[epoch] for run in many) for epoch in epochs},
            "final_test_loss": spread(run.test[-1] for run in many),
            "epochs_to_loss": {level: [reached(run.train, level) for run in many] for level in LEVELS},
            "seconds": spread(run.seconds for run in many),
        }
    ratios = {epoch: [a.train[epoch] / b.train[epoch] for a, b in zip(runs[False], runs[True])] for epoch in epochs}
    figures["loss_without_over_loss_with_at_epoch"] = {epoch: spread(each) for epoch, each in ratios.items()}
    return figures


def reached(losses: np.ndarray, level: float) -> int | None:
    """The first epoch at which the loss is at most `level`."""
    below = np.flatnonzero(losses <= level)
    return int(below[0]) if len(below) else None


def _summary(starts: list[Start], figures: dict[str, Any]) -> list[str]:
    """Sentences computed from this run's figures."""
    tutorial, small = (figures[start.key] for start in starts)
    last = [start.epochs for start in starts]
    early = min(EARLY, last[0])
    sentences = [f"{starts[0].title}: {_compare(tutorial, early)}"]
    if last[0] > early:
        sentences.append(f"There, {_compare(tutorial, last[0])}")
    ratios = tutorial["loss_without_over_loss_with_at_epoch"]
    parts = [f"{each['median']:.1f} after {epoch:,} ({sum(r > 1 for r in each['seeds'])})" for epoch, each in ratios.items()]
    seeds = len(next(iter(ratios.values()))["seeds"])
    sentences.append(
        f"The loss without batch norm over the loss with it: {', '.join(parts)} epochs (medians; in brackets, at how many "
        f"of {seeds} seeds it is above 1)."
    )
    levels = {key: tutorial[key]["epochs_to_loss"][LEVELS[1]] for key in ("without", "with")}
    if all(levels["without"] + levels["with"]):
        with_, without = (said(levels[key], "{:,.0f}") for key in ("with", "without"))
        sentences.append(f"To a training loss of {LEVELS[1]:g} it takes {with_} epochs with batch norm, {without} without.")
    sentences.append(f"{starts[1].title}: {_compare(small, last[1])}")
    line = figures["linear_fit_loss"]["seeds"]
    stuck = [abs(loss / fit - 1) < 0.05 for loss, fit in zip(small["without"]["train_loss_at_epoch"][last[1]]["seeds"], line)]
    if any(stuck):
        sentences.append(
            f"The best linear function costs {said(line)}, and the small start without batch norm is still within 5 % of that "
            f"{at_seeds(stuck)}: tiny inputs reach only the linear part of tanh."
        )
    return sentences + torch_twin.sentences(figures["beside_pytorch"], EPOCHS)


def _compare(found: dict[str, Any], epoch: int) -> str:
    plain, normed = (found[key]["train_loss_at_epoch"][epoch]["seeds"] for key in ("without", "with"))
    lower = at_seeds([b < a for a, b in zip(plain, normed)])
    return (
        f"after {epoch:,} epochs the training loss is {said(plain)} without batch norm and {said(normed)} with it, lower with it {lower}."
    )


# ----------------------------------------------------------------------------------------------------- pictures


def _draw_curves(starts: list[Start], runs: dict[str, dict[bool, list[Run]]], linear: float, path: Path) -> None:
    figure = drawing.figure(11, 4.6)
    for axes, start in zip(figure.subplots(1, 2), starts):
        for batch_norm, many in runs[start.key].items():
            epochs = seen(start.epochs)
            for part, line in (("train", "-"), ("test", "--")):
                losses = [run.train[epochs] if part == "train" else run.test for run in many]
                label = f"{part}, {NAMES[batch_norm]}"
                drawing.band(axes, epochs + 1, losses, label, COLOURS[batch_norm], line, shade=part == "train")
        _log(axes)
        if start.key == "small":
            axes.axhline(linear, color=drawing.INK, linewidth=1, linestyle=":", label="best linear function")
        drawing.dress(axes, start.title, "epoch (one step each), counted from 1", "sum of squares per row", "lower left")
    drawing.save(figure, path)


def _draw_ratio(starts: list[Start], runs: dict[str, dict[bool, list[Run]]], path: Path) -> None:
    figure = drawing.figure(11, 4.2)
    for axes, start in zip(figure.subplots(1, 2), starts):
        epochs = seen(start.epochs)
        ratios = [a.train[epochs] / b.train[epochs] for a, b in zip(runs[start.key][False], runs[start.key][True])]
        drawing.band(axes, epochs + 1, ratios, "median and range over the seeds", drawing.GREEN)
        axes.axhline(1, color=drawing.INK, linewidth=1.2, linestyle=":", label="level")
        _log(axes)
        drawing.dress(axes, start.title, "epoch, counted from 1", "loss without / loss with")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    drawing.save(figure, path)


def _draw_epochs(starts: list[Start], figures: dict[str, Any], path: Path) -> None:
    figure = drawing.figure(11, 4.2)
    for axes, start in zip(figure.subplots(1, 2), starts):
        for batch_norm, key, offset in ((False, "without", -0.2), (True, "with", 0.2)):
            for place, epochs in enumerate(figures[start.key][key]["epochs_to_loss"].values()):
                found = [epoch for epoch in epochs if epoch is not None]
                if len(found) == len(epochs):
                    drawing.dots(axes, place + offset, found, COLOURS[batch_norm], width=0.14)
                elif found:
                    axes.plot(place + offset + 0.02 * np.arange(len(found)), found, "o", color=COLOURS[batch_norm], markersize=5.5)
                if len(found) < len(epochs):
                    count = f"{len(epochs) - len(found)} of {len(epochs)}"
                    axes.plot(place + offset, start.epochs, "^", color=COLOURS[batch_norm], markersize=9)
                    axes.annotate(count, (place + offset, start.epochs), (0, 8), textcoords="offset points", ha="center", fontsize=9)
            axes.plot([], [], "o", color=COLOURS[batch_norm], label=NAMES[batch_norm])
        axes.plot([], [], "^", color=drawing.FAINT, label=f"not within {start.epochs:,} epochs")
        axes.set_yscale("log")
        axes.set_ylim(1, 3 * start.epochs)
        axes.set_xticks(range(len(LEVELS)), [f"{level:g}" for level in LEVELS])
        axes.set_xlim(-0.5, len(LEVELS) - 0.5)
        _plain(axes.yaxis)
        drawing.dress(axes, start.title, "training loss to reach", "epochs", "lower right")
    drawing.save(figure, path)


def _log(axes: Any) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        _plain(axis)


def _plain(axis: Any) -> None:
    """Powers of ten in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
