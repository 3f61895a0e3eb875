"""The learning rate of a step, and what `Trainer.fit` says about a run before it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.layers import Layer, Parallel, Sequential
from nbnet.layers.sequential import ends_with_softmax
from nbnet.losses import Loss, PerOutput, SoftmaxCrossEntropy


def progress(epoch: int, batch: int, epochs: int, per_epoch: int) -> float:
    """How far a run of so many epochs is at a batch (0, 1, ...) of an epoch: 0 at its first step, 1 at its last.

    It follows from the position alone: steps made with batches of another size, or outside of `fit`, do not count.
    """
    return min(1.0, (epoch * per_epoch + batch) / max(1, epochs * per_epoch - 1))


def rate(trainer: Any, at: float | None = None) -> float:
    """The learning rate of a step: the optimiser's, times the schedule's factor at this progress, times trainer.lr_factor.

    Raises:
        ArgumentError: it is not a number of at least 0.
    """
    lr, factor = trainer.optimizer.lr, 1.0 if at is None else trainer.schedule(at)
    if not checks.is_number(factor):
        raise ArgumentError(f"the schedule returned {factor!r} at progress {at:.3g}, expected a number: check {trainer.schedule!r}")
    more = trainer.lr_factor
    if not checks.is_number(lr) or not checks.is_number(more) or not 0 <= lr * factor * more < math.inf:
        times = "" if at is None else f" times {float(factor)!r}, which the schedule gave at progress {at:.3g}"
        times += "" if isinstance(more, float) and more == 1 else f" times lr_factor={more!r}"
        raise ArgumentError(f"the learning rate is {lr!r}{times}, expected a finite number of at least 0: set optimizer.lr")
    return float(lr * factor * more)


def rate_jump(trainer: Any, epochs: int, per_epoch: int) -> str | None:
    """How the learning rate will jump if a run continues so, in words; None if it follows its schedule as before.

    Args:
        per_epoch: batches.
    """
    before = trainer.schedule_epochs
    epoch, batch = trainer.epoch, trainer.position.batches
    if before in (0, epochs) or (epoch, batch) == (0, 0):
        return None
    of, at = (epoch, batch - 1) if batch else (epoch - 1, per_epoch - 1)  # the last step
    last, would_be = (rate(trainer, progress(of, at, spans, per_epoch)) for spans in (before, epochs))
    if math.isclose(last, would_be, rel_tol=1e-9):
        return None
    after = rate(trainer, progress(epoch, batch, epochs, per_epoch))
    return f"the learning rate jumps from {last:.3g} to {after:.3g}: {trainer.schedule!r} now spans {epochs} epochs"


def before_fit(trainer: Any, epochs: int, per_epoch: int) -> str | None:
    """What a user may not expect of a call of fit, and what to write instead."""
    done = trainer.epoch
    if done >= epochs:
        return (
            f"fit has nothing to train: {done} epochs are complete, and epochs={epochs} counts from the start of the run; "
            f"for {epochs} more write epochs={done + epochs}"
        )
    jump = rate_jump(trainer, epochs, per_epoch)
    return jump and f"{jump}; for small steps use a Trainer with schedule='constant' and a small lr"


def softmax_twice(model: Sequential, loss: Loss) -> str | None:
    """What is wrong with probabilities for a loss that expects logits."""
    last = model.layers[-1] if isinstance(model, Sequential) and model.layers else None
    outputs: Iterable[tuple[Layer, Loss]] = [(model, loss)]
    if isinstance(last, Parallel) and isinstance(loss, PerOutput):
        outputs = zip(last.branches, loss.losses)
    if any(isinstance(one, SoftmaxCrossEntropy) and ends_with_softmax(layer) for layer, one in outputs):
        return (
            "the model ends with Softmax, but softmax_cross_entropy takes the softmax of its outputs itself, and learns badly from a "
            "second one: leave out nb.Softmax(); model.predict_proba(x) gives probabilities"
        )
    return None
