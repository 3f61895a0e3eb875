"""Constants that a file computes, such as the shape that an array is flattened to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbnet.errors import OnnxError
from nbnet.onnx.graph import Graph, Node

BATCH = -(1 << 40)  # stands for the number of examples, which is not known
LARGEST = 1 << 21  # numbers in a constant that is larger than what it is computed from
ROOM, TIMES = 1 << 26, 4  # numbers that all of them may have, and so many times those in the file


class Constants:
    """The values of names that do not depend on the numbers of the inputs.

    Attributes:
        shapes: of one example, of the arrays that have been read so far: what Shape gives.
        output_layout: of the file: "NHWC", "NCHW", or "", that of the last nodes.
        rows: the number of examples that the file fixes, or None.
    """

    def __init__(self, graph: Graph, output_layout: str) -> None:
        self.graph, self.output_layout = graph, output_layout
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.rows = graph.inputs[0][1][0] if graph.inputs else None
        self.room = ROOM + TIMES * sum(array.size for array in graph.constants.values())

    def get(self, name: str) -> np.ndarray | None:
        """The value of this name; None if it is data.

        Raises:
            OnnxError: it is computed by a node that nbnet cannot evaluate.
        """
        known = self.graph.constants
        if name in known:
            return known[name]
        node = self.graph.producers.get(name)
        if node is None or node.data:
            return None
        if node.op == "Shape":
            value = self._shape(node)
        else:
            if node.op not in FOLDERS:
                raise OnnxError(f"node {node.name!r} computes a constant by {node.op}, which nbnet cannot")
            inputs = [self.get(each) if each else None for each in node.inputs]
            try:
                with np.errstate(all="ignore"):
                    value = np.asarray(FOLDERS[node.op](node, *inputs))
            except OnnxError:
                raise
            except Exception as error:  # whatever inputs that do not fit cause in NumPy
                raise OnnxError(f"node {node.name!r} ({node.op}) cannot compute its constant: {error}") from error
            if not any(each is not None and np.may_share_memory(value, each) for each in inputs):
                self.spend(value.size)
        known[name] = value
        return value

    def spend(self, numbers: int) -> None:
        """Count numbers that the file does not hold, but makes.

        Raises:
            OnnxError: there are too many: a small file must not fill the memory.
        """
        self.room -= numbers
        if self.room < 0:
            raise OnnxError(
                f"constants and tables that the file makes have more than {ROOM:,} numbers, expected a file that holds its weights"
            )

    def _shape(self, node: Node) -> np.ndarray:
        (source,) = node.inputs
        if source in self.graph.constants:
            whole: Sequence[int] = self.graph.constants[source].shape
        elif source in self.shapes:
            whole = (BATCH, *self.shapes[source])
        else:
            raise OnnxError(f"node {node.name!r} needs the shape of {source!r}, which is computed on another branch")
        return np.array(whole[node.int("start", 0) : node.int("end")], np.int64)


def _small(size: float) -> None:
    if size > LARGEST:
        raise OnnxError(f"a constant of {size:,.0f} numbers, expected at most {LARGEST:,}")


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Any]:
    def fold(node: Node, a: Any, b: Any) -> Any:
        size = math.prod(np.broadcast_shapes(a.shape, b.shape))
        _small(0 if size in (a.size, b.size) else size)
        return function(a, b).astype(a.dtype)

    return fold


def _axes(node: Node, given: Any) -> tuple[int, ...] | None:
    axes = node.ints("axes") if given is None else given.tolist()
    return None if axes is None else tuple(axes)


def _gather(node: Node, x: Any, indices: Any) -> Any:
    axis = node.int("axis", 0)
    _small(0 if indices.size <= x.shape[axis] else x.size // max(1, x.shape[axis]) * indices.size)
    return np.take(x, indices, axis=axis)


def _concat(node: Node, *arrays: Any) -> Any:
    _small(sum(each.size for each in arrays))
    return np.concatenate(arrays, axis=node.int("axis", 0))


def _cast(node: Node, x: Any) -> Any:
    from nbnet.onnx.extra import package

    return x.astype(package().helper.tensor_dtype_to_np_dtype(node.int("to")))


def _slice(node: Node, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    for axis, piece in slices(node, x.ndim, starts, ends, axes, steps).items():
        x = x[(slice(None),) * axis + (piece,)]
    return x


def slices(node: Node, rank: int, starts: Any, ends: Any, axes: Any, steps: Any) -> dict[int, slice]:
    """What a Slice keeps of each axis."""
    first = node.ints("starts") if starts is None else starts.tolist()
    last = node.ints("ends") if ends is None else ends.tolist()
    if first is None or last is None:
        raise OnnxError("starts or ends are missing")
    where = _axes(node, axes) or range(len(first))
    by = [1] * len(first) if steps is None else steps.tolist()
    return {axis % rank: slice(*numbers) for axis, *numbers in zip(where, first, last, by)}


def _constant_of_shape(node: Node, shape: Any) -> Any:
    sizes = shape.tolist()
    _small(math.prod(sizes))
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full(sizes, value.reshape(-1)[0], value.dtype)


def _expand(node: Node, x: Any, shape: Any) -> Any:
    shape = np.broadcast_shapes(x.shape, tuple(shape.tolist()))
    _small(math.prod(shape))
    return np.array(np.broadcast_to(x, shape))


FOLDERS: dict[str, Callable[..., Any]] = {
    "Identity": lambda node, x: x,
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Unsqueeze": lambda node, x, axes=None: np.expand_dims(x, _axes(node, axes) or ()),
    "Squeeze": lambda node, x, axes=None: np.squeeze(x, _axes(node, axes)),
    "Transpose": lambda node, x: np.transpose(x, node.ints("perm")),
    "Reshape": lambda node, x, shape: np.reshape(x, shape.tolist()),
    "Neg": lambda node, x: -x,
    "Floor": lambda node, x: np.floor(x),
    "Ceil": lambda node, x: np.ceil(x),
    "Sqrt": lambda node, x: np.sqrt(x),
    "Exp": lambda node, x: np.exp(x),
    "Add": _arithmetic(np.add),
    "Sub": _arithmetic(np.subtract),
    "Mul": _arithmetic(np.multiply),
    "Div": _arithmetic(lambda a, b: a // b if a.dtype.kind in "iu" else a / b),
    "Pow": _arithmetic(np.power),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
}
