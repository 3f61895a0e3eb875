"""Callbacks of Trainer.fit: early stopping, a checkpoint of the best epoch, a CSV log.

They keep no state of their own but read trainer.history, so that a resumed run stops and saves where an unbroken one would.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from nbnet.errors import ArgumentError
from nbnet.storage import write_file

if TYPE_CHECKING:
    from nbnet.training.trainer import Trainer


class Callback:
    """Base of callbacks: override what you need. `trainer.stop(reason)` ends training at the next batch."""

    def on_batch_end(self, trainer: Trainer) -> None:
        """After each optimiser step."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After each epoch, once its row is in trainer.history."""


class _Monitor(Callback):
    """Watches one column of the history: smaller is better for a loss, larger for an accuracy."""

    def __init__(self, monitor: str) -> None:
        if not monitor.endswith(("loss", "accuracy")):
            raise ArgumentError(f"monitor={monitor!r}: wanted loss, accuracy, val_loss or val_accuracy")
        self.monitor = monitor

    def _values(self, trainer: Trainer) -> list[float]:
        """The column, signed so that smaller is better."""
        if self.monitor not in trainer.history:
            known = ", ".join(trainer.history)
            raise ArgumentError(f"{type(self).__name__} monitors {self.monitor!r}, but the history has {known}: give validation= to fit")
        sign = 1 if self.monitor.endswith("loss") else -1
        return [math.inf if math.isnan(v) else sign * v for v in trainer.history[self.monitor]]


class EarlyStopping(_Monitor):
    """Stop when the monitored value has not improved for some epochs.

    Args:
        monitor: loss, accuracy, val_loss or val_accuracy.
        patience: epochs without improvement that are allowed.
        min_delta: a smaller change is no improvement.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0) -> None:
        super().__init__(monitor)
        if patience < 1:
            raise ArgumentError(f"patience={patience!r}: wanted at least 1 epoch")
        self.patience = patience
        self.min_delta = min_delta

    def on_epoch_end(self, trainer: Trainer) -> None:
        best, since = math.inf, 0
        for value in self._values(trainer):
            if value < best - self.min_delta:
                best, since = value, 0
            else:
                since += 1
        if since >= self.patience:
            trainer.stop(f"{self.monitor} has not improved for {since} epochs")


class BestCheckpoint(_Monitor):
    """Save the trainer whenever the monitored value is the best so far.

    Args:
        path: the file, overwritten each time. monitor: loss, accuracy, val_loss or val_accuracy.
    """

    def __init__(self, path: str | Path, monitor: str = "val_accuracy") -> None:
        super().__init__(monitor)
        self.path = Path(path)

    def on_epoch_end(self, trainer: Trainer) -> None:
        *before, now = self._values(trainer)
        if now < min(before, default=math.inf):
            trainer.save(self.path)


class CSVLog(Callback):
    """Write the history to a CSV file after each epoch, one row an epoch."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_epoch_end(self, trainer: Trainer) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["epoch", *trainer.history])
        writer.writerows([i, *row] for i, row in enumerate(zip(*trainer.history.values()), start=1))
        write_file(self.path, text.getvalue().encode())
