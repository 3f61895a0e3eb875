"""Callbacks of Trainer.fit: early stopping, a lower learning rate on a plateau, a checkpoint of the best epoch, a CSV log.

They have no state of their own and read trainer.history, so a resumed run stops and saves where an uninterrupted one would.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.metrics import METRICS
from nbnet.storage import write_file


class Run(Protocol):
    """What the callbacks of this module use of a Trainer."""

    history: dict[str, list[float]]
    lr_factor: float

    def stop(self, reason: str) -> None: ...
    def save(self, path: str | Path) -> None: ...


class Callback:
    """Base class of callbacks: override what you need. `trainer.stop(reason)` ends training after the current batch."""

    def on_batch_end(self, trainer: Any) -> None:
        """Called with the Trainer after each optimiser step. An exception leaves the run as after that step."""

    def on_epoch_end(self, trainer: Any) -> None:
        """Called with the Trainer after each epoch, once its row is in trainer.history."""


def check_callbacks(callbacks: Any) -> list[Callback]:
    """The callbacks of a call of fit as a list.

    Raises:
        ArgumentError: they are not in a list, or one is not an object with both methods.
    """
    if not isinstance(callbacks, Iterable):
        hint = "use callbacks=[callback]" if _is_callback(callbacks) else "expected a list, such as [nb.callbacks.EarlyStopping()]"
        raise ArgumentError(f"callbacks={_called(callbacks)}: {hint}")
    checked = list(callbacks)
    for callback in checked:
        if isinstance(callback, type):
            raise ArgumentError(f"callbacks has the class {callback.__name__}, expected an object: use {callback.__name__}(...)")
        if not _is_callback(callback):
            raise ArgumentError(
                f"callbacks has {_called(callback)}, expected an object with on_batch_end and on_epoch_end: write a class with "
                "def on_epoch_end(self, trainer), whose base is nb.callbacks.Callback"
            )
    return checked


def _is_callback(thing: Any) -> bool:
    return callable(getattr(thing, "on_batch_end", None)) and callable(getattr(thing, "on_epoch_end", None))


def _called(thing: Any) -> str:
    return str(getattr(thing, "__name__", None) or type(thing).__name__)


class _Monitor(Callback):
    """Base of callbacks that watch one column of the history: smaller is better for a loss or an error, larger for other metrics."""

    def __init__(self, monitor: str) -> None:
        if not monitor.endswith(("loss", "accuracy")) and monitor.removeprefix("val_") not in METRICS:
            raise ArgumentError(f"monitor={monitor!r}: expected loss, accuracy, {', '.join(METRICS)}, or one of them with val_ before it")
        self.monitor = monitor
        metric = METRICS.get(monitor.removeprefix("val_"))
        self._sign = 1 if monitor.endswith("loss") or (metric is not None and metric.smaller_is_better) else -1

    def _values(self, trainer: Run) -> list[float]:
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
    Raises:
        ArgumentError: an option is wrong.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0) -> None:
        super().__init__(monitor)
        self.patience = checks.whole(patience, "patience")
        self.min_delta = checks.number(min_delta, "min_delta", "a number that is at least 0", lambda delta: 0 <= delta < math.inf)

    def on_epoch_end(self, trainer: Run) -> None:
        best, since = math.inf, 0
        for value in self._values(trainer):
            if value < best - self.min_delta:
                best, since = value, 0
            else:
                since += 1
        if since >= self.patience:
            trainer.stop(f"{self.monitor} has not improved for {since} epochs")


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

    def on_epoch_end(self, trainer: Run) -> None:
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


class BestCheckpoint(_Monitor):
    """Save the trainer whenever the monitored value is the best so far.

    Args:
        path: the file, overwritten each time. monitor: as for EarlyStopping.
    """

    def __init__(self, path: str | Path, monitor: str = "val_accuracy") -> None:
        super().__init__(monitor)
        self.path = Path(path)

    def on_epoch_end(self, trainer: Run) -> None:
        *before, now = self._values(trainer)
        if now < min(before, default=math.inf):
            trainer.save(self.path)


class CSVLog(Callback):
    """Write the history to a CSV file after each epoch, one row per epoch.

    Args:
        path: the file, overwritten each time. DataError is raised where it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_epoch_end(self, trainer: Run) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["epoch", *trainer.history])
        writer.writerows([i, *row] for i, row in enumerate(zip(*trainer.history.values()), start=1))
        write_file(self.path, text.getvalue().encode())
