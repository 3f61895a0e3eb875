"""The learning rate of a step, and what `Trainer.fit` says about a run before it trains."""

from __future__ import annotations

import math
from typing import Any

from nbnet.training.epoch import count_batches


def rate(trainer: Any, step: int, steps: int) -> float:
    """The learning rate of a step (0, 1, ...) of a run of so many steps."""
    return float(trainer.optimizer.lr * trainer.schedule(min(1.0, step / max(1, steps - 1))))


def rate_jump(trainer: Any, epochs: int, rows: int, batch_size: int) -> str | None:
    """How the learning rate will jump if a run continues so, in words; None if it follows its schedule as before."""
    before, now = trainer.schedule_steps, epochs * count_batches(rows, batch_size)
    if not trainer.step or before in (0, now):
        return None
    last, would_be = (rate(trainer, trainer.step - 1, steps) for steps in (before, now))
    if math.isclose(last, would_be, rel_tol=1e-9) or not math.isfinite(last):
        return None
    after = rate(trainer, trainer.step, now)
    return f"the learning rate jumps from {last:.3g} to {after:.3g}: {trainer.schedule!r} now spans {epochs} epochs"


def before_fit(trainer: Any, epochs: int, rows: int, batch_size: int) -> str | None:
    """What a user may not expect of a call of fit, and what to write instead."""
    done = trainer.epoch
    if done >= epochs:
        return (
            f"fit has nothing to train: {done} epochs are complete, and epochs={epochs} counts from the start of the run; "
            f"for {epochs} more write epochs={done + epochs}"
        )
    jump = rate_jump(trainer, epochs, rows, batch_size)
    return jump and f"{jump}; for small steps use a Trainer with schedule='constant' and a small lr"
