"""The progress bar of training, drawn by rich."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

INTERVAL = 0.1  # seconds between redraws: a step of a small network takes well under a millisecond


class EpochBar:
    """One epoch's bar: rows done, metrics, images per second."""

    def __init__(self, progress: Any, task: Any, done: int) -> None:
        self._progress = progress
        self._task = task
        self._first = done
        self._began = self._drawn = time.perf_counter()

    def update(self, rows: int, metrics: Mapping[str, float]) -> None:
        """Show that `rows` rows are done."""
        now = time.perf_counter()
        if self._progress is None or (now - self._drawn < INTERVAL and rows < self._progress.tasks[0].total):
            return
        self._drawn = now
        text = "  ".join(f"{key} {value:.4f}" for key, value in metrics.items())
        rate = (rows - self._first) / max(now - self._began, 1e-9)
        self._progress.update(self._task, completed=rows, text=f"{text}  {rate:,.0f} images/s")


@contextmanager
def epoch_bar(epoch: int, epochs: int, rows: int, done: int, show: bool | None) -> Iterator[EpochBar]:
    """A bar for one epoch of `rows` rows, of which `done` are done. `show` None draws it on a terminal only."""
    if not (sys.stderr.isatty() if show is None else show):
        yield EpochBar(None, None, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[text]}")]
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield EpochBar(progress, progress.add_task(f"epoch {epoch}/{epochs}", total=rows, completed=done, text=""), done)
