"""Moving averages and what batch norm does with them: early values, forgotten statistics, frozen layers, small batches."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nbnet as nb
from nbnet.demos import Result, Settings, drawing, moving_modes, progress
from nbnet.demos.drawing import at_seeds, said, spread
from nbnet.demos.moving_modes import Digits

TITLE = "Moving averages, and batch norm's use of them"
SEEDS = 5
BACKEND = "serial"  # 64 digits are not worth a second thread

# The averages of a noisy number
UPDATES, JUMP, LEVELS, VALUES = 400, 200, (5.0, 3.0), 8  # each number is the mean of 8 values N(level, 1)
PLAIN, COUNTED, DEBIASED, QUICKER = "decay 0.99", "0.99, step-count decay", "0.99, zero debias", "decay 0.9"
AVERAGES = {PLAIN: drawing.RED, QUICKER: drawing.PURPLE, COUNTED: drawing.ORANGE, DEBIASED: drawing.BLUE}
EARLY, CLOSE = 10, 0.1  # updates after which they are compared; relative distance that counts as close

# Decays in training
DECAYS = {
    "decay 0.9": (drawing.PURPLE, {"decay": 0.9}),
    "decay 0.99": (drawing.RED, {"decay": 0.99}),
    "decay 0.999": (drawing.ORANGE, {"decay": 0.999}),
    "decay 0.999, zero debias": (drawing.BLUE, {"decay": 0.999, "zero_debias": True}),
}
BY_BATCH = "training mode"
LR, BATCH = 5e-3, 64
STEPS, QUICK_STEPS, LOOK = 200, 40, 5

# Checkpoints
COMPLETE, FORGOTTEN, RECALIBRATED = "complete", "without moving\nstatistics", "the same,\nrecalibrated"


class Training(NamedTuple):
    accuracy: dict[str, list[float]]  # on test images by evaluation, for each of DECAYS and BY_BATCH
    model: nb.Sequential  # with decay 0.9, trained


def averages(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Numbers around a level that jumps, and four averages of them, each starting at 0."""
    rng = np.random.default_rng([seed, 0])
    level = np.where(np.arange(UPDATES) < JUMP, *LEVELS)
    numbers = level + rng.standard_normal((VALUES, UPDATES)).mean(axis=0)
    decays = {PLAIN: 0.99, QUICKER: 0.9, COUNTED: 0.99, DEBIASED: 0.99}
    paths: dict[str, list[float]] = {name: [] for name in decays}
    kept = {name: nb.ExponentialMovingAverage(decay, zero_debias=name == DEBIASED) for name, decay in decays.items()}
    for t, number in enumerate(numbers):
        for name, average in kept.items():
            average.apply({"x": number}, t if name == COUNTED else None, None if name == DEBIASED else {"x": 0.0})
            paths[name].append(float(average.average("x")))
    return numbers, {name: np.array(path) for name, path in paths.items()}


def train(seed: int, steps: int, data: Digits, backend: str, advance: Any) -> Training:
    """One training, evaluated with each decay: moving statistics do not affect training, only evaluation."""
    rng = np.random.default_rng([seed, 1])
    models = {}
    for name, (_, options) in DECAYS.items():
        models[name] = moving_modes.convolutional(options)
        models[name].build((8, 8, 1), backend=backend, seed=seed)
    trainers = {name: nb.Trainer(model, optimizer=nb.Adam(LR)) for name, model in models.items()}
    accuracy: dict[str, list[float]] = {name: [] for name in (*DECAYS, BY_BATCH)}
    for step in range(1, steps + 1):
        rows = rng.choice(len(data.x), BATCH, replace=False)
        for trainer in trainers.values():
            trainer.train_batch(data.x[rows], data.y[rows])
        if step % LOOK == 0:
            for name, trainer in trainers.items():
                accuracy[name].append(trainer.evaluate(data.x_test, data.y_test)["accuracy"])
            accuracy[BY_BATCH].append(moving_modes.accuracy_by_batch(models["decay 0.9"], data))
    advance()
    return Training(accuracy, models["decay 0.9"])


def restore(trained: nb.Sequential, seed: int, data: Digits, backend: str) -> dict[str, float]:
    """Test accuracy of the model from its complete file, from its parameters alone, and from these after recalibration."""
    complete, forgotten = (moving_modes.convolutional({"decay": 0.9}) for _ in range(2))
    for model in (complete, forgotten):
        model.build((8, 8, 1), backend=backend, seed=seed + 1000)
    with tempfile.TemporaryDirectory() as folder:
        trained.save_weights(Path(folder) / "model.safetensors")
        complete.load_weights(Path(folder) / "model.safetensors")
    for name, param in forgotten.params.items():  # what remains if only trainable variables are saved
        param.value[:] = trained.params[name].value
    found = {"before": moving_modes.accuracy(trained, data)}
    found |= {COMPLETE: moving_modes.accuracy(complete, data), FORGOTTEN: moving_modes.accuracy(forgotten, data)}
    nb.recalibrate(forgotten, data.x)
    return found | {RECALIBRATED: moving_modes.accuracy(forgotten, data)}


def run(settings: Settings) -> Result:
    """Run all parts with every seed."""
    data, seeds = moving_modes.digits(), range(settings.seeds)
    steps = QUICK_STEPS if settings.quick else STEPS
    with progress(TITLE, 2 * settings.seeds + moving_modes.work(settings)) as advance:
        paths = [averages(seed) for seed in seeds]
        trainings = [train(seed, steps, data, settings.backend, advance) for seed in seeds]
        restored = [restore(training.model, seed, data, settings.backend) for seed, training in zip(seeds, trainings)]
        tuned = [moving_modes.fine_tune(training.model, seed, settings, advance) for seed, training in zip(seeds, trainings)]
        small = moving_modes.small_batches(data, settings, advance)
    _draw_averages(paths, settings)
    _draw_decays(trainings, settings)
    _draw_restored(restored, settings)
    moving_modes.draw_switches(tuned, settings)
    moving_modes.draw_small(small, settings)
    figures: dict[str, Any] = {"averages": _averages_figures(paths)}
    early = min(EARLY, steps) // LOOK - 1
    figures["accuracy_in_training"] = {
        name: {
            f"after_{(early + 1) * LOOK}_steps": spread(run.accuracy[name][early] for run in trainings),
            f"after_{steps}_steps": spread(run.accuracy[name][-1] for run in trainings),
        }
        for name in (*DECAYS, BY_BATCH)
    }
    figures["restored"] = {name.replace("\n", " "): spread(each[name] for each in restored) for name in restored[0]}
    figures["switches"] = moving_modes.switch_figures(tuned)
    figures["small_batches"] = moving_modes.small_figures(small)
    pictures = [
        (
            "averages.png",
            "Four averages from 0 of one noisy number: median and range of the seeds; the dots are the numbers of the first seed.",
        ),
        ("decays.png", "Test accuracy in evaluation while one network trains, for four ways to keep its moving statistics."),
        ("restored.png", "Test accuracy of a saved network, restored with and without its moving statistics; a dot a seed."),
        (
            "switches.png",
            "Fine-tuning on darker images in batches of 4, with the three switches of batch norm set in four ways; a dot a seed.",
        ),
        ("small.png", "Test accuracy by batch size, without batch norm, with it, and with renormalisation; a dot a seed."),
    ]
    summary = [*_summary(figures, restored), *moving_modes.switch_summary(tuned), *moving_modes.small_summary(small)]
    return Result(TITLE, summary, figures, pictures)


# ------------------------------------------------------------------------------------------------------ figures


def _averages_figures(paths: list[tuple[np.ndarray, dict[str, np.ndarray]]]) -> dict[str, Any]:
    figures = {}
    for name in AVERAGES:
        runs = [path[name] for _, path in paths]
        wrong = [np.abs(run[:JUMP] / LEVELS[0] - 1) > CLOSE for run in runs]
        after = [np.abs(run[JUMP:] / LEVELS[1] - 1) > CLOSE for run in runs]
        figures[name] = {
            f"after_{EARLY}_updates": spread(run[EARLY - 1] for run in runs),
            "updates_until_close": spread(_settled(row) for row in wrong),
            "updates_until_close_after_the_jump": spread(_settled(row) for row in after),
        }
    return figures


def _settled(wrong: np.ndarray) -> int:
    """The number of updates from which all values stay right."""
    return int(np.flatnonzero(wrong)[-1]) + 2 if wrong.any() else 1


def _updates(counts: list[float]) -> str:
    return said(counts, "{:.0f}") if max(counts) <= JUMP else f"more than {JUMP}{'' if min(counts) > JUMP else ' at some seeds'}"


def _summary(figures: dict[str, Any], restored: list[dict[str, float]]) -> list[str]:
    kept = figures["averages"]
    early = ", ".join(f"{name} {said(each[f'after_{EARLY}_updates']['seeds'], '{:.2f}')}" for name, each in kept.items())
    start = ", ".join(f"{name} {_updates(each['updates_until_close']['seeds'])}" for name, each in kept.items())
    jump = ", ".join(f"{name} {_updates(each['updates_until_close_after_the_jump']['seeds'])}" for name, each in kept.items())
    lines = [
        f"Of a mean of {LEVELS[0]:g}, after {EARLY} updates from 0 (medians, in brackets the range over {len(restored)} seeds): {early}.",
        f"Updates until it stays within 10 %: {start}. After the mean jumps to {LEVELS[1]:g}: {jump}.",
    ]
    for when in figures["accuracy_in_training"][BY_BATCH]:
        each = ", ".join(f"{name} {said(v[when]['seeds'], '{:.1%}')}" for name, v in figures["accuracy_in_training"].items())
        lines.append(f"Test accuracy {when.replace('_', ' ')} of training: {each}.")
    same = [each[COMPLETE] == each["before"] for each in restored]
    worse = [each[FORGOTTEN] < each["before"] for each in restored]
    lines.append(
        f"Restored completely, the network has the accuracy it was saved with {at_seeds(same)}; without its moving statistics it "
        f"is worse {at_seeds(worse)}: {said([each[FORGOTTEN] for each in restored], '{:.1%}')} instead of "
        f"{said([each['before'] for each in restored], '{:.1%}')}; recalibrated on the training images it has "
        f"{said([each[RECALIBRATED] for each in restored], '{:.1%}')}."
    )
    return lines


# ----------------------------------------------------------------------------------------------------- pictures


def _draw_averages(paths: list[tuple[np.ndarray, dict[str, np.ndarray]]], settings: Settings) -> None:
    made = drawing.figure(11.5, 4.5)
    left, right = made.subplots(1, 2, width_ratios=(1.7, 1))
    time = np.arange(1, UPDATES + 1)
    left.plot(time, paths[0][0], ".", color="#b5b5b5", markersize=4, label="the numbers")
    left.plot(time, np.where(time <= JUMP, *LEVELS), "--", color=drawing.INK, linewidth=1.3, label="the true mean")
    for name, colour in AVERAGES.items():
        runs = np.array([path[name] for _, path in paths])
        drawing.band(left, time, runs, name, colour)
        drawing.band(right, time[:60], np.abs(runs[:, :60] / LEVELS[0] - 1), name, colour)
    left.set_ylim(-0.2, 6.6)
    drawing.dress(left, "a mean that jumps", "update", "value", "lower right")
    right.set_yscale("log")
    right.set_ylim(1e-3, 2)
    right.axhline(CLOSE, color=drawing.FAINT, linestyle="--", linewidth=1)
    right.set_yticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
    drawing.dress(right, "the first 60 updates", "update", "distance from the true mean")
    drawing.save(made, settings.out / "averages.png")


def _draw_decays(trainings: list[Training], settings: Settings) -> None:
    made = drawing.figure(9, 4.6)
    axes = made.subplots()
    steps = LOOK * np.arange(1, len(trainings[0].accuracy[BY_BATCH]) + 1)
    for name, (colour, _) in DECAYS.items():
        drawing.band(axes, steps, [run.accuracy[name] for run in trainings], f"evaluation, {name}", colour)
    by_batch = [run.accuracy[BY_BATCH] for run in trainings]
    drawing.band(axes, steps, by_batch, "training mode (statistics of the test batch)", drawing.INK, ":", shade=False)
    axes.set_ylim(0, 1.02)
    drawing.percent(axes)
    drawing.dress(axes, "the same weights, evaluated", "training step", "test images classified right", "lower right")
    drawing.save(made, settings.out / "decays.png")


def _draw_restored(restored: list[dict[str, float]], settings: Settings) -> None:
    made = drawing.figure(7.2, 4.2)
    axes = made.subplots()
    kinds = {"before": drawing.INK, COMPLETE: drawing.BLUE, FORGOTTEN: drawing.RED, RECALIBRATED: drawing.GREEN}
    for place, (name, colour) in enumerate(kinds.items()):
        drawing.dots(axes, place, [each[name] for each in restored], colour)
    axes.set_xticks(range(4), ["as it was saved", *list(kinds)[1:]], fontsize=10)
    axes.set_ylim(0, 1.03)
    drawing.percent(axes)
    drawing.dress(axes, "what a checkpoint forgets", "restored", "test images classified right")
    drawing.save(made, settings.out / "restored.png")
