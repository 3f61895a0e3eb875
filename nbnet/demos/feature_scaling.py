"""Two features of mean 0 and 200: how their scale slows gradient descent, and how StandardScaler and batch norm help."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import nbnet as nb
from nbnet.demos import Result, Settings, drawing, progress
from nbnet.demos.drawing import at_seeds, said, spread

TITLE = "Feature scaling: one network, three ways to feed it"
SEEDS = 5
BACKEND = "serial"  # two features are not worth a second thread
RAW, SCALED, NORMED = "as they are", "StandardScaler", "batch norm"
COLOURS = {RAW: drawing.RED, SCALED: drawing.BLUE, NORMED: drawing.GREEN}
ROWS, BATCH = 1000, 100
MEANS, DEVIATION, WEIGHTS, NOISE = (0.0, 200.0), 10.0, (1.0, 1.0), 1.0
LOWEST, HIGHEST = 1e-7, 1e3  # learning rates between which the bisection searches
PATH, PATH_SHARE = 60, 0.25  # steps that are drawn, and their rate: this share of the largest one
CURVE_SHARE = 0.1  # the same for the loss curves
CLOSE = 1.1  # times the least-squares loss counts as converged


class Size(NamedTuple):
    bisections: int
    trial: int  # steps of one trial of the bisection
    steps: int  # of the loss curves


FULL, QUICK = Size(12, 300, 10000), Size(8, 40, 300)


class Run(NamedTuple):
    largest: float  # the largest learning rate that converges
    theory: float  # 2 / the largest curvature
    path: np.ndarray  # (PATH + 1, 3): the two weights and the bias
    losses: np.ndarray  # on all rows after each of `moments(steps)`, at a tenth of the largest rate
    best: float  # loss of the least squares' solution


def make_data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x (1000, 2): N(0, 10^2) and N(200, 10^2); y (1000, 1) = x1 + x2 + N(0, 1)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(MEANS, DEVIATION, (ROWS, 2))
    return x, x @ np.array(WEIGHTS)[:, None] + rng.normal(0, NOISE, (ROWS, 1))


def make_trainer(kind: str, lr: float, backend: str) -> nb.Trainer:
    """One linear unit that starts from zeros, after a batch norm of the input if `kind` asks for it."""
    first = [nb.BatchNorm(decay=0.99, zero_debias=True, center=False, scale=False)] if kind == NORMED else []
    model = nb.Sequential([*first, nb.Dense(1, weight_initializer="zeros")])
    model.build((2,), backend=backend, dtype="float64", seed=0)
    return nb.Trainer(model, loss="mean_squared_error", optimizer=nb.SGD(lr))


def batches(x: np.ndarray, y: np.ndarray, steps: int) -> Any:
    """`steps` batches in a new order every epoch, the same for all networks."""
    rng = np.random.default_rng(0)
    for step in range(steps):
        start = step * BATCH % ROWS
        if start == 0:
            order = rng.permutation(ROWS)
        rows = order[start : start + BATCH]
        yield x[rows], y[rows]


def converges(kind: str, lr: float, x: np.ndarray, y: np.ndarray, steps: int, backend: str) -> bool:
    """Whether the loss of the last ten of `steps` batches is below that of the first."""
    trainer = make_trainer(kind, lr, backend)
    losses = []
    for batch in batches(x, y, steps):
        losses.append(trainer.train_batch(*batch)["loss"])
        if losses[-1] > 100 * losses[0]:
            return False
    return float(np.mean(losses[-10:])) < losses[0]


def largest_rate(kind: str, x: np.ndarray, y: np.ndarray, size: Size, settings: Settings, advance: Any) -> float:
    """The largest learning rate that converges, by bisection of its logarithm."""
    low, high = np.log(LOWEST), np.log(HIGHEST)
    for _ in range(size.bisections):
        middle = (low + high) / 2
        if converges(kind, float(np.exp(middle)), x, y, size.trial, settings.backend):
            low = middle
        else:
            high = middle
        advance()
    return float(np.exp(low))


def moments(steps: int) -> np.ndarray:
    """Increasing step counts from 0, evenly spaced on a log axis, after which the loss is measured."""
    return np.unique(np.append(0, np.round(np.geomspace(1, steps, 150)).astype(int)))


def _weights(trainer: nb.Trainer) -> np.ndarray:
    dense = trainer.model.layers[-1]
    return np.concatenate([dense.params[name].value.reshape(-1) for name in ("weight", "bias")])


def _features(kind: str, x: np.ndarray) -> np.ndarray:
    """The (1000, 3) factors of the two weights and the bias."""
    return np.column_stack([x if kind == RAW else nb.StandardScaler().fit(x).transform(x), np.ones(len(x))])


def measure(kind: str, seed: int, size: Size, settings: Settings, advance: Any) -> Run:
    """Measure one way to feed the network with one seed."""
    x, y = make_data(seed)
    design = _features(kind, x)
    if kind == SCALED:
        x = nb.StandardScaler().fit(x).transform(x)
    best = float(np.mean((design @ np.linalg.lstsq(design, y, rcond=None)[0] - y) ** 2))
    largest = largest_rate(kind, x, y, size, settings, advance)
    trainer = make_trainer(kind, PATH_SHARE * largest, settings.backend)
    path = [_weights(trainer)]
    for batch in batches(x, y, PATH):
        trainer.train_batch(*batch)
        path.append(_weights(trainer))
    trainer = make_trainer(kind, CURVE_SHARE * largest, settings.backend)
    looks = set(moments(size.steps))
    losses = [float(np.mean(y**2))]  # zero weights predict zero
    for step, batch in enumerate(batches(x, y, size.steps), start=1):
        trainer.train_batch(*batch)
        if step in looks:
            losses.append(trainer.evaluate(x, y, batch_size=ROWS)["loss"])
    advance()
    curvature = 2 * np.linalg.eigvalsh(design.T @ design / ROWS)[-1]
    return Run(largest, float(2 / curvature), np.array(path), np.array(losses), best)


def run(settings: Settings) -> Result:
    """Find the largest learning rate of each way with every seed, train with it, and draw both."""
    size = QUICK if settings.quick else FULL
    runs: dict[str, list[Run]] = {kind: [] for kind in COLOURS}
    with progress(TITLE, settings.seeds * len(COLOURS) * (size.bisections + 1)) as advance:
        for seed in range(settings.seeds):
            for kind in COLOURS:
                runs[kind].append(measure(kind, seed, size, settings, advance))
    figures: dict[str, Any] = {kind: _figures(each, size) for kind, each in runs.items()}
    for kind in (SCALED, NORMED):
        figures[kind]["times_the_unscaled_rate"] = spread(a.largest / b.largest for a, b in zip(runs[kind], runs[RAW]))
    _draw_paths({kind: each[0] for kind, each in runs.items()}, settings)
    _draw_rates(runs, size, settings)
    pictures = [
        (
            "paths.png",
            f"Loss over the two weights, and the first {PATH} steps at a quarter of the largest rate that converges (first seed).",
        ),
        (
            "rates.png",
            "The largest learning rate that converges, a dot a seed; and the loss at a tenth of it (median, and range of the seeds).",
        ),
    ]
    return Result(TITLE, _summary(runs, figures, size), figures, pictures)


# ------------------------------------------------------------------------------------------------------ figures


def _figures(runs: list[Run], size: Size) -> dict[str, Any]:
    steps = [_steps_until_close(run, size) for run in runs]
    arrived = [count for count in steps if count is not None]
    return {
        "largest_rate": spread(run.largest for run in runs),
        "rate_in_theory": spread(run.theory for run in runs),
        "steps_until_close": spread(arrived) if len(arrived) == len(runs) else None,
        "final_loss": spread(run.losses[-1] for run in runs),
        "least_squares_loss": spread(run.best for run in runs),
    }


def _steps_until_close(run: Run, size: Size) -> int | None:
    """The number of steps after which the loss is at most CLOSE times the best possible."""
    close = run.losses <= CLOSE * run.best
    return int(moments(size.steps)[np.argmax(close)]) if close.any() else None


def _summary(runs: dict[str, list[Run]], figures: dict[str, Any], size: Size) -> list[str]:
    def rates(kind: str) -> str:
        return said(figures[kind]["largest_rate"]["seeds"], "{:.2g}")

    lines = [
        f"Largest learning rate that converges (loss falls over {size.trial} steps): {rates(RAW)} with the features as they are, "
        f"{rates(SCALED)} with StandardScaler, {rates(NORMED)} with batch norm on the input.",
    ]
    for kind in (SCALED, NORMED):
        times = figures[kind]["times_the_unscaled_rate"]["seeds"]
        lines.append(f"{kind} allows {said(times, '{:,.0f}')} times the rate: at least 100 times {at_seeds([t >= 100 for t in times])}.")
    lines.append(
        "Theory, 2 / the largest curvature, says "
        f"{said(figures[RAW]['rate_in_theory']['seeds'], '{:.2g}')} and {said(figures[SCALED]['rate_in_theory']['seeds'], '{:.2g}')}."
    )
    for kind in runs:
        count, end = figures[kind]["steps_until_close"], figures[kind]["final_loss"]["seeds"]
        if count is None:
            text = f"is not everywhere within 10 % of the least squares' loss after {size.steps:,} steps: it is at {said(end)}"
        else:
            text = f"is within 10 % of the least squares' loss after {said(count['seeds'], '{:,.0f}')} steps"
        lines.append(f"At a tenth of its largest rate, {kind} {text}.".replace(RAW, "the unscaled problem"))
    return lines


# ----------------------------------------------------------------------------------------------------- pictures


def _draw_paths(runs: dict[str, Run], settings: Settings) -> None:
    made = drawing.figure(12.6, 4.6)
    from matplotlib.colors import LogNorm

    x, y = make_data(0)
    for axes, (kind, run) in zip(made.subplots(1, 3), runs.items()):
        design = _features(kind, x)
        target = np.linalg.lstsq(design, y, rcond=None)[0][:2, 0]
        half = 1.15 * max(np.abs(run.path[:, :2] - target).max(), np.abs(target).max())
        sides = [np.linspace(middle - half, middle + half, 201) for middle in target]
        bias = run.path[-1, 2]
        gram, cross, square = design.T @ design / ROWS, design.T @ y[:, 0] / ROWS, float(np.mean(y**2))
        w = np.stack([*np.meshgrid(*sides), np.full((201, 201), bias)], axis=-1)
        loss = np.einsum("ijk,kl,ijl->ij", w, gram, w) - 2 * w @ cross + square
        loss = np.maximum(loss, NOISE**2)
        shown = axes.contourf(*sides, loss, levels=np.geomspace(1, 1e5, 21), norm=LogNorm(1, 1e5), cmap="cividis", extend="both")
        axes.plot(
            run.path[:, 0], run.path[:, 1], "o-", color="black", markerfacecolor="white", markersize=4, linewidth=1.2, label=f"{PATH} steps"
        )
        axes.plot(*run.path[0, :2], "s", color=drawing.ORANGE, markersize=9, markeredgecolor="black", label="start")
        axes.plot(*target, "*", color=drawing.ORANGE, markersize=16, markeredgecolor="black", label="least squares")
        axes.set_aspect("equal")
        drawing.dress(
            axes, f"{kind}\nlearning rate {PATH_SHARE * run.largest:.2g}", "weight of feature 1 (mean 0)", "weight of feature 2 (mean 200)"
        )
        axes.grid(False)
    axes.legend(loc="lower right", fontsize=9, facecolor="#c8c8c8", framealpha=0.9)
    made.colorbar(shown, ax=made.axes, shrink=0.85, ticks=10.0 ** np.arange(6), label="loss: mean squared error")
    drawing.save(made, settings.out / "paths.png")


def _draw_rates(runs: dict[str, list[Run]], size: Size, settings: Settings) -> None:
    made = drawing.figure(11, 4.4)
    left, right = made.subplots(1, 2, width_ratios=(1, 1.35))
    for place, (kind, each) in enumerate(runs.items()):
        drawing.dots(left, place, [run.largest for run in each], COLOURS[kind])
        theory = float(np.median([run.theory for run in each]))
        left.plot(
            place,
            theory,
            "D",
            color=drawing.INK,
            markerfacecolor="none",
            markersize=11,
            label=None if place else "theory: 2 / largest curvature",
        )
        left.annotate(f"{np.median([run.largest for run in each]):.2g}", (place, 1.9 * theory), ha="center", va="bottom", fontsize=10.5)
        losses = np.array([run.losses for run in each])
        drawing.band(right, 1 + moments(size.steps), losses, kind, COLOURS[kind])
    left.set_yscale("log")
    left.set_ylim(1e-6, 1e2)
    left.set_xlim(-0.5, 2.5)
    left.set_xticks(range(3), list(runs), fontsize=10.5)
    drawing.dress(left, "the largest learning rate that converges", "the features", "learning rate", "upper left")
    best = float(np.median([run.best for run in runs[RAW]]))
    right.axhline(best, color=drawing.FAINT, linestyle="--", linewidth=1, label="least squares")
    right.set_xscale("log")
    right.set_yscale("log")
    drawing.dress(right, "loss at a tenth of that rate", "step, counted from 1", "mean squared error on all rows", "upper right")
    drawing.save(made, settings.out / "rates.png")
