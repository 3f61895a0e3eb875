"""A wide network on twenty points: the effect of dropout, and of averaging the weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import nbnet as nb
from nbnet.demos import Result, Settings, drawing, progress
from nbnet.demos.drawing import at_seeds, said, spread

TITLE = "Dropout against overfitting: 91,201 parameters, 20 points"
SEEDS = 5
BACKEND = "serial"  # twenty rows are not worth a second thread
RATES = (0.0, 0.25, 0.5, 0.75)
COLOURS = dict(zip(RATES, (drawing.RED, drawing.ORANGE, drawing.BLUE, drawing.GREEN)))
POINTS, TEST_POINTS, NOISE = 20, 200, 0.3
UNITS, LR = 300, 0.01
STEPS, QUICK_STEPS, EVALUATIONS = 1000, 150, 50  # evaluations along the steps, evenly
EMA_DECAY = 0.99
FEW = 5  # points per batch of one more run without dropout: small batches make the gradient noisy
SNAPSHOTS = 10  # evaluations at the end that are averaged: their losses, or their predictions
MASKS, QUICK_MASKS = 4096, 256
GRID = np.linspace(-1.15, 1.15, 161, dtype=np.float32)[:, None]


class Run(NamedTuple):
    history: dict[str, np.ndarray]  # losses by evaluation: train, test, average (of the weights)
    fit: np.ndarray  # final predictions over GRID
    average_fit: np.ndarray  # the same with averaged weights
    ensemble: float  # test loss of the mean prediction of the last evaluations
    model: nb.Sequential


def make_data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """y = x + N(0, 0.3^2) on [-1, 1]: 20 points to train on, 200 to test."""
    rng = np.random.default_rng([seed, 0])
    x, x_test = (np.linspace(-1, 1, count)[:, None] for count in (POINTS, TEST_POINTS))
    arrays = (x, x + rng.normal(0, NOISE, x.shape), x_test, x_test + rng.normal(0, NOISE, x_test.shape))
    return tuple(array.astype(np.float32) for array in arrays)  # type: ignore[return-value]


def network(rate: float) -> nb.Sequential:
    """1-300-300-1 with ReLU; dropout after both hidden layers, where the rate is not 0."""
    layers: list[nb.Layer] = []
    for _ in range(2):
        layers += [nb.Dense(UNITS), nb.ReLU(), *([nb.Dropout(rate)] if rate else [])]
    return nb.Sequential([*layers, nb.Dense(1)])


def train(rate: float, seed: int, steps: int, backend: str, advance: Any, batch: int = POINTS) -> Run:
    """Batches of random points, or of all; the average of the weights follows every step."""
    x, y, x_test, y_test = make_data(seed)
    model = network(rate)
    model.build((1,), backend=backend, seed=seed)
    trainer = nb.Trainer(model, loss="mean_squared_error", optimizer=nb.Adam(LR))
    average = nb.ExponentialMovingAverage(EMA_DECAY, zero_debias=True)
    rng = np.random.default_rng([seed, 1])
    history: dict[str, list[float]] = {"train": [], "test": [], "average": []}
    predictions = []
    for step in range(1, steps + 1):
        rows = rng.choice(POINTS, batch, replace=False)
        trainer.train_batch(x[rows], y[rows])
        average.apply({name: param.value for name, param in model.params.items()})
        if step % (steps // EVALUATIONS) == 0:
            history["train"].append(trainer.evaluate(x, y)["loss"])
            history["test"].append(trainer.evaluate(x_test, y_test)["loss"])
            predictions.append(model.predict(x_test))
            with average.swapped(model):
                history["average"].append(trainer.evaluate(x_test, y_test)["loss"])
    together = np.mean(predictions[-SNAPSHOTS:], axis=0)
    with average.swapped(model):
        average_fit = model.predict(GRID)[:, 0]
    advance()
    losses = {name: np.array(values) for name, values in history.items()}
    return Run(losses, model.predict(GRID)[:, 0], average_fit, float(np.mean((together - y_test) ** 2)), model)


def expectation(model: nb.Sequential, seed: int, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Relative distance between a hidden layer's dropped output, averaged over masks, and its evaluation, by the number of masks."""
    hidden = model.layers[1].forward(model.layers[0].forward(GRID[::8])[0])[0]
    errors = {}
    for stream, variant in enumerate(("inverted", "vanilla")):
        options: dict[str, Any] = {"rate": 0.5, "seed": seed, "stream": stream, "variant": variant, "backend": "serial"}
        evaluated, _ = nb.functional.dropout_forward(hidden, **options, train=False)
        total = np.zeros(hidden.shape)
        error = []
        for step in range(counts[-1]):
            total += nb.functional.dropout_forward(hidden, **options, step=step)[0]
            if step + 1 in counts:
                error.append(np.linalg.norm(total / (step + 1) - evaluated) / np.linalg.norm(evaluated))
        errors[variant] = np.array(error)
    return errors


def run(settings: Settings) -> Result:
    """Train each rate with every seed, compare the two variants of dropout, and draw the results."""
    steps = QUICK_STEPS if settings.quick else STEPS
    counts = 2 ** np.arange(int(np.log2(QUICK_MASKS if settings.quick else MASKS)) + 1)
    runs: dict[float, list[Run]] = {rate: [] for rate in RATES}
    noisy, means = [], []
    with progress(TITLE, settings.seeds * (len(RATES) + 2)) as advance:
        for seed in range(settings.seeds):
            for rate in RATES:
                runs[rate].append(train(rate, seed, steps, settings.backend, advance))
            noisy.append(train(0.0, seed, steps, settings.backend, advance, FEW))
            means.append(expectation(runs[0.0][seed].model, seed, counts))
            advance()
    figures = _figures(runs, noisy, means, counts, steps)
    _draw_fits(runs, settings)
    _draw_losses(runs, steps, settings)
    _draw_averages(figures["averaging"], settings)
    _draw_expectation(means, counts, settings)
    _draw_masks(settings)
    pictures = [
        (
            "fits.png",
            f"The network's function after {steps} steps: thick, of the first seed, with its points; thin, of the others.",
        ),
        ("losses.png", f"Loss on the 20 points and on {TEST_POINTS} others, both without dropping: median and range of the seeds."),
        (
            "averages.png",
            f"Test loss of one of the last {SNAPSHOTS} snapshots, of average weights, and of the snapshots' mean prediction; a dot a seed.",
        ),
        (
            "expectation.png",
            "How far the mean over masks is from evaluation, for both variants of dropout: it falls as 1 / √masks.",
        ),
        (
            "masks.png",
            "What is dropped is orange: above, units of ten rows; below, pixels of a digit, and whole channels (spatial dropout).",
        ),
    ]
    return Result(TITLE, _summary(runs, figures), figures, pictures)


# ------------------------------------------------------------------------------------------------------ figures


def _late(runs: list[Run], name: str) -> list[float]:
    """The mean loss of the last snapshots, each by itself: a single step depends on chance."""
    return [float(run.history[name][-SNAPSHOTS:].mean()) for run in runs]


def _slope(fit: np.ndarray) -> float:
    """The slope of the straight line closest to the network's function on [-1, 1]; the true slope is 1."""
    inside = np.abs(GRID[:, 0]) <= 1
    return float(np.polyfit(GRID[inside, 0], fit[inside], 1)[0])


def _figures(
    runs: dict[float, list[Run]], noisy: list[Run], means: list[dict[str, np.ndarray]], counts: np.ndarray, steps: int
) -> dict[str, Any]:
    figures: dict[str, Any] = {"steps": steps, "masks": int(counts[-1]), "rates": {}}
    for rate, each in runs.items():
        figures["rates"][f"{rate:g}"] = {
            "training_loss": spread(_late(each, "train")),
            "test_loss": spread(_late(each, "test")),
            "best_test_loss": spread(run.history["test"].min() for run in each),
            "slope": spread(_slope(run.fit) for run in each),
            "slope_of_average_weights": spread(_slope(run.average_fit) for run in each),
        }
    walks = {f"p = 0, batches of {FEW}": noisy} | {f"p = {rate:g}": each for rate, each in runs.items()}
    figures["averaging"] = {
        name: {
            "snapshot": spread(_late(each, "test")),
            "average_weights": spread(run.history["average"][-1] for run in each),
            "mean_prediction": spread(run.ensemble for run in each),
        }
        for name, each in walks.items()
    }
    figures["distance_of_mean_from_evaluation"] = {variant: spread(mean[variant][-1] for mean in means) for variant in means[0]}
    return figures


def _summary(runs: dict[float, list[Run]], figures: dict[str, Any]) -> list[str]:
    rates = list(zip(RATES, figures["rates"].values()))
    tests = {rate: _late(each, "test") for rate, each in runs.items()}
    ranked = sorted(RATES, key=lambda rate: float(np.median(tests[rate])))
    lines = [
        f"{figures['steps']:,} steps of Adam {LR:g} on {POINTS} points; losses are means of the last {SNAPSHOTS} evaluations, medians and "
        f"the range over {len(tests[0.0])} seeds (the noise alone is a test loss of {NOISE**2:g}):"
    ]
    lines += [f"p = {rate:g}: training loss {said(_late(runs[rate], 'train'))}, test loss {said(tests[rate])}." for rate in RATES]
    for rate in RATES[1:]:
        lines.append(f"p = {rate:g} has a lower test loss than no dropout {at_seeds([a < b for a, b in zip(tests[rate], tests[0.0])])}.")
    lines.append(f"The lowest median test loss is that of p = {ranked[0]:g}, the highest that of p = {ranked[-1]:g}.")
    for name, each in figures["averaging"].items():
        single, averaged, ensemble = (each[key]["seeds"] for key in ("snapshot", "average_weights", "mean_prediction"))
        lines.append(
            f"{name}: one of the last {SNAPSHOTS} snapshots has a test loss of {said(single)}, their mean prediction {said(ensemble)}, "
            f"average weights {said(averaged)}: better than a snapshot {at_seeds([a < b for a, b in zip(averaged, single)])}."
        )
    slopes = [f"p = {rate:g} {said(each['slope']['seeds'])} and {said(each['slope_of_average_weights']['seeds'])}" for rate, each in rates]
    lines.append(
        "Slope of the straight line nearest to the fit, with the last and with average weights (the truth is 1): " + "; ".join(slopes) + "."
    )
    ends = figures["distance_of_mean_from_evaluation"]
    lines.append(
        f"The mean over {figures['masks']:,} masks of p = 0.5 is within {100 * ends['inverted']['max']:.2g} % (inverted) and "
        f"{100 * ends['vanilla']['max']:.2g} % (vanilla) of what evaluation gives, at every seed."
    )
    return lines


# ----------------------------------------------------------------------------------------------------- pictures


def _draw_fits(runs: dict[float, list[Run]], settings: Settings) -> None:
    made = drawing.figure(12, 3.9)
    x, y, _, _ = make_data(0)
    for axes, (rate, each) in zip(made.subplots(1, len(RATES), sharey=True), runs.items()):
        axes.plot(GRID[:, 0], GRID[:, 0], "--", color=drawing.FAINT, linewidth=1.2, label="the truth, y = x")
        for run in each[1:]:
            axes.plot(GRID[:, 0], run.fit, color=COLOURS[rate], alpha=0.4, linewidth=1, label="other seeds" if run is each[1] else None)
        axes.plot(GRID[:, 0], each[0].fit, color=COLOURS[rate], linewidth=2.4, label="the fit, first seed")
        axes.plot(x[:, 0], y[:, 0], "o", color=drawing.INK, markersize=4.5, label="its 20 points")
        axes.set_ylim(-2.1, 2.1)
        drawing.dress(axes, f"p = {rate:g}", "x", "y" if rate == 0 else "", "upper left" if rate == RATES[-1] else False)
    drawing.save(made, settings.out / "fits.png")


def _draw_losses(runs: dict[float, list[Run]], steps: int, settings: Settings) -> None:
    made = drawing.figure(11, 4.4)
    for axes, (name, title) in zip(made.subplots(1, 2), (("train", f"on the {POINTS} training points"), ("test", "on test points"))):
        for rate, each in runs.items():
            losses = np.array([run.history[name] for run in each])
            drawing.band(axes, steps // EVALUATIONS * np.arange(1, losses.shape[1] + 1), losses, f"p = {rate:g}", COLOURS[rate])
        axes.axhline(NOISE**2, color=drawing.FAINT, linestyle="--", linewidth=1.2, label="variance of the noise")
        axes.set_yscale("log")
        if name == "test":
            axes.set_ylim(0.7 * NOISE**2, 1)
        drawing.plain_log(axes.yaxis)
        drawing.dress(axes, title, "step", "mean squared error, nothing dropped", "upper right")
    drawing.save(made, settings.out / "losses.png")


def _draw_averages(averaging: dict[str, Any], settings: Settings) -> None:
    made = drawing.figure(9, 4.4)
    axes = made.subplots()
    for place, each in enumerate(averaging.values()):
        kinds = (
            (each["snapshot"]["seeds"], drawing.RED, f"one snapshot (mean of the last {SNAPSHOTS})"),
            (each["average_weights"]["seeds"], drawing.BLUE, f"average weights (decay {EMA_DECAY:g})"),
            (each["mean_prediction"]["seeds"], drawing.GREEN, f"mean prediction of the last {SNAPSHOTS} snapshots"),
        )
        for shift, (values, colour, label) in zip((-0.27, 0, 0.27), kinds):
            drawing.dots(axes, place + shift, values, colour, None if place else label, width=0.11)
    axes.axhline(NOISE**2, color=drawing.FAINT, linestyle="--", linewidth=1.2, label="variance of the noise")
    axes.set_xticks(range(len(averaging)), [name.replace(", ", ",\n") for name in averaging])
    drawing.dress(axes, "averaging along one run", "", "mean squared error on test points", "best")
    drawing.save(made, settings.out / "averages.png")


def _draw_expectation(means: list[dict[str, np.ndarray]], counts: np.ndarray, settings: Settings) -> None:
    made = drawing.figure(6.6, 4.4)
    axes = made.subplots()
    for variant, colour, line in (("inverted", drawing.BLUE, "-"), ("vanilla", drawing.ORANGE, "--")):
        drawing.band(axes, counts, 100 * np.array([mean[variant] for mean in means]), variant, colour, line)
    axes.plot(counts, 100 / np.sqrt(counts), ":", color=drawing.INK, linewidth=1.2, label="100 % / √masks")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    drawing.plain_log(axes.yaxis)
    axes.set_xticks(counts[::2], [f"{count:,}" for count in counts[::2]])
    drawing.dress(axes, "the mean over masks goes to evaluation, p = 0.5", "masks", "distance from evaluation, %", "upper right")
    drawing.save(made, settings.out / "expectation.png")


def _draw_masks(settings: Settings) -> None:
    made = drawing.figure(11.5, 4.4)
    from matplotlib import colormaps

    top, bottom = made.subfigures(2, 1, height_ratios=(1, 1.15))
    shades = colormaps["gray"].with_extremes(bad=drawing.RED)  # what is dropped
    for axes, rate in zip(top.subplots(1, 3), RATES[1:]):
        kept = nb.functional.dropout_forward(np.ones((10, 40)), rate, seed=0)[0] > 0
        axes.imshow(np.where(kept, 0.9, np.nan), cmap=shades, vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([0, 9, 19, 29, 39], ["1", "10", "20", "30", "40"])
        axes.set_yticks([0, 9], ["1", "10"])
        drawing.dress(axes, f"p = {rate:g}: {kept.mean():.0%} kept".replace("%", " %"), "unit", "row")
        axes.grid(False)
    digit = nb.datasets.load("digits")[0][0][:1].astype(np.float64) / 255
    views = [("a digit", digit[0, ..., 0])]
    for rate in RATES[1:]:
        kept = nb.functional.dropout_forward(np.ones_like(digit), rate, seed=0)[0] > 0
        views.append((f"pixels\np = {rate:g}", np.where(kept, digit, np.nan)[0, ..., 0]))
    conv = nb.Sequential([nb.Conv2D(4, 3)])
    conv.build((8, 8, 1), backend="serial", dtype="float64", seed=1)
    maps = conv.predict(digit)
    kept = nb.functional.dropout_forward(np.ones_like(maps), 0.5, seed=5, noise_shape=(1, 1, 1, 4))[0] > 0
    maps = np.where(kept, (maps - maps.min()) / np.ptp(maps), np.nan)[0]
    views += [(f"channel {c + 1}, p = 0.5\n{'dropped' if np.isnan(maps[..., c]).all() else 'kept'}", maps[..., c]) for c in range(4)]
    for axes, (title, image) in zip(bottom.subplots(1, len(views)), views):
        axes.imshow(image, cmap=shades, vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(title, fontsize=10, color=drawing.INK)
    drawing.save(made, settings.out / "masks.png")
