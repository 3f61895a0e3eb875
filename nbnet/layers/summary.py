"""The table that `Sequential.summary` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from nbnet.layers.containers import Container
from nbnet.layers.fusion import FusedStep
from nbnet.runtime.arrays import several

WIDEST = 1000  # characters


def show(model: Container) -> None:
    """Print the layers of a built model, one a row. A layer in several places has its numbers in the first."""
    rows = Table("layer", "output shape")
    for column in ("parameters", "buffers", "multiply-\nadds", "step"):  # layers of one step are fused
        rows.add_column(column, justify="right")
    _add(rows, model, "", set())
    rows.add_section()
    rows.add_row("total", "", *_sizes(model))
    Console(width=Console(width=WIDEST).measure(rows).maximum).print(rows)  # on a narrow terminal too, nothing is cut off


def _add(rows: Table, container: Container, indent: str, seen: set[int]) -> None:
    """Add the layers of a container, and theirs. seen: ids of the layers that have a row."""
    steps = [i for i, step in enumerate(container.steps) for _ in (step.layers if isinstance(step, FusedStep) else [step])]
    for (name, layer), step in zip(container._children(), steps):
        sizes = ["", "", ""] if isinstance(layer, Container) else _sizes(layer)
        if id(layer) in seen:
            sizes[0] = f"as {layer.name}"
        rows.add_row(indent + name, _shape(layer.output_shape), *sizes, str(step))
        if isinstance(layer, Container) and id(layer) not in seen:
            _add(rows, layer, f"{indent}  ", seen)
        seen.add(id(layer))


def _sizes(layer: Any) -> list[str]:
    """Parameters, buffers and multiply-adds; nothing for 0, except in a total."""
    counts = _count(param.value for param in layer.params.values()), _count(layer.buffers.values()), layer.multiply_adds()
    return [f"{n:,}" if n or isinstance(layer, Container) else "" for n in counts]


def _count(arrays: Iterable[np.ndarray]) -> int:
    return sum(array.size for array in arrays)


def _shape(shape: Any) -> str:
    return ", ".join(str(("N", *each)).replace("'", "") for each in (shape if several(shape) else [shape]))
