"""What the rules of the operators read with: layers that are built one after another, and where the numbers of an array are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbnet import layers as nb
from nbnet.errors import OnnxError
from nbnet.layers import Layer
from nbnet.layers.base import Shape
from nbnet.onnx.folding_constants import Constants
from nbnet.onnx.graph import Node
from nbnet.runtime.backend import Backend

LARGEST = 1 << 26  # numbers in an array of one example
MOST_CHANNELS = 1 << 20  # that one number of the file is repeated for


class At(NamedTuple):
    """An array of the file, and where nbnet has its numbers.

    Attributes:
        shape: of one example, as the file has it.
        moved: empty where nbnet has the numbers in this order. Otherwise it has the channels last, those of an array of the shape
            `moved`: of the array itself, or, of flat features, before it was flattened.
    """

    shape: Shape
    moved: Shape = ()

    @property
    def in_nbnet(self) -> Shape:
        return (*self.shape[1:], self.shape[0]) if self.moved and len(self.shape) > 1 else self.shape


class Affine(NamedTuple):
    """factor * x + offset: numbers, or one for each of the last axis in nbnet. It becomes a BatchNorm unless it is part of a pattern."""

    factor: Any
    offset: Any

    def then(self, other: Affine) -> Affine:
        return Affine(self.factor * other.factor, self.offset * other.factor + other.offset)

    def scales_by(self, number: float) -> bool:
        return self.is_close(number, 0)

    def is_close(self, factor: float, offset: float) -> bool:
        return bool(np.allclose(self.factor, factor, 1e-5, 1e-6) and np.allclose(self.offset, offset, 1e-5, 1e-6))


class Function(NamedTuple):
    """An operator that nbnet has only as part of a pattern."""

    op: str
    node: Node


Step = Layer | Affine | Function
POWERS = {"square": 2, "cube": 3}
GLOBAL_POOLS = nb.GlobalAvgPool2D, nb.GlobalMaxPool2D  # those of sequences too


class Reader:
    """Reads a chain of nodes.

    Args:
        of: the reader of what is around it.
    Attributes:
        at: where the chain has come.
        steps: what has been read.
    """

    def __init__(self, constants: Constants, backend: Backend, at: At) -> None:
        self.constants, self.backend, self.at = constants, backend, at
        self.began = at.in_nbnet
        self.opset, self.of_nbnet, self.rows = constants.graph.opset, constants.graph.of_nbnet, constants.rows
        self.steps: list[Step] = []
        self.node: Node | None = None
        self.source: int | None = None  # of a model with several inputs, the one where the chain begins

    def branch(self, at: At | None = None) -> Reader:
        return Reader(self.constants, self.backend, self.at if at is None else at)

    # --------------------------------------------------------------------------------------------------- arguments

    def constant(self, node: Node, index: int) -> np.ndarray | None:
        """An input that must not be data; None if it is left out."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        value = self.constants.get(node.inputs[index])
        if value is None:
            raise OnnxError(f"{node.inputs[index]!r} depends on the input of the model, expected a constant")
        return value

    def weight(self, node: Node, index: int, shape: Sequence[int | None] | None = None) -> np.ndarray:
        """A constant of float32; None in its shape fits any size."""
        value = self.constant(node, index)
        if value is None:
            raise OnnxError(f"input {index} is missing")
        self.check_floats(value, node.inputs[index])
        fits = shape is None or (value.ndim == len(shape) and all(want in (None, n) for n, want in zip(value.shape, shape)))
        if not fits or not value.size:
            expected = "at least one number" if shape is None else str(tuple("any" if n is None else n for n in shape)).replace("'", "")
            raise OnnxError(f"{node.inputs[index]!r} has shape {value.shape}, expected {expected}")
        return value

    @staticmethod
    def check_floats(value: np.ndarray, name: str) -> None:
        if value.dtype != np.float32:
            raise OnnxError(f"{name!r} is {value.dtype}, expected float32: convert the file to float32")
        if not np.isfinite(value).all():
            raise OnnxError(f"{name!r} contains NaN or infinity, expected trained weights")

    def ints(self, node: Node, index: int, attribute: str) -> list[int] | None:
        """Whole numbers that newer operator sets have as an input, older ones as an attribute."""
        value = self.constant(node, index)
        if value is None:
            found: list[int] | None = node.ints(attribute)
            return found
        if value.dtype.kind not in "iu" or value.ndim > 1 or value.size > 100:
            raise OnnxError(f"{node.inputs[index]!r} is {value.dtype} of shape {value.shape}, expected a few whole numbers")
        return [int(n) for n in value.reshape(-1)]

    # ------------------------------------------------------------------------------------------------------- steps

    def add(self, layer: Layer, **arrays: np.ndarray) -> Layer:
        """Build a layer, and set its parameters and buffers. Axes stay where they are."""
        shape = self.at.in_nbnet
        if self.node is not None and self.of_nbnet:
            self._label(layer, self.node.name)
        output = layer.build(shape, backend=self.backend)
        if math.prod(output) > LARGEST:
            raise OnnxError(f"an array of shape {output} for one example, expected at most {LARGEST:,} numbers")
        for name, array in arrays.items():
            target = layer.params[name].value if name in layer.params else layer.buffers[name]
            if target.shape != array.shape:
                raise OnnxError(f"{name} has shape {array.shape}, expected {target.shape}")
            target[:] = np.ascontiguousarray(array, target.dtype)
            if not np.isfinite(array).all():
                raise OnnxError(f"{name} is infinite in float32, expected trained weights")
        if self.at.moved and len(self.at.shape) > 1 and len(output) > 1:
            shape = (output[-1], *output[:-1])
            self.at = At(shape, shape)
        else:
            self.at = At(output, self.at.moved if output == shape else ())
        self.steps.append(layer)
        return layer

    @staticmethod
    def _label(layer: Layer, name: str) -> None:
        """The name that nbnet has written: the last of those of the layers around it, unless it is position and kind."""
        *outer, label = name.split(".")
        if not (outer and outer[-1].isdigit()) and re.fullmatch(r"[\w-]+", label):
            layer.named(label)

    def affine(self, factor: Any, offset: Any) -> None:
        """factor * x + offset, joined with what is before it."""
        step = Affine(np.float64(factor) if np.ndim(factor) == 0 else factor, np.float64(offset) if np.ndim(offset) == 0 else offset)
        before = self.steps[-1] if self.steps else None
        if isinstance(before, Affine):
            self.steps[-1] = before.then(step)
        elif isinstance(before, (nb.Dense, nb.Conv1D, nb.Conv2D, nb.DepthwiseConv2D)) and not before.use_bias and np.all(step.factor == 1):
            self._give_bias(before, step.offset)
        else:
            self.steps.append(step)

    def _give_bias(self, layer: Any, bias: Any) -> None:
        weight = np.asarray(layer.params["weight"].value)
        shape: Any = layer.input_shape
        layer.use_bias = True
        layer.build(shape, backend=self.backend, rebuild=True)
        layer.params["weight"].value[:] = weight
        layer.params["bias"].value[:] = np.asarray(np.broadcast_to(bias, layer.output_shape[-1:]), np.float32)

    def finished(self) -> list[Layer]:
        """The layers, where no part of a pattern is left over.

        Raises:
            OnnxError: one is.
        """
        layers: list[Layer] = []
        for step in self.steps:
            before = layers[-1] if layers else None
            shape = self.began if before is None else before.output_shape
            if isinstance(step, Function) and step.op in POWERS:
                step = self._built(nb.Multiply([()] * POWERS[step.op]), shape)
            if isinstance(step, Function):
                raise OnnxError(unsupported(step.node))
            if isinstance(step, Affine):
                if step.is_close(1, 0):
                    continue
                norm = self._of_norm(before, step)
                if norm is not None:
                    layers[-1] = norm
                    continue
                step = self._batch_norm(step, shape)
            if isinstance(step, nb.Flatten) and isinstance(before, GLOBAL_POOLS) and before.keepdims:
                layers[-1] = self._built(type(before)(), before.input_shape)
                continue
            layers.append(step)
        _distinguish(layers)
        return layers

    def _built(self, layer: Layer, shape: Any) -> Layer:
        layer.build(shape, backend=self.backend)
        return layer

    def _batch_norm(self, step: Affine, shape: Shape) -> Layer:
        if shape[-1] > MOST_CHANNELS:
            raise OnnxError(f"arithmetic with {shape[-1]:,} features, expected at most {MOST_CHANNELS:,}")
        self.constants.spend(8 * shape[-1])  # four arrays, built twice
        layer = self._built(nb.BatchNorm(track="deviation"), shape)  # a deviation of 1, to which no eps is added
        return _set_affine(layer, step)

    def _of_norm(self, before: Layer | None, step: Affine) -> Layer | None:
        """The norm with this gamma and beta, if the layer is one that has none."""
        if isinstance(before, nb.GroupNorm) and not before.scale and not before.center:
            return _set_affine(self._built(nb.GroupNorm(before.groups, before.eps), before.input_shape), step)
        if isinstance(before, nb.LayerNorm) and not before.scale and not before.center and before.axes == -1:
            return _set_affine(self._built(nb.LayerNorm(before.eps), before.input_shape), step)
        if isinstance(before, nb.RMSNorm) and not before.scale and before.axes == -1 and np.all(step.offset == 0):
            return _set_affine(self._built(nb.RMSNorm(before.eps), before.input_shape), step)
        return None

    # ------------------------------------------------------------------------------------------- where the numbers are

    def last(self) -> None:
        """Let nbnet have the channels, the first axis of the file, last."""
        rank = len(self.at.shape)
        if rank > 1 and not self.at.moved:
            shape = self.at.shape
            if math.prod(shape[1:]) == 1:
                self.add(nb.Reshape((*shape[1:], shape[0])))
            else:
                self.add(nb.Permute((*range(2, rank + 1), 1)))
            self.at = At(shape, shape)

    def same(self) -> None:
        """Let nbnet have the numbers in the order of the file."""
        at = self.at
        if not at.moved:
            return
        rank = len(at.moved)
        if len(at.shape) == 1:
            self.add(nb.Reshape((*at.moved[1:], at.moved[0])))
        if math.prod(at.moved[1:]) == 1:
            self.add(nb.Reshape(at.shape))
        else:
            self.add(nb.Permute((rank, *range(1, rank))))
            if len(at.shape) == 1:
                self.add(nb.Flatten())
        self.at = At(at.shape)

    def end(self) -> None:
        """Give an output the order that it has in nbnet; features are in the order of the file."""
        layout = self.constants.output_layout
        if len(self.at.shape) == 1 or layout == "NHWC":
            self.same()
        elif layout == "NCHW":
            self.last()

    def reshape(self, shape: Shape) -> None:
        """The numbers in the same order, in another shape; features of an image that is flattened are put in order where they are used."""
        at = self.at
        if shape == at.shape:
            return
        if len(shape) == 1 and at.moved and len(at.shape) > 1:
            self.add(nb.Flatten())
            self.at = At(shape, at.moved if math.prod(at.shape[1:]) > 1 else ())
        elif shape == at.moved or (len(at.shape) == 1 and not at.moved and shape == (*at.shape, *[1] * (len(shape) - 1))):
            self.add(nb.Reshape((*shape[1:], shape[0])))
            self.at = At(shape, shape)
        else:
            self.same()
            self.add(nb.Flatten() if len(shape) == 1 else nb.Reshape(shape))
            self.at = At(shape)

    def channels(self, node: Node, ranks: Sequence[int]) -> tuple[int, ...]:
        """Make the channels the last axis in nbnet; the sizes of the other axes.

        Raises:
            OnnxError: the array has another rank.
        """
        if len(self.at.shape) - 1 not in ranks:
            expected = " or ".join(f"{rank + 2}" for rank in ranks)
            raise OnnxError(f"its input has {len(self.at.shape) + 1} axes, expected {expected}: nbnet has images (N, C, H, W)")
        self.last()
        return self.at.shape[1:]


def _set_affine(layer: Layer, step: Affine) -> Layer:
    for name, values in (("gamma", step.factor), ("beta", step.offset)):
        if name in layer.params:
            layer.params[name].value[:] = np.asarray(np.broadcast_to(values, layer.output_shape[-1:]), np.float32)
    return layer


def _distinguish(layers: Sequence[Layer]) -> None:
    """Take names of their own from layers that follow another one with the same: they come from different containers."""
    known: set[str] = set()
    for layer in layers:
        if layer.label in known:
            layer.label = ""
        known.add(layer.label)


def for_last_axis(r: Reader, value: np.ndarray) -> np.ndarray:
    """A constant as one number, or as one for each of the last axis in nbnet."""
    if value.size == 1 and value.ndim <= len(r.at.shape) + 1:
        return value.reshape(())
    shape = r.at.shape
    if value.ndim == len(shape) + 1 and value.shape[0] == 1:
        value = value[0]
    sizes = (*[1] * (len(shape) - value.ndim), *value.shape)
    axes = [axis for axis, n in enumerate(sizes) if n > 1]
    if len(sizes) > len(shape) or len(axes) != 1 or sizes[axes[0]] != shape[axes[0]]:
        raise OnnxError(f"a constant of shape {value.shape} for an array of shape {shape}, expected one number, or one for each channel")
    value = value.reshape(-1)
    if len(shape) == 1:
        return in_nbnet(r.at, value)
    if axes[0] == 0:
        r.last()
    elif axes[0] == len(shape) - 1:
        r.same()
    else:
        raise OnnxError(f"a constant of shape {value.shape} along an axis between, expected one for each channel")
    return value


def in_nbnet(at: At, value: np.ndarray) -> np.ndarray:
    """Numbers for the first axis of the file in nbnet's order, in which features of an image have the channels last."""
    return np.moveaxis(value.reshape(at.moved), 0, -1).reshape(-1) if at.moved and len(at.shape) == 1 else value


def short(number: float) -> float:
    """The number that was meant by one in float32."""
    return float(str(np.float32(number)))


def unsupported(node: Node) -> str:
    return f"node {node.name!r}: nbnet has no operator {node.op}"


Rule = Callable[[Reader, Node], None]
Rules = Mapping[str, Rule]
