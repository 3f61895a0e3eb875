"""The progress bar of every command and of training: drawn by rich on a terminal, as one line of HTML in a notebook."""

from __future__ import annotations

import html
import sys
import time
from types import TracebackType
from typing import Any, TextIO

INTERVAL = 0.5  # seconds between drawings: they must not take time from what is measured or trained
_place: list[Any] = [None, None]  # the last cell that had a bar, and what updates it


class Bar:
    """A progress bar; use it in a with statement. Where it is not shown, nothing is drawn and rich is not imported.

    Args:
        total: the number of steps, None where it is unknown.
        columns: what is drawn, in order: name, bar, count, bytes, speed, text, elapsed, remaining.
        name: what is going on.
        stream: where the bar is drawn; None is stderr.
        show: whether it is drawn; None draws it only on a terminal and in a notebook, where all bars of a cell are in one place.
        keep: leave the bar on the screen when it is done.
    """

    def __init__(
        self,
        total: float | None,
        columns: str,
        name: str = "",
        *,
        stream: TextIO | None = None,
        show: bool | None = None,
        keep: bool = False,
    ) -> None:
        stream = stream or sys.stderr
        self._cell = _cell_of_notebook()
        self.shown = is_shown(show, stream)
        if not self.shown:
            return
        if self._cell is not None:
            self._total, self._name, self._drawn = total, name, 0.0
            return
        from rich import progress
        from rich.console import Console

        made: dict[str, progress.ProgressColumn] = {
            "name": progress.TextColumn("{task.description}"),
            "bar": progress.BarColumn(bar_width=24),
            "count": progress.MofNCompleteColumn(),
            "bytes": progress.DownloadColumn(),
            "speed": progress.TransferSpeedColumn(),
            "text": progress.TextColumn("{task.fields[text]}"),
            "elapsed": progress.TimeElapsedColumn(),
            "remaining": progress.TimeRemainingColumn(),
        }
        chosen = [made[column] for column in columns.split()]
        self._progress: Any = progress.Progress(*chosen, console=Console(file=stream), transient=not keep, refresh_per_second=1 / INTERVAL)
        self._task = self._progress.add_task(name, total=total, text="")

    def __enter__(self) -> Bar:
        if self.shown and self._cell is None:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.shown and self._cell is None:
            self._progress.stop()

    def update(self, done: float, text: str = "", name: str | None = None) -> None:
        """Show that `done` steps are done, with a text, and another name where one is given."""
        if not self.shown:
            return
        if self._cell is None:
            self._progress.update(self._task, completed=done, text=text, description=name)
            return
        now = time.perf_counter()
        if done == self._total or now - self._drawn >= INTERVAL:
            self._drawn = now
            _draw(self._cell, f"{_element(done, self._total)} {html.escape(f'{name or self._name}  {text}')}")


def is_shown(show: bool | None, stream: TextIO | None = None) -> bool:
    """Whether a Bar with these arguments is drawn."""
    return (stream or sys.stderr).isatty() or _cell_of_notebook() is not None if show is None else show


def _element(done: float, total: float | None) -> str:
    return f'<progress value="{done}" max="{total}"></progress>' if total else f"{done:,}"


def _cell_of_notebook() -> int | None:
    """The number of the cell of a Jupyter notebook that runs; None elsewhere."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell.execution_count if hasattr(shell, "kernel") else None


def _draw(cell: int, text: str) -> None:
    """Draw HTML where the last bar of this cell was drawn, or below the cell."""
    display = sys.modules["IPython"].display
    if _place[0] != cell:
        _place[:] = [cell, display.display(display.HTML(text), display_id=True)]
    else:
        _place[1].update(display.HTML(text))
