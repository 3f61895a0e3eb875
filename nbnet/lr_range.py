"""The learning rate range test: losses while the learning rate grows from step to step."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nbnet import plots
from nbnet.errors import ArgumentError, NonFiniteError
from nbnet.functional import checks
from nbnet.training.epoch import Batch, Position
from nbnet.training.loop import means, train_step
from nbnet.training.sources import Source, source_of
from nbnet.training.trainer import Trainer

DIVERGED = 4  # times the smallest loss, and the test ends


class LRRange(NamedTuple):
    """The result of `nb.lr_range_test`."""

    rates: np.ndarray  # (steps,) float64, of each step
    losses: np.ndarray  # (steps,) float64, of each batch before its step

    def plot(self, path: str | Path | None = None, *, ax: Any = None) -> Any:
        """Draw the losses over the learning rates (see nbnet.plots.rates); return the figure."""
        return plots.rates(self.rates, self.losses, path, ax=ax)


def lr_range_test(trainer: Trainer, data: Any, low: float = 1e-6, high: float = 1.0, steps: int = 100, batch_size: int = 64) -> LRRange:
    """Train a copy of the trainer, with a learning rate that grows from `low` to `high`   (Smith 2017, section 3.3).

    A good peak of a schedule lies below the rate where the loss begins to rise. The test ends before `high` once a loss is more than 4
    times the smallest one, or not finite. The trainer, its model and its optimiser stay as they were.

    Args:
        trainer: of any state; its schedule is not used.
        data: (x, y), (x, y, sample_weight) or batches of your own that can be iterated again, as in Trainer.fit.
        low, high: learning rates above 0; they grow by one factor from step to step.
        steps: at least 2. batch_size: as in Trainer.fit.
    Returns:
        rates and losses of the steps that were made; `.plot("rates.png")` draws them.
    Raises:
        DataError, ShapeError, DTypeError, ArgumentError: the data or an option does not fit.
        NonFiniteError: the first loss is not finite. BuildError: the model was built again since the trainer was made.
    """
    trainer._check_model()
    low, high = (checks.number(rate, name, "a number above 0", _positive) for rate, name in ((low, "low"), (high, "high")))
    if low >= high:
        raise ArgumentError(f"low={low!r}, high={high!r}: expected low below high")
    rates, losses = np.geomspace(low, high, checks.whole(steps, "steps", 2)), []
    source = source_of(trainer, data, "data of lr_range_test", checks.whole(batch_size, "batch_size"))
    twin = copy.deepcopy(trainer)
    twin.lr_factor, twin.position = 1.0, Position()
    with closing(_batches(source, twin)) as batches:
        for rate, batch in zip(rates, batches):
            twin.optimizer.lr = float(rate)
            try:
                losses.append(means(twin.loss, train_step(twin, batch, float(rate))[0])["loss"])
            except NonFiniteError:
                if not losses:
                    raise
                break
            if losses[-1] > DIVERGED * min(losses):
                break
    return LRRange(rates[: len(losses)], np.array(losses))


def _batches(source: Source, trainer: Trainer) -> Generator[Batch]:
    """The batches of one epoch after the other."""
    while True:
        with closing(source.batches(trainer)) as batches:
            yield from batches
        trainer.epoch += 1


def _positive(number: float) -> bool:
    return 0 < number < math.inf
