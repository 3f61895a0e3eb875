"""The training loop: one step, one epoch, and its row in the history."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from nbnet.losses.base import divisor
from nbnet.metrics import Metric, measured
from nbnet.optimizers import Optimizer
from nbnet.runtime.commit import Call, assignment, commit
from nbnet.training import sliced
from nbnet.training.callbacks.base import Hook
from nbnet.training.epoch import Batch, Position, Sums
from nbnet.training.evaluation import copied, started
from nbnet.training.gradients import Found, Known, clip, gradients
from nbnet.training.notes import progress as progress_at
from nbnet.training.notes import rate
from nbnet.training.progress import epoch_bar
from nbnet.training.sources import Source


def run_epoch(trainer: Any, source: Source, epochs: int, hooks: Mapping[str, list[Hook]], progress: bool | None) -> bool:
    """Run the rest of the current epoch. Returns False when `stop`, or a callback that restored another position, ended it before
    its last batch."""
    count, form = source.count, (source.rows, source.batch_size)
    trainer.position.check_continues(*form)  # a callback may have restored it
    before_batch, after_batch = hooks["on_batch_begin"], hooks["on_batch_end"]
    bar_of = epoch_bar(trainer.epoch + 1, epochs, source.total, trainer.position.rows, progress)
    with bar_of as bar, closing(source.batches(trainer)) as parts:
        began = time.perf_counter() - trainer.position.seconds
        for batch in range(trainer.position.batches, count):
            at = trainer.position
            for hook in before_batch:
                hook(trainer)
            if trainer.position is not at:
                return False
            lr = rate(trainer, progress_at(trainer.epoch, batch, epochs, count))
            train_step(trainer, next(parts), lr, (batch + 1, began, *form), epochs)
            done = trainer.position
            bar.update(done.rows, partial(_found, trainer, done))
            for hook in after_batch:
                hook(trainer)
            if trainer.position is not done:
                return False
            if trainer._is_stopped() and batch + 1 < count:
                return False
    return True


def close_epoch(trainer: Any, validation: Source | None) -> None:
    """Add the row of a complete epoch to the history. Missing values are filled with NaN."""
    done = trainer.position
    row = _found(trainer, done) if trainer.metrics else means(trainer.loss, done.sums)
    if validation is not None:
        row |= {f"val_{key}": value for key, value in trainer._evaluate(validation).items()}
    row |= {"lr": done.lr, "seconds": done.seconds}
    history, epoch = trainer.history, trainer.epoch
    new = {key: [*[math.nan] * epoch, value] for key, value in row.items() if key not in history}
    calls: list[Call] = [partial(column.append, row.get(key, math.nan)) for key, column in history.items()]
    calls += [partial(history.update, new), partial(setattr, trainer, "epoch", epoch + 1)]
    commit([*calls, partial(setattr, trainer, "position", Position())])


def means(loss: Any, sums: Sums, metrics: Iterable[Metric] = ()) -> dict[str, float]:
    """{"loss": ..., "accuracy": ...} (accuracy for classification), and the metrics."""
    return sums.means(divisor(loss, sums.counted)) | measured(metrics)


def _found(trainer: Any, at: Position) -> dict[str, float]:
    """What this epoch has measured. Metrics are NaN if they have not seen all of its rows, since it was restored from a file."""
    rows, metrics = trainer._measured
    if rows == at.rows:
        return means(trainer.loss, at.sums, metrics)
    return means(trainer.loss, at.sums) | dict.fromkeys([metric.name for metric in trainer.metrics], math.nan)


def train_step(
    trainer: Any, batch: Batch, lr: float, within: tuple[int, float, int, int] | None = None, epochs: int = 0
) -> tuple[Sums, tuple[Metric, ...]]:
    """Forward, loss, backward, update. Returns what the loss adds up over the rows, and the metrics.

    After an exception, everything that a run carries on is as before the step, or as after it (see `Trainer.fit` for what is not).

    Args:
        within: in an epoch, whose position advances with the step: its batches so far, when it began, its rows and batch size.
        epochs: how many the schedule spans then.
    """
    model, optimizer = trainer.model, trainer.optimizer
    follow(trainer)  # in case that an exception came between the last step and its average
    if trainer.average is not None:
        trainer.average.begin(model)
    step, updates, waiting = trainer.step, optimizer.steps, model.waiting_updates()
    memory = model.buffer_memory()
    before = [array.copy() for array in memory]
    seen, metrics = trainer._measured if within is not None and trainer.position.batches else (0, ())
    if trainer.metrics:
        metrics = copied(metrics) or started(trainer.metrics)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # overflow shows in the loss, which gives one clear error
            found, calls = launched(trainer, batch, lr, metrics, waiting)
            sums, metrics, interrupt = found_of(found)
        calls.append(partial(setattr, trainer, "step", step + 1))
        if within is not None:
            calls.append(partial(setattr, trainer, "position", trainer.position.after(batch.rows, sums, lr, *within)))
            calls.append(partial(setattr, trainer, "_measured", (seen + batch.rows, metrics)))
            calls.append(partial(setattr, trainer, "schedule_epochs", epochs))
        commit(calls)
        if interrupt is not None:
            raise interrupt
    except BaseException:
        if trainer.step == step:
            commit(waiting)
            trainer.clear_passes()
            restored = [assignment(array, old) for array, old in zip(memory, before)]
            commit([*restored, *optimizer.undo, partial(setattr, optimizer, "steps", updates)])
        raise
    follow(trainer)
    return sums, metrics


def launched(trainer: Any, batch: Batch, lr: float, metrics: tuple[Metric, ...], waiting: list[Call]) -> tuple[Found | Known, list[Call]]:
    """The gradients of a batch, and the calls that update the parameters.

    Where the loss is still computed on the GPU, the update is launched too, unless the host has to look at something before: it waits
    once, at the end. The gate of what is found then keeps the update from writing after a loss that is not finite.
    """
    model, optimizer = trainer.model, trainer.optimizer
    if trainer.graphs is not None and (played := trainer.graphs.launched(trainer, batch, lr, metrics, waiting)) is not None:
        return played
    params = model.params
    found: Found | Known
    if trainer.sliced is None:
        found = gradients(trainer, *batch[:3], metrics, params.values(), waiting)
    else:
        found = Known(sliced.gradients(trainer, batch, metrics, params.values(), waiting), metrics)
    own_step = getattr(optimizer.step, "__func__", None) is not Optimizer.step  # a method of the user's
    regularized = [param for param in params.values() if param.regularizer is not None]
    if found.waits:
        found.read()
        if regularized or own_step or type(optimizer)._update is not Optimizer._update:
            found = Known(*found.finish())
    for param in regularized:
        param.grad[:] = np.asarray(param.grad) + param.regularizer(np.asarray(param.value))
    if trainer.clip_norm is not None:
        clip(params.values(), trainer.clip_norm, model.backend)
    calls = [partial(optimizer.step, params, model.backend, lr)] if own_step else optimizer.calls(params, model.backend, lr)
    if found.waits:
        with found.gate.before():
            commit(calls)
        calls = []
    return found, calls


def found_of(found: Found | Known) -> tuple[Sums, tuple[Metric, ...], BaseException | None]:
    """The sums, the metrics, and what interrupted the host while it waited for an update that was launched: that step happens."""
    if not found.waits:
        return *found.finish(), None
    try:
        return *found.finish(), None
    except Exception:
        raise
    except BaseException as interrupt:
        return *found.finish(), interrupt


def follow(trainer: Any) -> None:
    """Update the average, once for each step."""
    if trainer.average is not None and trainer._averaged != trainer.step:
        trainer.average.follow(trainer.model, partial(setattr, trainer, "_averaged", trainer.step))
