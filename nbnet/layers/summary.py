"""The table of layers that `Sequential.summary` prints and notebooks show."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from nbnet.layers.containers import Container
from nbnet.layers.fusion import FusedStep
from nbnet.runtime.arrays import several

WIDEST = 1000  # characters
TEXTS, NUMBERS = ("layer", "output shape"), ("parameters", "buffers", "multiply-\nadds", "step")  # columns; layers of one step are fused


def show(model: Container) -> None:
    """Print the layers of a built model, one a row. A layer in several places has its numbers in the first."""
    table = Table(*TEXTS)
    for column in NUMBERS:
        table.add_column(column, justify="right")
    for row in _rows(model, "", set()):
        table.add_row(*row)
    table.add_section()
    table.add_row("total", "", *_sizes(model))
    Console(width=Console(width=WIDEST).measure(table).maximum).print(table)  # on a narrow terminal too, nothing is cut off


def as_html(model: Container) -> str:
    """The same table for a notebook."""
    lines = ["<table>", _line("th", [*TEXTS, *NUMBERS])]
    lines += [_line("td", row) for row in _rows(model, "", set())]
    return "\n".join([*lines, _line("th", ["total", "", *_sizes(model), ""]), "</table>"])


def _line(kind: str, cells: Iterable[str]) -> str:
    sides = [*["left"] * len(TEXTS), *["right"] * len(NUMBERS)]
    texts = [html.escape(cell.replace("-\n", "-")).replace("  ", "&emsp;") for cell in cells]
    return "<tr>" + "".join(f'<{kind} style="text-align: {side}">{text}</{kind}>' for side, text in zip(sides, texts)) + "</tr>"


def _rows(container: Container, indent: str, seen: set[int]) -> Iterator[list[str]]:
    """The cells of each layer of a container, and of theirs. seen: ids of the layers that have a row."""
    steps = [i for i, step in enumerate(container.steps) for _ in (step.layers if isinstance(step, FusedStep) else [step])]
    for (name, layer), step in zip(container._children(), steps):
        sizes = ["", "", ""] if isinstance(layer, Container) else _sizes(layer)
        if id(layer) in seen:
            sizes[0] = f"as {layer.name}"
        yield [indent + name, _shape(layer.output_shape), *sizes, str(step)]
        if isinstance(layer, Container) and id(layer) not in seen:
            yield from _rows(layer, f"{indent}  ", seen)
        seen.add(id(layer))


def _sizes(layer: Any) -> list[str]:
    """Parameters, buffers and multiply-adds; nothing for 0, except in a total."""
    counts = _count(param.value for param in layer.params.values()), _count(layer.buffers.values()), layer.multiply_adds()
    return [f"{n:,}" if n or isinstance(layer, Container) else "" for n in counts]


def _count(arrays: Iterable[np.ndarray]) -> int:
    return sum(array.size for array in arrays)


def _shape(shape: Any) -> str:
    return ", ".join(str(("N", *each)).replace("'", "") for each in (shape if several(shape) else [shape]))
