"""The layers of a model that have weights, in order, each with the order of its features in PyTorch.

Flatten makes rows of (H, W, C) here and of (C, H, W) in PyTorch. An Order says for each feature here which one it is there, so that the
rows of a Dense after Flatten, its columns before Reshape, and a BatchNorm between them can be moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nbnet.convert.table import Row, row_of
from nbnet.errors import ArgumentError
from nbnet.layers import Add, BatchNorm, Concat, Dense, Flatten, GroupNorm, Layer, Multiply, Parallel, Permute, Reshape
from nbnet.layers.base import Shape
from nbnet.layers.branches import Branches
from nbnet.layers.containers import Container
from nbnet.layers.sequential import Sequential

Order = Any  # an index array; None: the same order (of images: channels last here, first there); a list of them for several inputs
UNKNOWN = np.empty(0, np.intp)  # stands for an unknown order


class Slot(NamedTuple):
    """A layer with weights."""

    path: str  # its name in the model
    layer: Layer
    row: Row
    inputs: Order
    outputs: Order

    def orders(self, ours: str) -> dict[int, np.ndarray]:
        """By axis of an array of the layer, the order of its features in PyTorch."""
        if isinstance(self.layer, Dense):
            found = {0: self.inputs, 1: self.outputs} if ours == "weight" else {0: self.outputs}
            return {axis: order for axis, order in found.items() if order is not None}
        each = ours != "updates" and self.inputs is not None
        return {0: self.inputs} if each and (ours not in self.layer.params or self.layer.params[ours].value.size > 1) else {}


def slots_of(model: Sequential, table: dict[type[Layer], Row], channels_first: bool) -> tuple[list[Slot], list[Order]]:
    """The layers with weights, and the order of each output of the model.

    Args:
        channels_first: whether the other framework has its channels first; otherwise all orders are None.
    Raises:
        ArgumentError: a layer with weights has no counterpart, or the order of its inputs there is unknown.
    """
    walk = _Walk(table, channels_first)
    outputs = walk.visit(model, "", None)
    return walk.slots, outputs if isinstance(outputs, list) else [outputs]


def permutation(shape: Shape) -> Order:
    """The order of the features of a flattened image or sequence (..., C)."""
    moved = np.moveaxis(np.arange(math.prod(shape)).reshape(shape[-1], *shape[:-1]), 0, -1).reshape(-1)
    return None if len(shape) == 1 or _same(moved, None) else moved


class _Walk:
    """Goes through a model in the order of forward."""

    def __init__(self, table: dict[type[Layer], Row], channels_first: bool) -> None:
        self.table, self.channels_first = table, channels_first
        self.slots: list[Slot] = []
        self.seen: dict[int, Order] = {}  # by id of a layer, which may be in several places

    def visit(self, layer: Layer, path: str, order: Order, ahead: Order = None) -> Order:
        """The order of the layer's outputs. ahead: the one that a Dense should give."""
        if id(layer) not in self.seen:
            row = row_of(layer, self.table)
            if row is None and isinstance(layer, Sequential):
                self.seen[id(layer)] = self._sequential(layer, path, order)
            elif row is None and isinstance(layer, Branches):
                self.seen[id(layer)] = self._branches(layer, path, order)
            else:
                self.seen[id(layer)] = self._single(layer, path, row, order, ahead)
        return self.seen[id(layer)]

    def _sequential(self, model: Sequential, path: str, order: Order) -> Order:
        for i, (name, layer) in enumerate(model._children()):
            order = self.visit(layer, _join(path, name), order, _before_reshape(model.layers[i + 1 :]) if self.channels_first else None)
        return order

    def _branches(self, layer: Branches, path: str, order: Order) -> Order:
        count = len(layer.branches)
        inputs = order if isinstance(order, list) else [order] * (count or len(layer.input_shape or ()))
        found = [self.visit(child, _join(path, name), one) for (name, child), one in zip(layer._children(), inputs)] if count else inputs
        if isinstance(layer, Parallel):
            return found
        if any(one is UNKNOWN for one in found):
            return UNKNOWN
        if isinstance(layer, Concat):
            return _side_by_side(found, layer)
        alike = isinstance(layer, (Add, Multiply)) and all(_same(one, found[0]) for one in found)
        return found[0] if alike else UNKNOWN

    def _single(self, layer: Layer, path: str, row: Row | None, order: Order, ahead: Order) -> Order:
        outputs = (ahead if isinstance(layer, Dense) else _through(layer, order)) if self.channels_first else None
        if row is None and layer.params:
            known = ", ".join(sorted(cls.__name__ for cls in self.table))
            raise ArgumentError(f"layer {path} ({type(layer).__name__}) has weights, but no counterpart: expected {known}")
        if row is None or not (layer.params or isinstance(layer, BatchNorm)):
            return outputs
        groups = isinstance(layer, GroupNorm) and layer.groups > 1 and order is not None
        if order is UNKNOWN or isinstance(order, list) or groups:
            raise ArgumentError(
                f"layer {path} ({type(layer).__name__}) has inputs whose order in PyTorch is unknown: expected no Permute before it, "
                "no Reshape but one of what a Dense gives, and no sum of flattened and other features"
            )
        self.slots.append(Slot(path, layer, row, order, outputs))
        return outputs


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _same(a: Order, b: Order) -> bool:
    size = len(a) if a is not None else len(b) if b is not None else 0
    return np.array_equal(np.arange(size) if a is None else a, np.arange(size) if b is None else b)


def _through(layer: Layer, order: Order) -> Order:
    """The order after a layer that is no Dense."""
    before, after = layer.input_shape or (), layer.output_shape
    if isinstance(layer, Permute) or order is UNKNOWN:
        return UNKNOWN
    if not isinstance(layer, (Flatten, Reshape)) or before == after:
        return order
    if len(after) == 1:
        return permutation(before)
    return None if len(before) == 1 and _same(order, permutation(after)) else UNKNOWN


def _before_reshape(layers: Sequence[Layer]) -> Order:
    """What a Dense in front of these layers gives, if a Reshape makes images of it: their order, flattened."""
    for layer in layers:
        if isinstance(layer, Reshape) and len(layer.output_shape) > 1:
            return permutation(layer.output_shape)
        if isinstance(layer, (Dense, Container)) or layer.output_shape != layer.input_shape or len(layer.output_shape) != 1:
            return None
    return None


def _side_by_side(orders: list[Order], layer: Branches) -> Order:
    if all(order is None for order in orders):
        return None
    shapes: Any = [child.output_shape for child in layer.branches] or layer.input_shape
    starts = np.cumsum([0, *(shape[-1] for shape in shapes)])
    parts = [start + (np.arange(shape[-1]) if order is None else order) for order, shape, start in zip(orders, shapes, starts)]
    return np.concatenate(parts)
