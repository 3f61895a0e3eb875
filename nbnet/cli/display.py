"""What training shows: a line an epoch, and on a terminal a bar below them."""

from __future__ import annotations

import sys
from typing import Any

from nbnet.training.callbacks import Callback
from nbnet.training.trainer import Trainer


class Display(Callback):
    """A context manager and callback: a table with a line an epoch, and below it a bar with loss, accuracy and images per second.

    Without a terminal there is no bar, only the table. The bar of Trainer.fit knows nothing of the test and leaves a line an epoch.
    """

    def __init__(self, epochs: int, rows: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._epochs, self._rows = epochs, rows
        self._live = sys.stdout.isatty()
        text = [TextColumn("{task.description}"), BarColumn(bar_width=12), TextColumn("{task.fields[text]}"), TimeRemainingColumn()]
        self._progress: Any = Progress(*text, console=Console(), transient=True, disable=not self._live)
        self._task: Any = None

    def __enter__(self) -> Display:
        print("  epoch        loss  accuracy   test loss  accuracy     images/s", flush=True)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_batch_end(self, trainer: Trainer) -> None:
        if not self._live:
            return
        done = trainer.position
        rate = done.rows / max(done.seconds, 1e-9)
        text = f"loss {done.loss / done.rows:.4f}, accuracy {100 * (done.correct or 0) / done.rows:.2f} %, {rate:,.0f} images/s"
        if self._task is None:
            self._task = self._progress.add_task("", total=self._epochs * self._rows, text=text)
        completed = trainer.epoch * self._rows + done.rows
        self._progress.update(self._task, completed=completed, description=f"epoch {trainer.epoch + 1}/{self._epochs}", text=text)

    def on_epoch_end(self, trainer: Trainer) -> None:
        last = {name: values[-1] for name, values in trainer.history.items()}
        train = f"{last['loss']:10.4f}  {100 * last['accuracy']:6.2f} %"
        test = f"{last['val_loss']:10.4f}  {100 * last['val_accuracy']:6.2f} %"
        print(f"{f'{trainer.epoch}/{self._epochs}':>7}  {train}  {test}  {self._rows / last['seconds']:>11,.0f}", flush=True)
