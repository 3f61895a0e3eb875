"""Callbacks that watch one column of the history, and the time: early stopping, a lower learning rate on a plateau, checkpoints, a limit.

They have no state of their own and read the trainer's, so a resumed run stops and saves where an uninterrupted one would.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.metrics import METRICS
from nbnet.runtime.commit import assignment, commit
from nbnet.training.callbacks.base import Callback
from nbnet.training.checkpoint import Best
from nbnet.training.epoch import Position


class _Monitor(Callback):
    """Base of callbacks that watch one column of the history: smaller is better for a loss or an error, larger for other metrics."""

    def __init__(self, monitor: str) -> None:
        if not monitor.endswith(("loss", "accuracy")) and monitor.removeprefix("val_") not in METRICS:
            raise ArgumentError(f"monitor={monitor!r}: expected loss, accuracy, {', '.join(METRICS)}, or one of them with val_ before it")
        self.monitor = monitor
        metric = METRICS.get(monitor.removeprefix("val_"))
        self._sign = 1 if monitor.endswith("loss") or (metric is not None and metric.smaller_is_better) else -1

    def _values(self, trainer: Any) -> list[float]:
        """The column, signed so that smaller is better."""
        if self.monitor not in trainer.history:
            known = ", ".join(trainer.history)
            raise ArgumentError(f"{type(self).__name__} monitors {self.monitor!r}, but the history has {known}: pass validation= to fit")
        return [math.inf if math.isnan(v) else self._sign * v for v in trainer.history[self.monitor]]


class EarlyStopping(_Monitor):
    """Stop when the monitored value has not improved for `patience` epochs.

    Args:
        monitor: loss, accuracy or another metric of the trainer, or one of the validation, such as val_f1.
        patience: epochs without improvement, at least 1.
        min_delta: smaller changes do not count as improvement.
        restore_best: whether the model gets the parameters and buffers (moving statistics too) of the last epoch that improved whenever
            `fit` returns, whatever ended it; an epoch that was stopped within then starts again. trainer.best keeps them until then, and
            checkpoints hold it.
    Raises:
        ArgumentError: an option is wrong; or, in `fit`, the trainer has not kept the weights of its best epoch.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0, restore_best: bool = False) -> None:
        super().__init__(monitor)
        self.patience = checks.whole(patience, "patience")
        self.min_delta = checks.number(min_delta, "min_delta", "a number that is at least 0", lambda delta: 0 <= delta < math.inf)
        self.restore_best = bool(restore_best)

    def on_train_begin(self, trainer: Any) -> None:
        if self.restore_best and self.monitor in trainer.history:
            self._keep(trainer, self._best(trainer))

    def on_epoch_end(self, trainer: Any) -> None:
        best = self._best(trainer)
        if self.restore_best:
            self._keep(trainer, best)
        since = len(trainer.history[self.monitor]) - best
        if since >= self.patience:
            trainer.stop(f"{self.monitor} has not improved for {since} epochs")

    def on_train_end(self, trainer: Any) -> None:
        if self.restore_best and trainer.best is not None:
            state = trainer.model.state()
            calls = [assignment(state[name], array) for name, array in trainer.best.arrays.items()]
            commit([*calls, partial(setattr, trainer, "position", Position())])

    def _best(self, trainer: Any) -> int:
        """The last epoch that improved, counted from 1; 0 if none did."""
        best, last = math.inf, 0
        for epoch, value in enumerate(self._values(trainer), start=1):
            if value < best - self.min_delta:
                best, last = value, epoch
        return last

    def _keep(self, trainer: Any, best: int) -> None:
        """Let the trainer keep the weights of its best epoch, if that is now.

        Raises:
            ArgumentError: it was before, and the trainer has kept those of another epoch, or none.
        """
        kept = trainer.best.epoch if trainer.best is not None else 0
        if best == kept:
            return
        if best != trainer.epoch or trainer.position.batches:
            raise ArgumentError(
                f"EarlyStopping(restore_best=True) needs the weights of epoch {best}, the best of this run by {self.monitor}, but the "
                f"trainer keeps {f'those of epoch {kept}' if kept else 'none'}: use one such callback, with the same options from the start"
            )
        trainer.best = Best(best, {name: np.array(array) for name, array in trainer.model.state().items()})


class ReduceLROnPlateau(_Monitor):
    """Lower the learning rate whenever the monitored value has not improved for `patience` epochs   (as in Keras).

    It sets trainer.lr_factor, which multiplies the optimiser's lr and the schedule.

    Args:
        monitor: loss, accuracy, val_loss or val_accuracy.
        factor: multiplies the learning rate, above 0 and below 1.
        patience: epochs without improvement, at least 1.
        min_delta: smaller changes do not count as improvement.
        cooldown: epochs after a reduction in which none is counted.
        min_factor: trainer.lr_factor stays at least this.
    Raises:
        ArgumentError: an option is wrong.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_factor: float = 0.0,
    ) -> None:
        super().__init__(monitor)
        self.factor = checks.number(factor, "factor", "a number above 0 and below 1", lambda factor: 0 < factor < 1)
        self.patience = checks.whole(patience, "patience")
        self.min_delta = checks.number(min_delta, "min_delta", "a number that is at least 0", lambda delta: 0 <= delta < math.inf)
        self.cooldown = checks.whole(cooldown, "cooldown", 0)
        self.min_factor = checks.number(min_factor, "min_factor", "a number from 0 to 1", lambda factor: 0 <= factor <= 1)

    def on_epoch_end(self, trainer: Any) -> None:
        best, since, cooling, factor = math.inf, 0, 0, 1.0
        for value in self._values(trainer):
            cooling = max(cooling - 1, 0)
            if value < best - self.min_delta:
                best, since = value, 0
            elif not cooling:
                since += 1
                if since >= self.patience:
                    factor, since, cooling = max(factor * self.factor, self.min_factor), 0, self.cooldown
        trainer.lr_factor = factor


class ModelCheckpoint(_Monitor):
    """Save the trainer (see Trainer.save) after epochs.

    Args:
        path: the file, overwritten each time. monitor: as for EarlyStopping.
        save_best_only: only after an epoch whose monitored value is the best so far; False saves after each epoch.
    Raises:
        ArgumentError: an option is wrong. CheckpointError, in `fit`: the file cannot be written.
    """

    def __init__(self, path: str | Path, monitor: str = "val_accuracy", save_best_only: bool = True) -> None:
        super().__init__(monitor)
        self.path = checks.path(path, "path", "best.safetensors")
        self.save_best_only = bool(save_best_only)

    def on_epoch_end(self, trainer: Any) -> None:
        if self.save_best_only:
            *before, now = self._values(trainer)
            if not now < min(before, default=math.inf):
                return
        trainer.save(self.path)


class TimeLimit(Callback):
    """Stop after the batch in which the training time of the run reaches a limit.

    It counts trainer.history["seconds"] and the current epoch, so that a run that was restored keeps its limit.

    Args:
        seconds: above 0.
    Raises:
        ArgumentError: seconds is wrong.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = checks.number(seconds, "seconds", "a finite number above 0", lambda seconds: 0 < seconds < math.inf)

    def on_train_begin(self, trainer: Any) -> None:
        if sum(trainer.history.get("seconds", ())) + trainer.position.seconds >= self.seconds:
            trainer.stop(f"the time limit of {self.seconds:g} s is reached")

    on_batch_end = on_train_begin
