"""The progress bar of every command, drawn by rich."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, TextIO


class Bar:
    """A progress bar; use it in a with statement. Where it is not shown, nothing is drawn and rich is not imported.

    Args:
        total: the number of steps, None where it is unknown.
        columns: what is drawn, in order: name, bar, count, bytes, speed, text, elapsed, remaining.
        name: what is going on.
        stream: where the bar is drawn; None is stderr.
        show: whether it is drawn; None draws it only on a terminal.
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
        self.shown = stream.isatty() if show is None else show
        if not self.shown:
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
        # Two redraws per second: drawing must not take time from what is measured or trained.
        self._progress: Any = progress.Progress(*chosen, console=Console(file=stream), transient=not keep, refresh_per_second=2)
        self._task = self._progress.add_task(name, total=total, text="")

    def __enter__(self) -> Bar:
        if self.shown:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.shown:
            self._progress.stop()

    def update(self, done: float, text: str = "", name: str | None = None) -> None:
        """Show that `done` steps are done, with a text, and another name where one is given."""
        if self.shown:
            self._progress.update(self._task, completed=done, text=text, description=name)
