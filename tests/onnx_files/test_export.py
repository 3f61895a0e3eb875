"""nb.onnx.export: onnxruntime computes what nbnet does."""

import json
import subprocess
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from layers.test_layers import LAYERS  # noqa: E402
from test_siege import TOOLS  # noqa: E402

import nbnet as nb  # noqa: E402
from nbnet.errors import ArgumentError, BuildError, DataError, ExtraError, NbnetError  # noqa: E402

from .running import assert_agree, nchw, outputs, run, varied  # noqa: E402

LAYOUTS = ("NHWC", "NCHW")
MODELS = {
    **{name: (make, (32, 32, 3) if name == "airbench" else (16, 16, 3)) for name, make in nb.models.MODELS.items()},
    "keyword": (nb.models.keyword, (20, 3)),
    "siamese": (nb.models.siamese, ((8, 8, 1), (8, 8, 1))),
    "autoencoder": (nb.models.autoencoder, (8, 12, 1)),
    "unet_small": (nb.models.unet_small, (8, 12, 1)),
}


def check(model, xs, path, what="", **options):
    """Export, check the file and run it, in both layouts."""
    wanted = outputs(model, *xs)
    for layout in LAYOUTS:
        nb.onnx.export(model, path, input_layout=layout, **options)
        onnx.checker.check_model(onnx.load(path), full_check=True)
        move = nchw if layout == "NCHW" else np.ascontiguousarray
        assert_agree(run(path, *map(move, xs)), list(map(move, wanted)), f"{what} {layout}")


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name, tmp_path, rng):
    make, shape = LAYERS[name]
    model = make()
    model.build(shape, backend="numpy", seed=3)
    check(varied(model, rng), [2 * rng.normal(size=(4, *shape)).astype("float32")], tmp_path / "layer.onnx")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fold", [False, True])
def test_every_model(name, fold, tmp_path, rng):
    make, shape = MODELS[name]
    model = make()
    model.build(shape, backend="serial", seed=1)
    shapes = shape if isinstance(shape[0], tuple) else (shape,)
    xs = [rng.random((3, *each)).astype("float32") for each in shapes]
    check(varied(model, rng), xs, tmp_path / "model.onnx", fold_batch_norm=fold)
    assert_agree(outputs(nb.onnx.load(tmp_path / "model.onnx", backend="serial"), *xs), outputs(model, *xs))


def test_200_random_networks(tmp_path, monkeypatch):
    """All agree, and each makes a model again."""
    monkeypatch.syspath_prepend(str(TOOLS))
    from attacks import networks

    for seed in range(200):
        rng = np.random.default_rng(seed)
        code, shape = networks.network(rng)
        model = networks.built(code, shape, backend="numpy", dtype="float32")
        x = rng.normal(size=(4, *shape)).astype("float32")
        check(model, [x], tmp_path / "network.onnx", f"{seed} {code}", fold_batch_norm=bool(seed % 2))
        again = nb.onnx.load(tmp_path / "network.onnx", backend="numpy")
        assert again.input_shape == model.input_shape
        assert_agree(outputs(again, x), outputs(model, x), f"{seed} {code}")


def small(**options):
    layers = [nb.Conv2D(4, 3, use_bias=False).named("stem"), nb.BatchNorm(), nb.ReLU(), nb.Residual([nb.Conv2D(4, 1)])]
    model = nb.Sequential([*layers, nb.Dropout(0.5), nb.Flatten(), nb.Dense(3)])
    model.build((4, 5, 2), backend="numpy", **options)
    return model


def test_names_opset_batch_and_metadata(tmp_path):
    model = small()
    nb.onnx.export(model, tmp_path / "a.onnx", class_names=["a", "b", "é"])
    proto = onnx.load(tmp_path / "a.onnx")
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 20)]
    names = [node.name for node in proto.graph.node]
    assert names == ["stem/Transpose", "stem", "1.batchnorm", "2.relu", "3.residual.body.0.conv2d", "3.residual", "5.flatten", "6.dense"]
    weights = {*model.params, "1.batchnorm.moving_mean", "1.batchnorm.moving_var"}
    assert {tensor.name for tensor in proto.graph.initializer} == weights
    for info, sizes in ((proto.graph.input[0], [4, 5, 2]), (proto.graph.output[0], [3])):
        batch, *rest = info.type.tensor_type.shape.dim
        assert batch.dim_param == "N"
        assert [each.dim_value for each in rest] == sizes
    assert nb.onnx.metadata(tmp_path / "a.onnx") == {"input_layout": "NHWC", "class_names": ["a", "b", "é"]}
    loaded = nb.onnx.load(tmp_path / "a.onnx", backend="numpy")
    assert loaded[0].label == "stem"
    assert len(run(tmp_path / "a.onnx", np.zeros((7, 4, 5, 2), np.float32))[0]) == 7


def test_no_transposition_is_left_between_layers(tmp_path):
    """Flatten and Dense read an image with the channels first: the rows of the weight are in that order."""
    nb.onnx.export(small(), tmp_path / "a.onnx", input_layout="NCHW")
    assert "Transpose" not in {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}


def test_batch_norm_is_kept_or_folded(tmp_path):
    for fold, ops in ((False, 1), (True, 0)):
        nb.onnx.export(small(), tmp_path / "a.onnx", fold_batch_norm=fold)
        found = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
        assert found.count("BatchNormalization") == ops


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("mean", "std"), [(0.4, 0.2), ([0.1, 0.2], [0.3, 0.4]), (None, 2.0), (0.5, None)])
def test_normalisation_is_in_the_graph(layout, mean, std, tmp_path, rng):
    model, path = small(), tmp_path / "a.onnx"
    nb.onnx.export(model, path, input_layout=layout, mean=mean, std=std)
    x = rng.random((3, 4, 5, 2)).astype("float32")
    wanted = outputs(model, ((x - (0 if mean is None else mean)) / (1 if std is None else std)).astype("float32"))
    assert_agree(run(path, nchw(x) if layout == "NCHW" else x), wanted)
    assert_agree(outputs(nb.onnx.load(path, backend="numpy"), x), wanted)
    found = nb.onnx.metadata(path)
    assert (found["mean"], found["std"]) == (0.0 if mean is None else mean, 1.0 if std is None else std)


def test_float64_becomes_float32(tmp_path, rng):
    model = small(dtype="float64")
    x = rng.random((3, 4, 5, 2))
    nb.onnx.export(model, tmp_path / "a.onnx")
    assert_agree(run(tmp_path / "a.onnx", x.astype("float32")), [y.astype("float32") for y in outputs(model, x)])


def test_a_shared_layer_has_its_weights_once(tmp_path):
    shared = nb.Dense(6)
    model = nb.Sequential([shared, nb.Tanh(), shared])
    model.build((6,), backend="numpy")
    nb.onnx.export(model, tmp_path / "a.onnx")
    assert [tensor.name for tensor in onnx.load(tmp_path / "a.onnx").graph.initializer] == ["0.dense.weight", "0.dense.bias"]


def test_several_inputs_and_outputs(tmp_path, rng):
    model = nb.Sequential([nb.Parallel([[nb.Conv2D(2, 3)], [nb.Dense(2)]]), nb.Parallel([[nb.Tanh()], [nb.ReLU()]])])
    model.build(((4, 4, 1), (5,)), backend="numpy")
    xs = [rng.random((3, 4, 4, 1)).astype("float32"), rng.random((3, 5)).astype("float32")]
    check(model, xs, tmp_path / "a.onnx")
    proto = onnx.load(tmp_path / "a.onnx").graph
    assert [[each.name for each in part] for part in (proto.input, proto.output)] == [["input_0", "input_1"], ["output_0", "output_1"]]
    assert_agree(outputs(nb.onnx.load(tmp_path / "a.onnx", backend="numpy"), *xs), outputs(model, *xs))


def test_layers_may_have_the_names_of_inputs_and_outputs(tmp_path, rng):
    model = nb.Sequential([nb.Dense(3).named("output"), nb.Dense(2).named("input")])
    model.build((4,), backend="numpy")
    check(model, [rng.random((3, 4)).astype("float32")], tmp_path / "a.onnx")


# ----------------------------------------------------------------------------------------------------------- errors


class Own(nb.Layer):
    def forward(self, x, train=False):
        return x, None


class Narrow(nb.Conv2D):
    """Only its constructor differs."""

    def __init__(self):
        super().__init__(2, 1)


def built(*layers):
    model = nb.Sequential(layers)
    model.build((4, 4, 1), backend="numpy")
    return model


def test_bad_arguments_leave_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"before")
    infinite = built(nb.Conv2D(1, 1))
    infinite.params["0.conv2d.weight"].value[:] = np.inf
    patched = built(nb.Conv2D(1, 1))
    patched[0].forward = lambda x, train=False: (x, None)
    cases = [
        (lambda: nb.onnx.export("model", path), ArgumentError, "export got str, expected a built model"),
        (lambda: nb.onnx.export(nb.Sequential([nb.Dense(3)]), path), BuildError, "export expects a built model: call model.build"),
        (
            lambda: nb.onnx.export(small(), path, input_layout="NHCW"),
            ArgumentError,
            "unknown input_layout 'NHCW': choose one of NHWC, NCHW",
        ),
        (lambda: nb.onnx.export(built(nb.Tanh(), Own()), path), ArgumentError, "layer 1.own is a Own with a forward of its own"),
        (lambda: nb.onnx.export(patched, path), ArgumentError, "layer 0.conv2d is a Conv2D with a forward of its own"),
        (lambda: nb.onnx.export(infinite, path), ArgumentError, "0.conv2d.weight has NaN or infinity in float32"),
        (lambda: nb.onnx.export(small(), path, class_names=["a"]), ArgumentError, "class_names=['a']: expected a list of 3 texts"),
        (lambda: nb.onnx.export(small(), path, class_names="abc"), ArgumentError, "class_names='abc': expected a list of 3 texts"),
        (lambda: nb.onnx.export(small(), path, class_names=3), ArgumentError, "class_names=3: expected a list of 3 texts"),
        (lambda: nb.onnx.export(small(), path, std=0.0), ArgumentError, "std=0.0: expected a number above 0, or 2 of them"),
        (lambda: nb.onnx.export(small(), path, mean=[1, 2, 3]), ArgumentError, "mean=[1, 2, 3]: expected a number, or 2 of them"),
        (lambda: nb.onnx.export(small(), path, mean="a"), ArgumentError, "mean='a': expected a number"),
        (lambda: nb.onnx.export(small(), tmp_path / "no" / "a.onnx"), DataError, "cannot write"),
    ]
    for call, error, start in cases:
        with pytest.raises(error) as raised:
            call()
        assert str(raised.value).startswith(start)
        assert "\n" not in str(raised.value)
        assert path.read_bytes() == b"before"
        assert [each.name for each in tmp_path.iterdir()] == ["a.onnx"]


def test_a_subclass_with_the_forward_of_nbnet(tmp_path, rng):
    check(built(Narrow()), [rng.random((2, 4, 4, 1)).astype("float32")], tmp_path / "a.onnx")


def test_without_the_package():
    code = """
import sys
sys.modules["onnx"] = None
import nbnet as nb
model = nb.Sequential([nb.Dense(1)])
model.build((1,), backend="numpy")
for call in (lambda: nb.onnx.export(model, "a.onnx"), lambda: nb.onnx.load("a.onnx"), lambda: nb.onnx.metadata("a.onnx")):
    try:
        call()
    except nb.errors.ExtraError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOOLS.parent)
    assert done.stdout.count("pip install 'nbnet[onnx]'") == done.stdout.count("\n") == 3
    assert issubclass(ExtraError, (NbnetError, ImportError))


def test_metadata_is_checked(tmp_path):
    nb.onnx.export(small(), tmp_path / "a.onnx", class_names=["a", "b", "c"])
    for value in ("[", json.dumps(["a", 1]), json.dumps("abc"), json.dumps(["a\x1b[2J", "b", "c"]), "[" * 100_000):
        proto = onnx.load(tmp_path / "a.onnx")
        onnx.helper.set_model_props(proto, {"class_names": value})
        onnx.save(proto, tmp_path / "b.onnx")
        with pytest.raises(nb.errors.OnnxError, match="metadata 'class_names'"):
            nb.onnx.metadata(tmp_path / "b.onnx")
