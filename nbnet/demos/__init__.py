"""The tutorials' experiments, one file each: `run(settings)` trains, draws pictures and summarises the figures.

A demonstration is a module with TITLE, SEEDS (the default number of seeds) and run(settings) -> Result. BACKEND is optional: the
default backend where it is not "parallel".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nbnet.errors import ArgumentError, unknown
from nbnet.progress import Bar

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
    """The settings of a demonstration.

    Args:
        out: its own folder, which exists. seeds: their number, counted from 0. quick: seconds instead of minutes: fewer steps and seeds.
        backend: "parallel", "serial" or "numpy". data, data_dir: as in `datasets.open_data`, for those that train on images.
    """

    out: Path
    seeds: int
    quick: bool
    backend: str
    data: str | None = None
    data_dir: str | None = None


class Result(NamedTuple):
    """The result of a demonstration.

    summary: sentences computed from the figures of this run. figures: values for JSON. pictures: pairs of a file in the folder and its
    caption.
    """

    title: str
    summary: list[str]
    figures: dict[str, Any]
    pictures: list[tuple[str, str]]


def get(name: str) -> Any:
    """The module of a demonstration.

    Raises:
        ArgumentError: unknown name; the message suggests the nearest one.
    """
    if name not in DEMOS:
        raise ArgumentError(unknown("demo", name, DEMOS))
    return importlib.import_module(f"{__name__}.{DEMOS[name]}")


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal. Yields advance(steps=1), to be called as steps are done."""
    done = 0
    with Bar(total, "name bar count elapsed remaining", title) as bar:

        def advance(steps: int = 1) -> None:
            nonlocal done
            done += steps
            bar.update(done)

        yield advance
