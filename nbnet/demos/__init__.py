"""The tutorials' experiments, one file each: `run(settings)` trains, draws its pictures and says what the figures bear out.

A demonstration is a module with TITLE, SEEDS (how many it runs by default) and run(settings) -> Result.
It may have BACKEND, where another than "parallel" suits it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nbnet.errors import ArgumentError, unknown

DEMOS = {  # name: module in this folder
    "deep-tanh": "deep_tanh",
    "convergence": "convergence",
    "cifar-cnn": "cifar_cnn",
    "dropout-overfit": "dropout_overfit",
    "feature-scaling": "feature_scaling",
    "moving-average": "moving_average",
}


@dataclass(frozen=True)
class Settings:
    """What a demonstration is run with.

    Args:
        out: its own folder, which exists. seeds: how many, from 0 on. quick: seconds instead of minutes: fewer steps and seeds.
        backend: "parallel", "serial" or "numpy". data, data_dir: as in `datasets.open`, for those that train on images.
    """

    out: Path
    seeds: int
    quick: bool
    backend: str
    data: str | None = None
    data_dir: str | None = None


class Result(NamedTuple):
    """What a demonstration found.

    `summary` holds sentences that the figures of this run bear out; `figures` what JSON can hold; `pictures` pairs of a file in
    the folder and its caption.
    """

    title: str
    summary: list[str]
    figures: dict[str, Any]
    pictures: list[tuple[str, str]]


def get(name: str) -> Any:
    """The module of a demonstration.

    Raises:
        ArgumentError: there is none of that name; the message has the nearest.
    """
    if name not in DEMOS:
        raise ArgumentError(unknown("demo", name, DEMOS))
    return importlib.import_module(f"{__name__}.{DEMOS[name]}")


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar on a terminal, nothing otherwise. Yields advance(steps=1), to be called as steps are done."""
    if not sys.stderr.isatty():
        yield lambda steps=1: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps=1: bar.advance(task, steps)
