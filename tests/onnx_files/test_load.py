"""nb.onnx.load: files of nbnet, of PyTorch (tests/golden/onnx) and made by hand, beside onnxruntime."""

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from layers.test_layers import LAYERS  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import nbnet as nb  # noqa: E402
from nbnet.errors import ArgumentError, OnnxError  # noqa: E402

from .running import assert_agree, nchw, nhwc, outputs, run, varied  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden" / "onnx"


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.onnx")), ids=lambda file: file.stem)
def test_networks_of_pytorch(file):
    arrays = np.load(GOLDEN / "outputs.npz")
    name = file.stem if f"{file.stem}|x" in arrays else file.stem.rpartition("-")[0]
    model = nb.onnx.load(file, backend="serial")
    wanted = [nhwc(arrays[key]) for key in arrays if key.startswith(f"{name}|y")]
    assert_agree(outputs(model, nhwc(arrays[f"{name}|x"])), wanted)


def kinds(model):
    return [type(layer).__name__ for layer in model.walk() if not isinstance(layer, nb.Sequential)]


def test_patterns_are_one_layer():
    """What exporters write as several nodes; nothing is left of the layouts, which differ."""
    convnext = ["Conv2D", "Residual", "DepthwiseConv2D", "LayerNorm", "Conv2D", "GELU", "Conv2D", "BatchNorm", "GroupNorm"]
    for kind in ("", "-opset11", "-fixed", "-dynamo"):
        assert kinds(nb.onnx.load(GOLDEN / f"convnext{kind}.onnx")) == [*convnext, "GlobalAvgPool2D", "Dense", "LogSoftmax"]
        assert kinds(nb.onnx.load(GOLDEN / f"lenet{kind}.onnx"))[5:] == ["AvgPool2D", "Flatten", "Dense", "Sigmoid", "Dense", "Softmax"]
    assert nb.onnx.load(GOLDEN / "convnext-tanh.onnx").layers[1].body[3].approximate == "tanh"
    found = kinds(nb.onnx.load(GOLDEN / "mobilenetv3.onnx"))
    gate = ["Multiply", "GlobalAvgPool2D", "Conv2D", "ReLU", "Conv2D", "Hardsigmoid"]
    assert found == ["Conv2D", "Hardswish", "DepthwiseConv2D", "Hardswish", *gate, "SiLU", "Mish", "GlobalAvgPool2D", "Dense"]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_what_nbnet_writes(name, layout, tmp_path, rng):
    make, shape = LAYERS[name]
    model = make()
    model.build(shape, backend="numpy", seed=3)
    x = 2 * rng.normal(size=(4, *shape)).astype("float32")
    nb.onnx.export(varied(model, rng), tmp_path / "a.onnx", input_layout=layout)
    loaded = nb.onnx.load(tmp_path / "a.onnx", backend="numpy")
    assert (loaded.input_shape, loaded.output_shape, loaded.dtype) == (shape, model.output_shape, np.float32)
    assert_agree(outputs(loaded, x), outputs(model, x))


def test_a_loaded_model_trains_and_is_saved(tmp_path, rng):
    model = nb.onnx.load(GOLDEN / "lenet.onnx", backend="serial")
    x, y = rng.random((8, 28, 28, 1)).astype("float32"), rng.integers(0, 10, 8)
    trainer = nb.Trainer(model[:-1], optimizer=nb.Adam(1e-2))
    losses = trainer.fit((x, y), epochs=8, batch_size=8, progress=False)["loss"]
    assert losses[-1] < losses[0]
    model.save_weights(tmp_path / "a.safetensors")
    model.load_weights(tmp_path / "a.safetensors")


# ---------------------------------------------------------------------------------------------------- files by hand


def save(path, nodes, shape, constants=(), opset=20, batch="N", outputs=("y",)):
    """A file of nodes (op, inputs, attributes), whose results are t0, t1, ... and y. Constants: w0, w1, ..."""
    made = []
    for i, (op, inputs, attributes) in enumerate(nodes):
        result = "y" if i == len(nodes) - 1 else f"t{i}"
        made.append(helper.make_node(op, inputs.split() if isinstance(inputs, str) else inputs, [result], f"node{i}", **attributes))
    tensors = [numpy_helper.from_array(np.asarray(array), f"w{i}") for i, array in enumerate(constants)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(made, "g", inputs, results, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)


IMAGE = (4, 6, 5)
FLOATS = np.random.Generator(np.random.Philox(7)).normal(size=3000).astype("float32")


def floats(*shape):
    return FLOATS[: int(np.prod(shape))].reshape(shape)


def ints(*values):
    return np.array(values, np.int64)


CASES = {
    "conv same lower": ([("Conv", "x w0", {"auto_pad": "SAME_LOWER", "strides": [2, 2]})], IMAGE, [floats(3, 4, 2, 3)]),
    "conv same upper": ([("Conv", "x w0", {"auto_pad": "SAME_UPPER", "strides": [2, 3]})], IMAGE, [floats(3, 4, 2, 3)]),
    "conv of sequences": ([("Conv", "x w0 w1", {"pads": [2, 1]})], (4, 9), [floats(3, 4, 3), floats(3)]),
    "conv, then bias": ([("Conv", "x w0", {}), ("Add", "t0 w1", {})], IMAGE, [floats(3, 4, 2, 2), floats(1, 3, 1, 1)]),
    "transposed to a shape": (
        [("ConvTranspose", "x w0", {"strides": [2, 2], "output_shape": [12, 10]})],
        IMAGE,
        [floats(4, 2, 3, 3)],
    ),
    "transposed same": ([("ConvTranspose", "x w0", {"strides": [2, 2], "auto_pad": "SAME_UPPER"})], IMAGE, [floats(4, 2, 3, 3)]),
    "transposed groups": ([("ConvTranspose", "x w0", {"group": 2, "dilations": [2, 1]})], IMAGE, [floats(4, 3, 2, 3)]),
    "gemm": ([("Gemm", "x w0 w1", {"alpha": 0.5, "beta": 2.0, "transB": 1})], (7,), [floats(3, 7), floats(3)]),
    "gemm with one number": ([("Gemm", "x w0 w1", {})], (7,), [floats(7, 3), floats(1)]),
    "matmul, then bias": ([("MatMul", "x w0", {}), ("Add", "w1 t0", {})], (7,), [floats(7, 3), floats(3)]),
    "matmul of a flat image": (
        [("Flatten", "x", {}), ("Relu", "t0", {}), ("MatMul", "t1 w0", {})],
        IMAGE,
        [floats(120, 3)],
    ),
    "arithmetic": (
        [("Sub", "w0 x", {}), ("Div", "t0 w1", {}), ("Mul", "t1 w2", {}), ("Neg", "t2", {}), ("Conv", "t3 w3", {})],
        IMAGE,
        [floats(1), floats(4, 1, 1), floats(), floats(1, 4, 1, 1)],
    ),
    "arithmetic with features": ([("Flatten", "x", {}), ("Mul", "t0 w0", {}), ("BatchNormalization", "t1 w0 w0 w0 w1", {})], IMAGE,
                                 [floats(120), abs(floats(120))]),
    "arithmetic along the rows": ([("Mul", "x w0", {}), ("Conv", "t0 w1", {})], IMAGE, [floats(5), floats(2, 4, 1, 1)]),
    "powers": ([("Pow", "x w0", {}), ("Add", "x t0", {})], IMAGE, [np.float32(2)]),
    "a cube": ([("Mul", "x x", {}), ("Mul", "t0 x", {})], IMAGE, []),
    "clip at 6": ([("Clip", "x w0 w1", {})], IMAGE, [np.float32(0), np.float32(6)]),
    "clip at 0": ([("Clip", "x w0", {})], IMAGE, [np.float32(0)]),
    "clip by attributes": ([("Clip", "x", {"min": -0.5, "max": 0.25})], IMAGE, [], 7),
    "hardsigmoid by hand": (
        [("Add", "x w0", {}), ("Clip", "t0 w1 w2", {}), ("Div", "t1 w2", {})],
        IMAGE,
        [np.float32(n) for n in (3, 0, 6)],
    ),
    "hardswish by hand": (
        [("Add", "x w0", {}), ("Clip", "t0 w1 w2", {}), ("Mul", "x t1", {}), ("Div", "t2 w2", {})],
        IMAGE,
        [np.float32(n) for n in (3, 0, 6)],
    ),
    "pad of images": ([("Pad", "x w0", {"mode": "edge"})], IMAGE, [ints(0, 0, 1, 0, 0, 0, 2, 1)]),
    "pad and cut": ([("Pad", "x w0", {})], IMAGE, [ints(0, 0, 1, -1, 0, 0, -2, 1)]),
    "pad by axes": ([("Pad", ["x", "w0", "", "w1"], {"mode": "reflect"})], IMAGE, [ints(1, 2), ints(-1)]),
    "pad of sequences": ([("Pad", "x w0", {})], (4, 9), [ints(0, 0, 2, 0, 0, 1)]),
    "pad by attributes": ([("Pad", "x", {"pads": [0, 0, 1, 1, 0, 0, 1, 1]})], IMAGE, [], 10),
    "slice": ([("Slice", "x w0 w1 w2", {})], IMAGE, [ints(1, -4), ints(1 << 60, -1), ints(2, -1)]),
    "slice of sequences": ([("Slice", "x w0 w1 w2", {})], (4, 9), [ints(1), ints(7), ints(2)]),
    "resize by sizes": (
        [("Resize", ["x", "", "", "w0"], {"mode": "linear"})],
        IMAGE,
        [ints(2, 4, 12, 15)],
    ),
    "resize by round": ([("Resize", ["x", "", "w0"], {"mode": "nearest"})], IMAGE, [np.float32([1, 1, 3, 2])]),
    "upsample": ([("Upsample", "x w0", {"mode": "nearest"})], IMAGE, [np.float32([1, 1, 2, 2])], 9),
    "average with padding": ([("AveragePool", "x", {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "count_include_pad": 1})], IMAGE, []),
    "max in ceil mode": ([("MaxPool", "x", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1})], IMAGE, []),
    "mean of images": ([("ReduceMean", "x w0", {"keepdims": 0})], IMAGE, [ints(-1, -2)]),
    "maximum of images": ([("ReduceMax", "x", {"axes": [2, 3]})], IMAGE, [], 13),
    "channels last": (
        [("Transpose", "x", {"perm": [0, 3, 1, 2]}), ("Conv", "t0 w0", {}), ("Transpose", "t1", {"perm": [0, 2, 3, 1]})]
        + [("ReduceMean", "t2 w1", {"keepdims": 0})],
        (6, 5, 4),
        [floats(3, 4, 2, 2), ints(1, 2)],
    ),
    "shuffled channels": (
        [("Reshape", "x w0", {}), ("Transpose", "t0", {"perm": [0, 2, 1, 3, 4]}), ("Reshape", "t1 w1", {}), ("Conv", "t2 w2", {})],
        IMAGE,
        [ints(0, 2, 2, 6, 5), ints(0, 4, 6, 5), floats(3, 4, 2, 2)],
    ),
    "flattened by its shape": (
        [("Shape", "x", {}), ("Gather", "t0 w0", {}), ("Concat", "t1 w1", {"axis": 0}), ("Reshape", "x t2", {}), ("Gemm", "t3 w2", {})],
        IMAGE,
        [ints(0), ints(-1), floats(120, 2)],
    ),
    "squeezed": ([("GlobalMaxPool", "x", {}), ("Squeeze", "t0 w0", {}), ("Unsqueeze", "t1 w1", {}), ("Conv", "t2 w2", {})], IMAGE,
                 [ints(2, 3), ints(2), floats(2, 4, 1)]),
    "dense on pixels": ([("Transpose", "x", {"perm": [0, 2, 3, 1]}), ("MatMul", "t0 w0", {}), ("Add", "t1 w1", {})], IMAGE,
                        [floats(4, 3), floats(3)]),
    "softmax of an old set": ([("Softmax", "x", {})], (7,), [], 11),
    "instance norm": ([("InstanceNormalization", "x w0 w1", {"epsilon": 0.01})], IMAGE, [floats(4), floats(4)]),
    "group norm of PyTorch": (
        [("Reshape", "x w0", {}), ("InstanceNormalization", "t0 w1 w2", {}), ("Reshape", "t1 w3", {}), ("Mul", "t2 w4", {})],
        IMAGE,
        [ints(0, 2, -1), floats(2) * 0 + 1, floats(2) * 0, ints(0, 4, 6, 5), floats(4, 1, 1)],
    ),
    "sum of three": ([("Tanh", "x", {}), ("Relu", "x", {}), ("Sum", "x t0 t1", {})], IMAGE, []),
    "a gate": ([("GlobalAveragePool", "x", {}), ("Sigmoid", "t0", {}), ("Mul", "t1 x", {})], IMAGE, []),
    "rows side by side": ([("Flatten", "x", {}), ("Tanh", "t0", {}), ("Concat", "t0 t1", {"axis": -1})], IMAGE, []),
    "log of softmax": ([("Softmax", "x", {"axis": 1}), ("Log", "t0", {})], (7,), []),
    "a swish": ([("Sigmoid", "x", {}), ("Mul", "t0 x", {})], IMAGE, []),
    "prelu": ([("PRelu", "x w0", {})], IMAGE, [floats(4, 1, 1)]),
    "a gate, expanded": (
        [("GlobalAveragePool", "x", {}), ("Shape", "x", {}), ("Expand", "t0 t1", {}), ("Mul", "x t2", {})],
        IMAGE,
        [],
    ),
    "expanded to its shape": ([("Shape", "x", {}), ("Expand", "x t0", {})], IMAGE, []),
    "clipped at infinity": ([("Clip", "x w0 w1", {})], IMAGE, [np.float32(0), np.float32(np.inf)]),
    "resize, not larger": (
        [("Resize", ["x", "", "", "w0"], {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger", "nearest_mode": "floor",
          "coordinate_transformation_mode": "asymmetric"})],
        IMAGE, [ints(12, 15)], 20,
    ),
    "resize, not smaller": (
        [("Resize", ["x", "", "", "w0"], {"axes": [2, 3], "keep_aspect_ratio_policy": "not_smaller", "nearest_mode": "floor",
          "coordinate_transformation_mode": "asymmetric"})],
        IMAGE, [ints(12, 15)], 20,
    ),
    "nothing": ([("Identity", "x", {}), ("Dropout", "t0", {})], IMAGE, []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators(name, tmp_path):
    nodes, shape, constants, *opset = CASES[name]
    save(tmp_path / "a.onnx", nodes, shape, constants, *opset)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    model = nb.onnx.load(tmp_path / "a.onnx", backend="numpy")
    last = name == "channels last"
    (wanted,) = run(tmp_path / "a.onnx", x)
    (found,) = outputs(model, x if last else nhwc(x))
    same_order = last or name == "dense on pixels" or wanted.ndim == 2
    assert_agree([found], [wanted if same_order else nhwc(wanted)])


def test_shapes_that_the_file_leaves_open(tmp_path):
    save(tmp_path / "a.onnx", [("Conv", "x w0", {}), ("GlobalAveragePool", "t0", {})], (4, "h", "w"), [floats(3, 4, 2, 2)])
    with pytest.raises(ArgumentError, match=r"shape \(N, 4, \?, \?\), of open sizes: write load\(path, input_shape=\(height, width"):
        nb.onnx.load(tmp_path / "a.onnx")
    model = nb.onnx.load(tmp_path / "a.onnx", input_shape=(6, 5, 4), backend="numpy")
    x = floats(2, *IMAGE)
    assert_agree(outputs(model, nhwc(x)), [nhwc(run(tmp_path / "a.onnx", x)[0])])
    for shape, message in (((6, 5, 3), "does not fit the input 'x'"), (((6, 5, 4),) * 2, "of 2 inputs, the file has 1"), ((4,), "fit")):
        with pytest.raises(ArgumentError, match=message):
            nb.onnx.load(tmp_path / "a.onnx", input_shape=shape)


def test_a_fixed_batch_size_is_no_limit(tmp_path):
    save(tmp_path / "a.onnx", [("Reshape", "x w0", {}), ("Gemm", "t0 w1", {})], IMAGE, [ints(1, 120), floats(120, 2)], batch=1)
    model = nb.onnx.load(tmp_path / "a.onnx", backend="numpy")
    x = floats(3, *IMAGE)
    assert_agree(outputs(model, nhwc(x)), [np.concatenate([run(tmp_path / "a.onnx", row[None])[0] for row in x])])


def test_a_squeeze_that_takes_the_batch_is_refused(tmp_path):
    """All axes of size 1: with a batch fixed at 1, the operators that follow count from another axis."""
    save(tmp_path / "a.onnx", [("GlobalMaxPool", "x", {}), ("Squeeze", "t0", {})], IMAGE, batch=1)
    with pytest.raises(OnnxError, match="also that of the batch, which the file fixes at 1: expected axes"):
        nb.onnx.load(tmp_path / "a.onnx")
    save(tmp_path / "a.onnx", [("GlobalMaxPool", "x", {}), ("Squeeze", "t0", {})], IMAGE)
    assert nb.onnx.load(tmp_path / "a.onnx", backend="numpy").output_shape == (4,)


def test_an_input_that_no_node_reads_is_left_out(tmp_path):
    save(tmp_path / "a.onnx", [("Relu", "x", {})], IMAGE)
    proto = onnx.load(tmp_path / "a.onnx")
    proto.graph.input.insert(0, helper.make_tensor_value_info("labels", TensorProto.INT64, ["N"]))
    onnx.save(proto, tmp_path / "a.onnx")
    assert nb.onnx.load(tmp_path / "a.onnx", backend="numpy").input_shape == (6, 5, 4)


def test_two_outputs(tmp_path):
    save(tmp_path / "a.onnx", [("Relu", "x", {}), ("GlobalMaxPool", "t0", {}), ("Tanh", "t0", {})], IMAGE, outputs=("t1", "y"))
    x = floats(2, *IMAGE)
    model = nb.onnx.load(tmp_path / "a.onnx", backend="numpy")
    assert_agree(outputs(model, nhwc(x)), [nhwc(y) for y in run(tmp_path / "a.onnx", x)])


ONE_LINE = {
    "an operator": ([("Tanh", "x", {}), ("LRN", "t0", {"size": 3})], IMAGE, [], "node 'node1': nbnet has no operator LRN"),
    "of two arrays": ([("Tanh", "x", {}), ("Max", "t0 x", {})], IMAGE, [], "node 'node1': nbnet has no operator Max of two arrays"),
    "part of a pattern": ([("Erf", "x", {})], IMAGE, [], "nbnet has no operator Erf"),
    "branches that cross": (
        [("Relu", "x", {}), ("Tanh", "t0", {}), ("Add", "t0 t1", {}), ("Sigmoid", "t0", {}), ("Concat", "t2 t3", {"axis": 1})]
        + [("Sigmoid", "t1", {}), ("Concat", "t4 t5", {"axis": 1})],
        IMAGE,
        [],
        "goes into branches that are joined in different places: expected branches that nest, as in ResNet",
    ),
    "the channels": ([("MaxPool", "x", {"kernel_shape": [2, 2, 2]})], (2, *IMAGE), [], "(MaxPool): its input has 5 axes, expected 3 or 4"),
    "dilation": ([("MaxPool", "x", {"kernel_shape": [2, 2], "dilations": [2, 2]})], IMAGE, [], "pooling with dilation"),
    "a sharp hardsigmoid": ([("HardSigmoid", "x", {})], IMAGE, [], "alpha is 0.2: nbnet's Hardsigmoid has 0.166667"),
    "softmax of pixels": ([("Softmax", "x", {"axis": 1})], IMAGE, [], "over axis 1 of an array of shape (4, 6, 5), expected flat features"),
    "resize by parts": ([("Resize", ["x", "", "w0"], {})], IMAGE, [np.float32([1, 1, 1.5, 2])], "nbnet has 'nearest' and half-pixel"),
    "a batch in pieces": ([("Reshape", "x w0", {})], IMAGE, [ints(-1, 60)], "from (N, 4, 6, 5) to (-1, 60): expected each example"),
    "some channels": ([("Slice", "x w0 w1 w2", {})], IMAGE, [ints(0), ints(2), ints(1)], "it takes some channels"),
    "a constant for all": ([("Add", "x w0", {})], IMAGE, [floats(6, 5)], "expected one number, or one for each channel"),
    "division": ([("Div", "w0 x", {})], IMAGE, [floats(1)], "it divides by the data"),
    "a sum of two shapes": ([("GlobalMaxPool", "x", {}), ("Add", "x t0", {})], IMAGE, [], "adds arrays of shapes (4, 6, 5), (4, 1, 1)"),
    "a bias for each example": ([("Gemm", "x w0 w1", {})], (7,), [floats(7, 2), floats(2, 1)], "a bias of shape (2, 1), expected (2,)"),
    "expanded for a sum": (
        [("GlobalMaxPool", "x", {}), ("Shape", "x", {}), ("Expand", "t0 t1", {}), ("Add", "x t2", {})],
        IMAGE, [], "nbnet has no operator Expand",
    ),
    "two expanded": (
        [("GlobalMaxPool", "x", {}), ("Shape", "x", {}), ("Expand", "t0 t1", {}), ("GlobalAveragePool", "x", {}), ("Expand", "t3 t1", {}),
         ("Mul", "t2 t4", {})],
        IMAGE, [], "nbnet has no operator Expand",
    ),
    "expanded along one axis": ([("GlobalMaxPool", "x", {}), ("Expand", "t0 w0", {})], (1, 6, 5), [ints(1, 4, 1, 1)], "expected a gate"),
    "training": ([("BatchNormalization", "x w0 w0 w0 w0", {"training_mode": 1})], IMAGE, [floats(4)], "training_mode is set"),
    "weights that do not fit": ([("Conv", "x w0", {})], IMAGE, [floats(3, 5, 2, 2)], "weights of shape (3, 5, 2, 2) and group 1 for 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_LINE)
def test_what_nbnet_does_not_have_is_named_in_one_line(name, tmp_path):
    nodes, shape, constants, message = ONE_LINE[name]
    save(tmp_path / "a.onnx", nodes, shape, constants)
    with pytest.raises(OnnxError) as raised:
        nb.onnx.load(tmp_path / "a.onnx")
    text = str(raised.value)
    assert text.startswith(f"{tmp_path / 'a.onnx'}: ")
    assert message in text
    assert "\n" not in text


def test_nchw_of_the_helpers(rng):
    x = rng.random((2, 3, 4, 5))
    np.testing.assert_array_equal(nhwc(nchw(x)), x)


@pytest.mark.parametrize("decay", [0.99, 0.5])
def test_the_decay_of_batch_norm_is_kept(tmp_path, decay):
    model = nb.Sequential([nb.Conv2D(2, 3), nb.BatchNorm(decay)])
    model.build((4, 4, 1))
    nb.onnx.export(model, tmp_path / "model.onnx")
    assert nb.onnx.load(tmp_path / "model.onnx").layers[1].decay == decay
