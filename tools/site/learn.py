"""What docs/learn shows: the frames of the page with sliders, and the pictures of chapters. All of it is computed by nbnet.

python tools/site/learn.py    # writes docs/learn/moving-statistics.json and docs/images/learn-*.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import nbnet as nb
from nbnet.demos import drawing

F = nb.functional
ROOT = Path(__file__).resolve().parents[2]

# The frames: one channel whose population changes after half of the batches
STEPS, CHANGE = 120, 60
POPULATIONS = ((2.0, 0.25), (1.0, 0.5))  # mean, variance
BATCHES = (2, 4, 8, 16, 32, 64, 128)
DECAYS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
EPSILONS = (1e-5, 1e-3, 1e-2, 0.1, 1.0)
EVERY = 5  # steps between looks at the spread in evaluation
UNIT = 1000  # all numbers are whole thousandths


def whole(values: Any) -> list[int]:
    return [round(float(value) * UNIT) for value in values]


def population(step: int) -> tuple[float, float]:
    return POPULATIONS[int(step >= CHANGE)]


def batches(size: int) -> list[np.ndarray]:
    """The batches (size, 1) of all steps; a small batch is the beginning of a large one."""
    noise = np.random.default_rng(0).standard_normal((STEPS, max(BATCHES), 1))
    return [mean + variance**0.5 * noise[t, :size] for t in range(STEPS) for mean, variance in [population(t)]]


def follow(size: int, decay: float) -> tuple[list[float], list[float]]:
    """The moving mean and variance of a batch-norm layer after each batch."""
    layer = nb.BatchNorm(decay)
    layer.build((1,), dtype="float64", backend="numpy")
    means, variances = [], []
    for batch in batches(size):
        layer.forward(batch, train=True)
        means.append(float(layer.buffers["moving_mean"][0]))
        variances.append(float(layer.buffers["moving_var"][0]))
    return means, variances


def evaluated(means: list[float], variances: list[float], eps: float) -> list[float]:
    """The deviation of y in evaluation, of two values that have the population's mean and variance, at every fifth step."""
    found = []
    for t in range(EVERY - 1, STEPS, EVERY):
        mean, variance = population(t)
        pair = mean + variance**0.5 * np.array([[-1.0], [1.0]])
        y, _ = F.batch_norm_forward(pair, None, None, eps=eps, mean=means[t : t + 1], var=variances[t : t + 1], backend="numpy")
        found.append(y.std())
    return found


def frame_of_batches(size: int) -> dict[str, Any]:
    """Mean and variance (unbiased, as they are averaged) of each batch, and the deviation of its y in training for each epsilon."""
    data = batches(size)
    stats = [F.batch_norm_stats(batch, backend="numpy") for batch in data]
    outputs = [
        [F.batch_norm_forward(batch, None, None, eps=eps, backend="numpy")[0].std() for batch in data[EVERY - 1 :: EVERY]]
        for eps in EPSILONS
    ]
    return {
        "mean": whole(s.mean[0] for s in stats),
        "variance": whole(s.variance(1)[0] for s in stats),
        "spread": [whole(deviations) for deviations in outputs],
    }


def frame_of_averages(size: int, decay: float) -> dict[str, Any]:
    means, variances = follow(size, decay)
    return {
        "mean": whole(means),
        "variance": whole(variances),
        "spread": [whole(evaluated(means, variances, eps)) for eps in EPSILONS],
    }


def frames() -> dict[str, Any]:
    return {
        "steps": STEPS,
        "change": CHANGE,
        "every": EVERY,
        "unit": UNIT,
        "populations": POPULATIONS,
        "batch": BATCHES,
        "decay": DECAYS,
        "eps": EPSILONS,
        "batches": [frame_of_batches(size) for size in BATCHES],
        "averages": [[frame_of_averages(size, decay) for decay in DECAYS] for size in BATCHES],
    }


# ------------------------------------------------------------------------------------------------------ pictures


def draw_gradient(path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(5, 2, (24, 1))
    xh = (x - x.mean()) / x.std()
    dy = 0.8 + 0.6 * xh + 0.4 * rng.standard_normal(x.shape)
    _, saved = F.batch_norm_forward(x, None, None, backend="numpy")
    dx = F.batch_norm_backward(dy, saved)[0] * x.std()
    figure = drawing.figure(7.2, 2.9)
    for place, (values, title) in enumerate(((dy, "dy: mean and slope"), (dx, "dx, times s: both are gone")), start=1):
        axes = figure.add_subplot(1, 2, place)
        slope, height = np.polyfit(xh[:, 0], values[:, 0], 1)
        axes.plot(xh, values, "o", color=drawing.BLUE, markersize=5)
        axes.plot([-2.2, 2.2], [height - 2.2 * slope, height + 2.2 * slope], color=drawing.RED)
        axes.set_ylim(-1.6, 2.8)
        drawing.dress(axes, title, "normalised value of the row")
    drawing.save(figure, path)


def draw_eps(path: Path) -> None:
    variances = np.logspace(-7, 1, 60)
    figure = drawing.figure(5.6, 3.2)
    axes = figure.add_subplot()
    for eps, colour, name in (
        (1e-6, drawing.GREEN, "1e-6: sigma"),
        (1e-5, drawing.BLUE, "1e-5: PyTorch, Flax"),
        (1e-3, drawing.RED, "1e-3: Keras, contrib"),
    ):
        pairs = [v**0.5 * np.array([[-1.0], [1.0]]) for v in variances]
        axes.semilogx(
            variances**0.5,
            [F.batch_norm_forward(pair, None, None, eps=eps, backend="numpy")[0].std() for pair in pairs],
            color=colour,
            label=name,
        )
    drawing.dress(axes, "What epsilon leaves", "deviation of the input", "deviation of the output", "lower right")
    drawing.save(figure, path)


def draw_variance_shift(path: Path) -> None:
    rng = np.random.default_rng(0)
    rates = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    figure = drawing.figure(5.6, 3.2)
    axes = figure.add_subplot()
    for mean, colour in ((0.0, drawing.BLUE), (1.0, drawing.RED)):
        found = []
        for rate in rates:
            model = nb.Sequential([nb.Dropout(rate), nb.BatchNorm(decay=None)])
            model.build((64,), dtype="float64", backend="numpy", seed=0)
            for _ in range(20):
                model.forward(rng.normal(mean, 1, (500, 64)), train=True)
            found.append(model.predict(rng.normal(mean, 1, (2000, 64))).var())
        axes.plot(rates, found, "o", color=colour, label=f"input of mean {mean:g}, variance 1")
        axes.plot(rates, 1 / (1 + rates / (1 - rates) * (1 + mean**2)), color=colour, linewidth=1)
    axes.set_ylim(0, 1)
    drawing.dress(axes, "In evaluation (dots; lines: the formula)", "dropout before batch norm: p", "variance of the output", "upper right")
    drawing.save(figure, path)


def draw_frame(path: Path, size: int = 8, decay: float = 0.9) -> None:
    """One frame of the page, for readers without it."""
    dots, lines = frame_of_batches(size), frame_of_averages(size, decay)
    figure = drawing.figure(8.4, 3.0)
    steps = np.arange(1, STEPS + 1)
    for place, name in enumerate(("mean", "variance"), start=1):
        axes = figure.add_subplot(1, 2, place)
        axes.plot(steps, np.array(dots[name]) / UNIT, "o", color=drawing.SKY, markersize=3, label="of a batch")
        axes.plot(steps, [population(t)[place - 1] for t in range(STEPS)], "--", color=drawing.FAINT, label="of the population")
        axes.plot(steps, np.array(lines[name]) / UNIT, color=drawing.RED, label="moving")
        drawing.dress(axes, f"{name}: batches of {size}, decay {decay:g}", "batch", legend="best" if place == 1 else False)
    drawing.save(figure, path)


PICTURES = {
    "learn-gradient": draw_gradient,
    "learn-eps": draw_eps,
    "learn-variance-shift": draw_variance_shift,
    "learn-moving-statistics": draw_frame,
}


def small(path: Path) -> None:
    """The same picture with few colours."""
    with Image.open(path) as picture:
        fewer = picture.convert("RGB").quantize(48)
    fewer.save(path, optimize=True)


def main(docs: Path = ROOT / "docs") -> None:
    (docs / "learn" / "moving-statistics.json").write_text(json.dumps(frames(), separators=(",", ":")) + "\n", encoding="utf-8")
    for name, draw in PICTURES.items():
        path = docs / "images" / f"{name}.png"
        draw(path)
        small(path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
