"""What the rules of the layers write with: nodes, constants, and values that know the order of their numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError
from nbnet.layers import Layer
from nbnet.layers.base import Shape
from nbnet.onnx.extra import package
from nbnet.runtime.stage import overrides

Rule = Callable[["Writer", Any, Any], Any]


class Value(NamedTuple):
    """An array of the graph.

    Attributes:
        shape: of one example, as nbnet has it, with the channels last.
        moved: empty where the file has the numbers in this order. Otherwise the file has the channels first, those of images or
            sequences of the shape `moved`: of the value itself, or, of flat features, before Flatten.
    """

    name: str
    shape: Shape
    moved: Shape = ()


class Writer:
    """Collects the graph.

    Args:
        rules: by layer class, functions (writer, layer, value) -> value that write what `forward` computes in evaluation. Where the layer
            takes or gives several arrays, a tuple of values.
    """

    def __init__(self, rules: dict[type, Rule]) -> None:
        self.onnx = package()
        self.rules = rules
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.path = ""
        self.permuted = False  # whether there is a Permute so far
        self._names: set[str] = set()
        self._homes: dict[int, str] = {}  # by id of a layer, its first path: that of its parameters
        self._moves: dict[tuple[str, bool], Value] = {}

    # ------------------------------------------------------------------------------------------------------- layers

    def layer(self, layer: Layer, x: Any, path: str) -> Any:
        """Write a layer.

        Args:
            path: its name in the model, which its nodes and constants get.
        Raises:
            ArgumentError: there is no rule for it.
        """
        before, self.path = self.path, path
        self._homes.setdefault(id(layer), path)
        try:
            return self._rule(layer)(self, layer, x)
        finally:
            self.path = before

    def _rule(self, layer: Layer) -> Rule:
        for cls in type(layer).__mro__:
            if cls in self.rules and not overrides(layer):
                return self.rules[cls]
            if "forward" in vars(cls):
                break
        raise ArgumentError(
            f"layer {self.path or layer.name} is a {type(layer).__name__} with a forward of its own, expected layers of nbnet: ONNX has no "
            "operator for it"
        )

    # ----------------------------------------------------------------------------------------------- nodes and constants

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, the first of a layer with the name of the layer; the name of its output."""
        if not self.path or self.path in self._names:
            return self.helping(op, *inputs, **attributes)
        return self._add(self.unique(self.path), op, inputs, attributes)

    def helping(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node that only brings the input of a layer into another form."""
        return self._add(self.unique(f"{self.path}/{op}"), op, inputs, attributes)

    def _add(self, name: str, op: str, inputs: tuple[str, ...], attributes: dict[str, Any]) -> str:
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def param(self, layer: Layer, name: str, array: Any) -> str:
        """A parameter or buffer of a layer, in the form that the node needs: a layer in several places has it once."""
        home = self._homes[id(layer)]
        return self.constant(f"{home}.{name}" if home else name, array)

    def constant(self, name: str, array: Any, dtype: Any = np.float32) -> str:
        """The name of a constant; one that is there already with the same numbers is used again."""
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, dtype)
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise ArgumentError(f"{name} has NaN or infinity in float32, expected the finite numbers of a trained model")
        found, count = name, 0
        while found in self._names:
            known = self.constants.get(found)
            if known is not None and known.shape == array.shape and np.array_equal(known, array):
                return found
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        self.constants[found] = array
        return found

    def own(self, name: str, array: Any, dtype: Any = np.float32) -> str:
        """A constant of the layer that is written, which is not a parameter: a shape, a factor."""
        return self.constant(f"{self.path}.{name}" if self.path else name, array, dtype)

    def unique(self, name: str) -> str:
        """This name, or with a number, where it is taken."""
        found, count = name, 0
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found

    def reshaped(self, name: str, shape: Shape) -> str:
        """An array as (N, *shape)."""
        return self.helping("Reshape", name, self.shape(shape))

    def shape(self, shape: Shape) -> str:
        """The constant that Reshape takes."""
        return self.own("shape", [0, *shape], np.int64)

    # -------------------------------------------------------------------------------------------------- order of numbers

    def last(self, value: Value) -> Value:
        """The value with the channels last, as nbnet has it."""
        if not value.moved:
            return value
        known = self._moves.get((value.name, False))
        if known is None:
            name = value.name
            *sizes, channels = value.moved
            if len(value.shape) == 1:
                name = self.reshaped(name, (channels, *sizes))
            rank = len(value.moved)
            name = self.helping("Transpose", name, perm=[0, *range(2, rank + 1), 1])
            if len(value.shape) == 1:
                name = self.helping("Flatten", name)
            known = self._moves[value.name, False] = Value(name, value.shape)
        return known

    def first(self, value: Value) -> Value:
        """The value with the channels first, as operators of ONNX expect it; flat features in nbnet's order."""
        if len(value.shape) == 1:
            return self.last(value)
        if value.moved:
            return value
        known = self._moves.get((value.name, True))
        if known is None:
            rank = len(value.shape)
            name = self.helping("Transpose", value.name, perm=[0, rank, *range(1, rank)])
            known = self._moves[value.name, True] = Value(name, value.shape, value.shape)
        return known

    def flat(self, value: Value) -> Value:
        """The value as flat features, in the order that the file has."""
        moved = value.moved if math.prod(value.moved[:-1]) > 1 else ()
        return Value(self.node("Flatten", value.name), (math.prod(value.shape),), moved)


def channel_wise(array: Any, shape: Shape) -> np.ndarray:
    """Numbers for each channel (C,) of values of this shape, in the form that fits arrays with the channels first."""
    return np.asarray(array).reshape(-1, *[1] * (len(shape) - 1))
