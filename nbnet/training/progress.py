"""The progress bar of Trainer.fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from nbnet.progress import Bar

INTERVAL = 0.1  # seconds between updates: a step of a small network takes well under a millisecond
RATIO = 20  # or that many times what the metrics took: the area under a curve sorts all outputs so far


class EpochBar:
    """The bar of one epoch: rows done, metrics, images per second."""

    def __init__(self, bar: Bar, rows: int | None, done: int) -> None:
        self._bar, self._rows, self._first = bar, rows, done
        self._began = self._drawn = time.perf_counter()
        self._wait = INTERVAL

    def update(self, rows: int, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Show that `rows` rows are done, and the metrics so far, if it is time to."""
        if not self._bar.shown:
            return
        now = time.perf_counter()
        if now - self._drawn < self._wait and (self._rows is None or rows < self._rows):
            return
        text = "  ".join(f"{key} {value:.4f}" for key, value in metrics().items())
        self._drawn = time.perf_counter()
        self._wait = max(INTERVAL, RATIO * (self._drawn - now))
        rate = (rows - self._first) / max(now - self._began, 1e-9)
        self._bar.update(rows, f"{text}  {rate:,.0f} images/s")


@contextmanager
def epoch_bar(epoch: int, epochs: int, rows: int | None, done: int, show: bool | None) -> Iterator[EpochBar]:
    """A bar for one epoch of `rows` rows (None: unknown), of which `done` are done. `show` None draws it only on a terminal."""
    with Bar(rows, "name bar count text remaining", f"epoch {epoch}/{epochs}", show=show, keep=True) as bar:
        yield EpochBar(bar, rows, done)
