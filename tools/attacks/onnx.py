"""Damaged ONNX files: bytes changed, or attributes, sizes, numbers, nodes and names.

Loading one either works, and the model predicts, or raises an NbnetError of one line, soon.
"""

from __future__ import annotations

import copy
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import nbnet as nb
from nbnet.errors import NbnetError

from .files import Failure, damaged

LONGEST, SLOWEST = 600, 20.0  # characters of a message, seconds
NUMBERS = [0, 1, -1, 2, 3, 7, 65535, 65536, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)]
REALS = [0.0, -1.0, 1e38, 1e-38, float("nan"), float("inf")]
VALUES = [*NUMBERS, *REALS, "SAME_LOWER", "linear", [1.5], [1, 0], [2, 2, 1, 1]]
ATTRIBUTES = (
    "axis",
    "axes",
    "group",
    "pads",
    "strides",
    "auto_pad",
    "ceil_mode",
    "perm",
    "keepdims",
    "mode",
    "value",
    "to",
    "kernel_shape",
)
OPERATORS = ("Add", "Mul", "Concat", "Sub", "Gather", "Shape", "Expand", "Reshape", "Resize", "Pad", "Slice", "Constant", "ConstantOfShape")


def attack(numbers: np.random.Generator, folder: Path) -> Iterator[str | None]:
    seed = int(numbers.integers(1 << 30))
    whole = [_file(make, shape, folder) for make, shape in NETWORKS]
    for number in itertools.count():
        name = f"onnx {seed} {number}"
        rng = random.Random(name)
        data = rng.choice(whole)
        (folder / "bad.onnx").write_bytes(damaged(data, rng) if rng.randrange(3) == 0 else _changed(data, rng))
        try:
            with np.errstate(all="ignore"):
                _read(folder / "bad.onnx")
        except Exception as error:
            yield f"{name}: {type(error).__name__}: {str(error)[:200]}"
        else:
            yield None


NETWORKS: list[tuple[Any, Any]] = [
    (nb.models.se_resnet, (8, 8, 3)),
    (nb.models.unet_small, (8, 8, 1)),
    (nb.models.keyword, (12, 3)),
    (nb.models.siamese, ((8, 8, 1), (8, 8, 1))),
    (lambda: nb.Sequential([nb.Dense(6), nb.GELU(), nb.Residual([nb.LayerNorm(), nb.Dense(6)]), nb.GroupNorm(2), nb.RMSNorm()]), (5,)),
]


def _file(make: Any, shape: Any, folder: Path) -> bytes:
    model = make()
    model.build(shape, backend="numpy")
    nb.onnx.export(model, folder / "whole.onnx", input_layout="NHWC" if len(shape) == 2 else "NCHW")
    return (folder / "whole.onnx").read_bytes()


def _read(path: Path) -> None:
    began = time.perf_counter()
    try:
        model: Any = nb.onnx.load(path, backend="numpy")
    except NbnetError as error:
        if "\n" in str(error) or len(str(error)) > LONGEST:
            raise Failure(f"no short line: {str(error)[:LONGEST]!r}") from error
        return
    finally:
        if time.perf_counter() - began > SLOWEST:
            raise Failure(f"it took {time.perf_counter() - began:.0f} seconds")
    shapes = model.input_shape if isinstance(model.input_shape[0], tuple) else (model.input_shape,)
    if max(np.prod(shape) for shape in shapes) < 10_000 and np.prod(model.output_shape[0]) < 10_000:
        xs = tuple([np.zeros((2, *shape), np.float32) for shape in shapes])
        model.forward(xs if len(xs) > 1 else xs[0])


def _changed(data: bytes, rng: random.Random) -> bytes:
    proto = onnx.ModelProto.FromString(data)
    graph = proto.graph
    for _ in range(rng.randint(1, 3)):
        node = rng.choice(graph.node)
        rng.choice(CHANGES)(graph, node, rng)
    if rng.randrange(10) == 0:
        proto.opset_import[0].version = rng.choice([7, 9, 11, 13, 18, 99])
    return bytes(proto.SerializeToString())


def _attribute(graph: Any, node: Any, rng: random.Random) -> None:
    names = [each.name for each in node.attribute] or ATTRIBUTES
    name = rng.choice([*names, rng.choice(ATTRIBUTES)])
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, rng.choice(VALUES))])
    if rng.randrange(8) == 0:
        node.attribute[-1].type = rng.randrange(15)  # not that of the value


def _tensor(graph: Any, node: Any, rng: random.Random) -> None:
    tensor = rng.choice(graph.initializer)
    array = numpy_helper.to_array(tensor)
    if array.dtype == np.int64 and array.size:
        array = array.copy()
        array.flat[rng.randrange(array.size)] = rng.choice(NUMBERS)
    else:
        array = rng.choice([array.T, array.reshape(-1), array[..., None], array * np.float32(np.nan), array.astype(np.float16)])
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def _size(graph: Any, node: Any, rng: random.Random) -> None:
    rng.choice(rng.choice(graph.input).type.tensor_type.shape.dim).dim_value = rng.choice(NUMBERS)


def _name(graph: Any, node: Any, rng: random.Random) -> None:
    results = [name for each in graph.node for name in each.output]
    names = ["", "nowhere", *results, *(each.name for each in [*graph.initializer, *graph.input])]
    if node.input and rng.randrange(3):
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    else:
        node.input.append(rng.choice(names))


def _node(graph: Any, node: Any, rng: random.Random) -> None:
    if rng.randrange(3) == 0 and len(graph.node) > 1:
        graph.node.remove(node)
    elif rng.randrange(2):
        graph.node.append(copy.deepcopy(node))
    else:
        node.op_type = rng.choice([*OPERATORS, *(each.op_type for each in graph.node)])


def _constant(graph: Any, node: Any, rng: random.Random) -> None:
    """What a node reads last, from a node Constant with a value of any type."""
    name = f"constant {len(graph.node)}"
    made = helper.make_node("Constant", [], [name], **{rng.choice(["value", "value_int", "value_floats"]): rng.choice(VALUES)})
    if rng.randrange(2):
        made.attribute[0].type = rng.randrange(15)
    graph.node.insert(0, made)
    if node.input:
        node.input[-1] = name


CHANGES = (_attribute, _tensor, _size, _name, _node, _constant)
