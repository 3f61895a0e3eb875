"""The output of training: one line per epoch, and on a terminal a progress bar below them."""

from __future__ import annotations

import sys
from types import TracebackType

from nbnet.progress import Bar
from nbnet.training.callbacks import Callback
from nbnet.training.trainer import Trainer


class Display(Callback):
    """A context manager and callback: a table with one line per epoch, and a bar with loss, accuracy and images per second."""

    first_rank_only = True

    def __init__(self, epochs: int, rows: int, held_out: str) -> None:
        self._epochs, self._rows, self._held_out = epochs, rows, held_out
        self._bar = Bar(epochs * rows, "name bar text remaining", stream=sys.stdout)

    def __enter__(self) -> Display:
        print(f"  epoch        loss  accuracy  {self._held_out + ' loss':>10}  accuracy     images/s", flush=True)
        self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.__exit__(kind, error, trace)

    def on_batch_end(self, trainer: Trainer) -> None:
        if not self._bar.shown:
            return
        done = trainer.position
        rate = done.rows / max(done.seconds, 1e-9)
        text = f"loss {done.loss / done.rows:.4f}, accuracy {100 * (done.correct or 0) / done.rows:.2f} %, {rate:,.0f} images/s"
        self._bar.update(trainer.epoch * self._rows + done.rows, text, f"epoch {trainer.epoch + 1}/{self._epochs}")

    def on_epoch_end(self, trainer: Trainer) -> None:
        last = {name: values[-1] for name, values in trainer.history.items()}
        train = f"{last['loss']:10.4f}  {100 * last['accuracy']:6.2f} %"
        test = f"{last['val_loss']:10.4f}  {100 * last['val_accuracy']:6.2f} %"
        print(f"{f'{trainer.epoch}/{self._epochs}':>7}  {train}  {test}  {self._rows / last['seconds']:>11,.0f}", flush=True)
