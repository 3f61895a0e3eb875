"""Small files that would make large arrays, many branches or long messages: one short line, in little time and memory."""

import time
import tracemalloc

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import nbnet as nb  # noqa: E402
from nbnet.errors import NbnetError  # noqa: E402

from .test_bad_files import raised  # noqa: E402

node, constant = helper.make_node, numpy_helper.from_array


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])


def model(nodes, shape, constants=(), inputs=("x",), outputs=("y",)):
    ends = [floats(name, *shape) for name in inputs], [floats(name, *shape) for name in outputs]
    graph = helper.make_graph(nodes, "g", *ends, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def gathered():
    """Each of 1024 indices takes a row of 2 million."""
    nodes = [node("ConstantOfShape", ["s"], ["a"]), node("Gather", ["a", "i"], ["b"]), node("Add", ["x", "b"], ["y"])]
    return model(nodes, (4,), [constant(np.array([1, 1 << 21]), "s"), constant(np.zeros(1 << 10, np.int64), "i")])


def many_constants():
    nodes = [node("ConstantOfShape", ["s"], [f"c{i}"]) for i in range(64)]
    nodes += [node("Add", [f"c{2 * i}", f"c{2 * i + 1}"], [f"c{64 + i}"]) for i in range(63)]
    return model([*nodes, node("Add", ["x", "c126"], ["y"])], (4,), [constant(np.array([1 << 21]), "s")])


def many_norms():
    nodes, last = [], "x"
    for i in range(30):
        nodes += [node("Mul", [last, "two"], [f"m{i}"]), node("Relu", [f"m{i}"], [f"r{i}"])]
        last = f"r{i}"
    return model(nodes, (1 << 20,), [constant(np.float32(2), "two")], outputs=(last,))


def many_tables():
    nodes, last = [], "x"
    for i in range(30):
        nodes.append(node("Pad", [last, "p"], [f"m{i}"], mode="edge"))
        last = f"m{i}"
    return model(nodes, (1, 1, (1 << 20) - 100), [constant(np.array([0] * 7 + [1]), "p")], outputs=(last,))


def outside(folder):
    """One file with a hole, named by eight tensors."""
    with open(folder / "hole.bin", "wb") as file:
        file.truncate(1 << 30)
    tensors = [TensorProto(name=f"t{i}", data_type=1, dims=[1 << 28], data_location=1) for i in range(8)]
    for tensor in tensors:
        tensor.external_data.add(key="location", value="hole.bin")
    return model([node("Relu", ["x"], ["y"])], (3,), tensors)


def long_name():
    return model([node("Foo", ["x"], ["y"], name="n" * 100_000)], (3,))


def long_open_input():
    return model([node("Relu", ["x" * 100_000], ["y"])], ("a",), inputs=("x" * 100_000,))


RELU = node("Relu", ["x"], ["y"])
CASES = {
    "a gathered constant": (lambda folder: gathered(), "a constant of 2,147,483,648 numbers, expected at most"),
    "many constants": (lambda folder: many_constants(), "constants and tables that the file makes have more than 67,108,864 numbers"),
    "many norms": (lambda folder: many_norms(), "constants and tables that the file makes have more than"),
    "many tables": (lambda folder: many_tables(), "constants and tables that the file makes have more than"),
    "holes outside": (outside, "tensors of 2,147,483,648 numbers outside the file, expected at most 536,870,912"),
    "many inputs": (lambda folder: model([RELU], (3,), inputs=["x", *map(str, range(9999))]), "10,000 inputs and 1 outputs"),
    "many outputs": (lambda folder: model([RELU], (3,), outputs=["y"] * 9999), "1 inputs and 9,999 outputs, expected at most 64"),
    "a wide node": (lambda folder: model([node("Sum", ["x"] * 30_000, ["y"])], (3,)), "30,000 inputs together, expected at most 25,000"),
    "a long name": (lambda folder: long_name(), "nbnet has no operator Foo"),
    "a long name of an input": (lambda folder: long_open_input(), "of open sizes: write load(path, input_shape="),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_small_file_stays_small(name, tmp_path):
    make, message = CASES[name]
    path = tmp_path / "a.onnx"
    path.write_bytes(make(tmp_path).SerializeToString())
    began = time.perf_counter()
    tracemalloc.start()
    try:
        error = raised(lambda path: nb.onnx.load(path, backend="numpy"), path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 30
    finally:
        tracemalloc.stop()
    assert isinstance(error, NbnetError), repr(error)
    assert message in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 600
    assert time.perf_counter() - began < 10
