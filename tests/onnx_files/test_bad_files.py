"""Damaged and hostile ONNX files: one line each, no traceback, no huge allocation."""

import random
import tracemalloc

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from test_siege import TOOLS  # noqa: E402

import nbnet as nb  # noqa: E402
from nbnet.errors import NbnetError, OnnxError  # noqa: E402


def whole():
    """A file with a convolution, branches and a dense layer."""
    layers = [nb.Conv2D(4, 3), nb.BatchNorm(), nb.Residual([nb.Conv2D(4, 1), nb.SiLU()]), nb.UpSample2D(2), nb.ZeroPad2D(1)]
    model = nb.Sequential([*layers, nb.MaxPool2D(2), nb.GroupNorm(2), nb.Flatten(), nb.LayerNorm(), nb.Dense(3), nb.Softmax()])
    model.build((4, 4, 2), backend="numpy")
    return model


@pytest.fixture
def data(tmp_path):
    nb.onnx.export(whole(), tmp_path / "whole.onnx", class_names=["a", "b", "c"])
    return (tmp_path / "whole.onnx").read_bytes()


@pytest.fixture
def refused(tmp_path):
    """A function that checks the one line for a file, and that reading it took little memory."""

    def check(content, message=""):
        path = tmp_path / "bad.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        tracemalloc.start()
        try:
            with pytest.raises(OnnxError) as raised:
                nb.onnx.load(path)
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()
        text = str(raised.value)
        assert message in text, text
        assert str(path) in text
        assert "\n" not in text
        assert len(text) < 600

    return check


def test_no_file(tmp_path):
    for path, message in (
        ("no.onnx", "cannot read .*no.onnx': No such file"),
        (".", "is not a file: expected an ONNX"),
        ("a\0b", "cannot read"),
    ):
        for read in (nb.onnx.load, nb.onnx.metadata):
            with pytest.raises(OnnxError, match=message):
                read(f"{tmp_path}/{path}")


def test_bytes_that_are_no_onnx(refused, data):
    rng = random.Random(0)
    for content in (b"", b"\0" * 100, b"hello", rng.randbytes(1000), b"\xff" * 50, data[:1], data[:10]):
        refused(content, "not an ONNX file")
    refused(b"\x0a\x7f" * 300)


def raised(read, path):
    """What reading raises, or None."""
    try:
        read(path)
    except Exception as error:
        return error
    return None


def test_cut_and_flipped_files(data, tmp_path, monkeypatch):
    """Reading one either works, or raises one line."""
    monkeypatch.syspath_prepend(str(TOOLS))
    from attacks.files import damaged

    path, worked = tmp_path / "bad.onnx", 0
    for seed in range(1500):
        path.write_bytes(damaged(data, random.Random(seed)))
        for read in (nb.onnx.load, nb.onnx.metadata):
            error = raised(read, path)
            worked += error is None
            assert error is None or (isinstance(error, NbnetError) and "\n" not in str(error) and len(str(error)) < 600), (seed, error)
    assert 100 < worked < 2900


# ------------------------------------------------------------------------------------------------ changed on purpose


def changed(data, change):
    proto = onnx.ModelProto.FromString(data)
    change(proto.graph, proto)
    return proto


def constant(graph, name):
    return next(tensor for tensor in graph.initializer if tensor.name == name)


def node(graph, name):
    return next(each for each in graph.node if each.name == name)


def setting(graph, name, key, value):
    found = node(graph, name)
    kept = [each for each in found.attribute if each.name != key]
    del found.attribute[:]
    found.attribute.extend([*kept, helper.make_attribute(key, value)])


def drop(values, index):
    del values[index]


def huge_input(graph, proto):
    for size, dim in zip((1 << 20, 1 << 20, 2), graph.input[0].type.tensor_type.shape.dim[1:]):
        dim.dim_value = size


def of_type(name, dtype):
    def change(graph, proto):
        tensor = constant(graph, name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), name))

    return change


def as_cycle(graph, proto):
    node(graph, "2.residual.body.0.conv2d").input[0] = "2.residual"


def huge_constant(graph, proto):
    shape = numpy_helper.from_array(np.full(3, 1 << 20), "sizes")
    graph.initializer.append(shape)
    graph.node.insert(0, helper.make_node("ConstantOfShape", ["sizes"], ["huge"], "huge"))
    node(graph, "9.dense").input[2] = "huge"


def doubling(graph, proto):
    """A constant that doubles 60 times."""
    graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 10, np.float32), "d0"))
    for i in range(60):
        graph.node.append(helper.make_node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], f"d{i + 1}", axis=0))
    node(graph, "9.dense").input[2] = "d60"


def deep(graph, proto):
    """Branches in branches, 2000 deep."""
    last = graph.output[0].name
    node(graph, "10.softmax").output[0] = "b0"
    for i in range(2000):
        graph.node.append(helper.make_node("Tanh", [f"b{i}"], [f"c{i}"], f"c{i}"))
        graph.node.append(helper.make_node("Add", [f"c{i}" if i else "b0", f"b{max(0, i - 1)}"], [f"b{i + 1}"], f"b{i + 1}"))
    graph.node.append(helper.make_node("Identity", ["b2000"], [last], "end"))


def strange_constant(**value):
    """A bias from a node Constant that holds no numbers."""

    def change(graph, proto):
        graph.node.insert(0, helper.make_node("Constant", [], ["c"], "c", **value))
        node(graph, "9.dense").input[2] = "c"

    return change


def constant_of_nothing(graph, proto):
    strange_constant(value=constant(graph, "9.dense.bias"))(graph, proto)
    graph.node[0].attribute[0].ClearField("t")
    graph.node[0].attribute[0].type = onnx.AttributeProto.SPARSE_TENSOR


WEIGHT = "0.conv2d.weight"
HOSTILE = {
    "a huge input": (huge_input, "expected positive sizes, at most 67,108,864 numbers"),
    "a huge declared weight": (lambda g, p: constant(g, WEIGHT).dims.append(1 << 40), "does not hold its"),
    "a negative size": (lambda g, p: constant(g, WEIGHT).dims.append(-1), "expected sizes of at least 0"),
    "a weight without numbers": (lambda g, p: constant(g, WEIGHT).ClearField("raw_data"), "does not hold its 72 numbers"),
    "a missing weight": (lambda g, p: drop(g.initializer, 0), "needs '0.conv2d.weight', which is nowhere in the file"),
    "a missing node": (lambda g, p: drop(g.node, 3), "which is nowhere in the file"),
    "two weights of one name": (lambda g, p: g.initializer.append(constant(g, WEIGHT)), "two tensors have the name '0.conv2d.weight'"),
    "two nodes of one name": (lambda g, p: g.node.append(g.node[2]), "is the result of two nodes"),
    "two inputs of one name": (lambda g, p: g.input.append(g.input[0]), "two inputs have the same name"),
    "a cycle": (as_cycle, "is part of a cycle"),
    "a cycle of one": (lambda g, p: node(g, "9.dense").input.__setitem__(0, "9.dense"), "cycle"),
    "another domain": (lambda g, p: setattr(node(g, "9.dense"), "domain", "com.evil"), "nbnet has no operator com.evil.Gemm"),
    "an unknown operator set": (lambda g, p: setattr(p.opset_import[0], "domain", "x.y"), "operator sets: x.y 20; expected ai.onnx 7 to"),
    "a set of the future": (lambda g, p: setattr(p.opset_import[0], "version", 999), "operator sets: ai.onnx 999; expected ai.onnx 7"),
    "no operator set": (lambda g, p: p.ClearField("opset_import"), "operator sets: none"),
    "float16": (of_type(WEIGHT, np.float16), "'0.conv2d.weight' is float16, expected float32: convert the file"),
    "float64": (of_type(WEIGHT, np.float64), "'0.conv2d.weight' is float64, expected float32"),
    "int64": (of_type("9.dense.bias", np.int64), "'9.dense.bias' is int64, expected float32"),
    "text": (lambda g, p: setattr(constant(g, WEIGHT), "data_type", TensorProto.STRING), "is of the type STRING, expected FLOAT"),
    "an unknown type": (lambda g, p: setattr(constant(g, WEIGHT), "data_type", 99), "is of the type unknown, expected FLOAT"),
    "infinite": (lambda g, p: constant(g, "9.dense.bias").CopyFrom(numpy_helper.from_array(np.float32([1, np.inf, 2]), "9.dense.bias")),
                 "contains NaN or infinity"),
    "an input of bytes": (lambda g, p: setattr(g.input[0].type.tensor_type, "elem_type", TensorProto.UINT8), "of the type UINT8"),
    "an input without axes": (lambda g, p: g.input[0].type.tensor_type.ClearField("shape"), "has 0 axes, expected a batch of examples"),
    "no input": (lambda g, p: g.ClearField("input"), "which is nowhere in the file"),
    "a sparse weight": (lambda g, p: g.sparse_initializer.add(), "a sparse tensor"),
    "a huge kernel": (lambda g, p: setting(g, "5.maxpool2d", "kernel_shape", [1 << 40] * 2), "kernel_shape is"),
    "a kernel of floats": (lambda g, p: setting(g, "5.maxpool2d", "kernel_shape", [2.5, 2.0]), "is [2.5, 2.0], expected whole"),
    "a negative stride": (lambda g, p: setting(g, "0.conv2d", "strides", [-1, 1]), "strides is [-1, 1], expected 2 whole numbers"),
    "a group that does not divide": (lambda g, p: setting(g, "0.conv2d", "group", 3), "they do not fit"),
    "an epsilon that is text": (lambda g, p: setting(g, "1.batchnorm", "epsilon", "a"), "epsilon is a, expected a finite number"),
    "a transposition of other axes": (lambda g, p: setting(g, "0.conv2d/Transpose", "perm", [1, 0, 2, 9]), "perm [1, 0, 2, 9]"),
    "a huge pad": (lambda g, p: constant(g, "4.zeropad2d.pads").CopyFrom(
        numpy_helper.from_array(np.full(8, 1 << 40), "4.zeropad2d.pads")), "expected two whole numbers for each axis, below 65536"),
    "a huge factor": (lambda g, p: constant(g, "3.upsample2d.scales").CopyFrom(
        numpy_helper.from_array(np.float32([1, 1, 60000, 60000]), "3.upsample2d.scales")), "expected at most 67,108,864 numbers"),
    "a factor without a number": (lambda g, p: constant(g, "3.upsample2d.scales").CopyFrom(
        numpy_helper.from_array(np.float32([1, 1, np.nan, 2]), "3.upsample2d.scales")), "contains NaN"),
    "a huge constant": (huge_constant, "a constant of 1,152,921,504,606,846,976 numbers, expected at most"),
    "a constant that doubles": (doubling, "expected at most 2,097,152"),
    "thousands of nodes": (lambda g, p: g.node.extend([g.node[0]] * 6000), "nodes, expected at most 5,000"),
    "deep branches": (deep, "branches"),
    "an output that depends on nothing": (lambda g, p: setattr(g.output[0], "name", WEIGHT), "does not depend on an input"),
    "a constant that is a graph": (strange_constant(value=onnx.GraphProto(name="g")), "(Constant) holds no tensor of numbers"),
    "a constant of texts": (strange_constant(value_ints=["a", "b"]), "(Constant) holds no tensor of numbers"),
    "a constant of nothing": (constant_of_nothing, "(Constant) holds no tensor of numbers"),
    "an attribute of a function": (lambda g, p: setattr(node(g, "0.conv2d").attribute[0], "ref_attr_name", "a"), "is that of a function"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name, data, refused):
    change, message = HOSTILE[name]
    refused(changed(data, change), message)


# --------------------------------------------------------------------------------------------------- data outside the file


def with_data_in(data, location, **more):
    def change(graph, proto):
        tensor = constant(graph, WEIGHT)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=str(value))

    return changed(data, change)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret.bin", "a/../../secret.bin", "C:\\secret.bin", "\\\\host\\a", "..\\secret.bin", ""]
)
def test_data_outside_the_folder(location, data, refused, tmp_path):
    (tmp_path.parent / "secret.bin").write_bytes(bytes(1000))
    refused(with_data_in(data, location), "expected a file in the folder of the ONNX file")


def test_links_out_of_the_folder(data, refused, tmp_path):
    (tmp_path.parent / "secret.bin").write_bytes(bytes(1000))
    try:
        (tmp_path / "inside.bin").symlink_to(tmp_path.parent / "secret.bin")
    except OSError:
        pytest.skip("this system makes no links")
    refused(with_data_in(data, "inside.bin"), "a link out of the folder of the ONNX file")


def test_data_beside_the_file(data, refused, tmp_path):
    weight = numpy_helper.to_array(constant(onnx.ModelProto.FromString(data).graph, WEIGHT))
    (tmp_path / "weights.bin").write_bytes(bytes(16) + weight.tobytes())
    good = tmp_path / "good.onnx"
    good.write_bytes(with_data_in(data, "weights.bin", offset=16, length=weight.nbytes).SerializeToString())
    x = np.random.default_rng(0).random((2, 4, 4, 2)).astype("float32")
    wanted = nb.onnx.load(tmp_path / "whole.onnx", backend="numpy").predict(x)
    np.testing.assert_array_equal(nb.onnx.load(good, backend="numpy").predict(x), wanted)
    refused(with_data_in(data, "weights.bin", offset=17), "declares 288 bytes, got bytes 17 to 305 of 304")
    refused(with_data_in(data, "weights.bin", offset=-1), "declares 288 bytes")
    refused(with_data_in(data, "weights.bin", length=1 << 50), "declares 288 bytes")
    refused(with_data_in(data, "weights.bin", offset="a"), "cannot be read")
    refused(with_data_in(data, "missing.bin"), "which is missing: keep it beside the ONNX file")
    refused(with_data_in(data, "."), "which is missing")


def test_nothing_is_executed_or_written(data, tmp_path, refused):
    """A refused file leaves no trace in its folder."""
    before = sorted(tmp_path.iterdir())
    refused(changed(data, as_cycle))
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "bad.onnx"])
