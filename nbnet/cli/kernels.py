"""Compile kernels before they are needed, under a progress bar that names what is being compiled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.kernels import load
from nbnet.progress import Bar
from nbnet.runtime import compile_ahead
from nbnet.training.augmented import for_evaluation, training_batches
from nbnet.training.trainer import Trainer


def first_step(trainer: Trainer, rows: int = 2) -> Iterator[str]:
    """One training step and one evaluation on `rows` blank images: yield the name of each part, then run it.

    Kernels are compiled for types, not shapes, so nothing is left to compile afterwards. The model changes: pass a spare trainer.
    """
    model, pixels, labels = trainer.model, np.zeros((rows, *(trainer.model.input_shape or ())), np.uint8), np.zeros(rows, np.int64)
    compile_ahead.compile_ahead(model, rows)
    yield "augmentation"
    ((x, targets),) = training_batches(trainer, pixels, labels, [np.arange(rows)])
    y, tape = model.as_input(x), []
    for step in model.steps:
        yield f"{step.name} forward"
        y, saved = step.forward(y, train=True)
        tape.append(saved)
    yield "loss"
    dy: Any = trainer.loss(y, targets, backend=model.backend).gradient
    for i in reversed(range(len(tape))):
        yield f"{model.steps[i].name} backward"
        dy = model.steps[i].backward(dy, tape[i], need_dx=i > 0)
    yield type(trainer.optimizer).__name__
    trainer.optimizer.step(model.params, model.backend)
    yield "evaluation"
    model.forward(for_evaluation(trainer, pixels))


def count_steps(trainer: Trainer) -> int:
    """The number of parts of first_step."""
    return 2 * len(trainer.model.steps) + 4


def is_cold(backend: str) -> bool:
    """Whether the cache has no convolution yet, and so hardly anything; or whether there is no cache."""
    kernel = load("conv2d.forward", backend)
    if not hasattr(kernel, "stats"):  # CUDA kernels are not cached; they compile quickly
        return False
    folder = kernel.stats.cache_path
    return folder is None or not any(Path(folder).glob(f"*{kernel.__name__}-*.nbc"))


def compiled() -> int:
    """The number of kernels that this process and its workers had to compile because they were not cached."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("nbnet.kernels.")]
    dispatchers = {id(value): value for module in modules for value in vars(module).values() if hasattr(value, "stats")}
    return len(compile_ahead.compiled) + sum(sum(dispatcher.stats.cache_misses.values()) for dispatcher in dispatchers.values())


def show(names: Iterator[str], total: int, backend: str, message: str) -> int:
    """Run first_step's parts under a progress bar (on a terminal).

    Args:
        message: printed once if anything is compiled: at the start if the cache is cold, otherwise after the first missing kernel.
    Returns:
        the number of kernels that were compiled.
    """
    before, announced = compiled(), is_cold(backend)
    if announced:
        print(message, flush=True)
    with Bar(total, "text bar elapsed name", stream=sys.stdout) as bar:
        for done, name in enumerate(names):
            bar.update(done, "preparing kernels", name)
            if not announced and compiled() > before:
                announced = True
                print(message, flush=True)
    return compiled() - before
