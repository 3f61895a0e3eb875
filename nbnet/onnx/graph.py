"""The graph of an ONNX file: nodes and constants, checked, and how its branches nest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import OnnxError
from nbnet.onnx.extra import package
from nbnet.onnx.files import array

MOST = 5_000  # nodes
MOST_USES, MOST_ENDS = 5 * MOST, 64  # of arrays by nodes; inputs and outputs of the file
MOST_OUTSIDE = 1 << 29  # numbers in other files, which may have holes, or be named several times
OLDEST = 7  # operator set, of 2018: since then operators broadcast as NumPy does
STANDARD = ("", "ai.onnx")
REPEATABLE = ("Add", "Sub", "Mul", "Div", "Identity")  # with constants: nodes that two branches may begin with, as both read them
NO_DATA = ("Shape", "Size")  # their results do not depend on the numbers of their inputs


class Node:
    """A node with checked attributes. Its data is what depends on the inputs of the model; the first output is the one that counts."""

    def __init__(self, op: str, name: str, inputs: Sequence[str], outputs: Sequence[str], attributes: dict[str, Any]) -> None:
        self.op, self.name = op, name
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.attributes = attributes
        self.data: list[str] = []

    def ints(self, name: str, default: Any = None) -> Any:
        return self._checked(name, default, lambda v: isinstance(v, list) and all(type(n) is int for n in v), "whole numbers")

    def int(self, name: str, default: Any = None) -> Any:
        return self._checked(name, default, lambda v: type(v) is int, "a whole number")

    def float(self, name: str, default: Any = None) -> Any:
        return self._checked(name, default, lambda v: type(v) is float and np.isfinite(v), "a finite number")

    def text(self, name: str, default: str = "") -> str:
        return str(self._checked(name, default, lambda v: isinstance(v, str), "a text"))

    def _checked(self, name: str, default: Any, fits: Callable[[Any], bool], expected: str) -> Any:
        if name not in self.attributes:
            return default
        value = self.attributes[name]
        if not fits(value):
            raise OnnxError(f"{name} is {str(value)[:60]}, expected {expected}")
        return value


class Join(NamedTuple):
    """A node whose inputs come from branches that begin at one array, or at the inputs of the model."""

    node: Node
    branches: list[list[Any]]


class Input(NamedTuple):
    """The beginning at an input of the model."""

    number: int


Item = Node | Join | Input


class Graph:
    """What a ModelProto holds.

    Attributes:
        inputs: names and declared sizes (None where they are not fixed) of the arrays that the model takes.
    Raises:
        OnnxError: the graph is damaged, or is not one of float32 arrays and plain operators.
    """

    def __init__(self, proto: Any, folder: Path) -> None:
        self.metadata = {entry.key: entry.value for entry in proto.metadata_props}
        self.of_nbnet = proto.producer_name == "nbnet"
        self.opset = _opset(proto)
        graph = proto.graph
        if len(graph.node) > MOST:
            raise OnnxError(f"{len(graph.node):,} nodes, expected at most {MOST:,}")
        uses = sum(len(node.input) for node in graph.node)
        if uses > MOST_USES:
            raise OnnxError(f"nodes with {uses:,} inputs together, expected at most {MOST_USES:,}")
        if graph.sparse_initializer:
            raise OnnxError(f"a sparse tensor {graph.sparse_initializer[0].values.name!r}, expected dense ones")
        tensors = [*graph.initializer, *(each.t for node in graph.node for each in node.attribute)]
        outside = sum(max(0, math.prod(tensor.dims)) for tensor in tensors if tensor.data_location == tensor.EXTERNAL)
        if outside > MOST_OUTSIDE:
            raise OnnxError(f"tensors of {outside:,} numbers outside the file, expected at most {MOST_OUTSIDE:,}")
        self.constants: dict[str, np.ndarray] = {}
        for tensor in graph.initializer:
            if tensor.name in self.constants:
                raise OnnxError(f"two tensors have the name {tensor.name!r}")
            self.constants[tensor.name] = array(tensor, folder)
        inputs = [info for info in graph.input if info.name not in self.constants]
        self.outputs = [info.name for info in graph.output]
        if max(len(inputs), len(self.outputs)) > MOST_ENDS:
            raise OnnxError(f"{len(inputs):,} inputs and {len(self.outputs):,} outputs, expected at most {MOST_ENDS} of each")
        used = {*self.outputs, *(name for node in graph.node for name in node.input)}
        self.inputs = [(info.name, _sizes(info)) for info in inputs if info.name in used]
        self.producers: dict[str, Node] = {}
        nodes = [_node(node, i, folder) for i, node in enumerate(graph.node)]
        taken = {*self.constants, *(name for name, _ in self.inputs)}
        if len(taken) != len(self.constants) + len(self.inputs):
            raise OnnxError("two inputs have the same name")
        for node in nodes:
            for name in filter(None, node.outputs):
                if name in taken:
                    raise OnnxError(f"{name!r} is the result of two nodes, the last of which is {node.name!r}")
                taken.add(name)
                self.producers[name] = node
            if node.op == "Constant":
                self._add_constant(node)
        self.order = self._ordered(nodes)
        self._find_data()

    def _add_constant(self, node: Node) -> None:
        found = [node.attributes[key] for key in CONSTANTS if key in node.attributes]
        value = found[0] if len(found) == 1 else None
        numbers = value if isinstance(value, list) else [value]
        if len(node.outputs) != 1 or not (isinstance(value, np.ndarray) or all(type(each) in (int, float) for each in numbers)):
            raise OnnxError(f"node {node.name!r} (Constant) holds no tensor of numbers")
        of_floats = isinstance(value, float) or (isinstance(value, list) and value and isinstance(value[0], float))
        self.constants[node.outputs[0]] = value if isinstance(value, np.ndarray) else np.array(value, np.float32 if of_floats else np.int64)

    def _ordered(self, nodes: list[Node]) -> list[Node]:
        """The nodes, each after those whose results it needs."""
        known = {*self.constants, *(name for name, _ in self.inputs)}
        users: dict[str, list[int]] = {}
        missing = []
        for i, node in enumerate(nodes):
            needed = {name for name in node.inputs if name and name not in known}
            for name in needed:
                if name not in self.producers:
                    raise OnnxError(f"node {node.name!r} ({node.op}) needs {name!r}, which is nowhere in the file")
                users.setdefault(name, []).append(i)
            missing.append(len(needed))
        ready, order = [i for i, count in enumerate(missing) if not count], []
        for i in ready:  # grows
            order.append(nodes[i])
            for name in filter(None, nodes[i].outputs):
                for user in users.get(name, ()):
                    missing[user] -= 1
                    if not missing[user]:
                        ready.append(user)
        if len(order) < len(nodes):
            cyclic = next(node for node, count in zip(nodes, missing) if count)
            raise OnnxError(f"node {cyclic.name!r} ({cyclic.op}) is part of a cycle")
        return order

    def _find_data(self) -> None:
        data = {name for name, _ in self.inputs}
        for node in self.order:
            node.data = [name for name in node.inputs if name in data] if node.op not in NO_DATA else []
            if node.data:
                data.update(filter(None, node.outputs))
        for name in self.outputs:
            if name not in data:
                raise OnnxError(f"the output {name!r} does not depend on an input: expected a model")

    # ----------------------------------------------------------------------------------------------------- nesting

    def nested(self) -> list[Item]:
        """The nodes from the inputs to the outputs, one after another, where branches are lists within a Join.

        Raises:
            OnnxError: branches do not nest.
        """
        end = self.outputs[0]
        if len(self.outputs) > 1:
            end = "\0outputs"
            sink = Node("Outputs", "the outputs", self.outputs, [end], {})
            sink.data = list(self.outputs)
            self.producers[end] = sink
            self.order.append(sink)
        self._read = 0
        return self._chain(end, "", self._forks(), set())

    def _forks(self) -> dict[str, str]:
        """By the result of a node, the last array that all that it depends on passes through; "" stands for all inputs.

        It is the immediate dominator: Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm" (2001).
        """
        forks = {name: "" for name, _ in self.inputs}
        depth = {"": 0, **dict.fromkeys(forks, 1)}
        for node in self.order:
            if not node.data:
                continue
            fork = node.data[0]
            for other in node.data[1:]:
                while fork != other:
                    if depth[fork] >= depth[other]:
                        fork = forks[fork]
                    else:
                        other = forks[other]
            for name in filter(None, node.outputs):
                forks[name], depth[name] = fork, depth[fork] + 1
        return forks

    def _chain(self, end: str, start: str, forks: dict[str, str], used: set[str]) -> list[Item]:
        """What computes `end` from `start`."""
        items: list[Item] = []
        names = [name for name, _ in self.inputs]
        at = end
        while at != start:
            self._read += 1
            node = self.producers.get(at)
            repeatable = node is not None and node.op in REPEATABLE and len(node.data) == 1 and self._read < 4 * MOST
            if at in used and not repeatable:
                raise OnnxError(f"{at!r} goes into branches that are joined in different places: expected branches that nest, as in ResNet")
            used.add(at)
            if at in names:
                items.append(Input(names.index(at)))
                at = ""
                continue
            assert node is not None
            if at != node.outputs[0]:
                raise OnnxError(f"node {node.name!r} ({node.op}): its result {at!r} is used, expected the first one alone")
            if len(node.data) == 1:
                items.append(node)
                at = node.data[0]
            else:
                fork = forks[at]
                items.append(Join(node, [self._chain(name, fork, forks, used) for name in node.data]))
                at = fork
        return items[::-1]


CONSTANTS = ("value", "value_float", "value_floats", "value_int", "value_ints")


def _opset(proto: Any) -> int:
    newest = package().defs.onnx_opset_version()
    versions = [each.version for each in proto.opset_import if each.domain in STANDARD]
    if len(versions) != 1 or not OLDEST <= versions[0] <= newest:
        found = ", ".join(f"{each.domain or 'ai.onnx'} {each.version}" for each in proto.opset_import) or "none"
        raise OnnxError(f"operator sets: {found[:200]}; expected ai.onnx {OLDEST} to {newest}")
    return int(versions[0])


def _node(proto: Any, number: int, folder: Path) -> Node:
    onnx = package()
    op = proto.op_type if proto.domain in STANDARD else f"{proto.domain}.{proto.op_type}"
    name = proto.name or f"number {number}"
    attributes: dict[str, Any] = {}
    for each in proto.attribute:
        if each.ref_attr_name:
            raise OnnxError(f"node {name!r} ({op}): attribute {each.name!r} is that of a function, expected a value")
        if each.type == onnx.AttributeProto.TENSOR:
            attributes[each.name] = array(each.t, folder)
            continue
        try:
            value = onnx.helper.get_attribute_value(each)
        except Exception as error:
            raise OnnxError(f"node {name!r} ({op}): attribute {each.name!r} has no value") from error
        attributes[each.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
        if not isinstance(value, (bytes, int, float)) and np.iterable(value):
            attributes[each.name] = list(value)
    return Node(op, name, proto.input, proto.output, attributes)


def _sizes(info: Any) -> tuple[int | None, ...]:
    """The declared sizes of an input, with the batch."""
    onnx = package()
    tensor = info.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kinds = onnx.TensorProto.DataType
        kind = kinds.Name(tensor.elem_type) if tensor.elem_type in kinds.values() else "unknown"
        raise OnnxError(f"the input {info.name!r} is of the type {kind}, expected FLOAT")
    if len(tensor.shape.dim) < 2:
        raise OnnxError(f"the input {info.name!r} has {len(tensor.shape.dim)} axes, expected a batch of examples")
    return tuple([each.dim_value if each.HasField("dim_value") else None for each in tensor.shape.dim])
