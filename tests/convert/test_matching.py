"""State dicts of plain arrays, without any framework: what is paired, what is refused, and that nothing changes then."""

import sys

import numpy as np
import pytest

import nbnet as nb
from convert.twins import GOLDEN, built, everything, of_torch
from nbnet import storage
from nbnet.errors import ArgumentError, BuildError, CheckpointError, DTypeError, ExtraError, NonFiniteError, ShapeError

SORTED = storage.read(GOLDEN / "torch.safetensors")[0]  # by name
KINDS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
STATE = {name: SORTED[name] for name in sorted(SORTED, key=lambda name: (name[:10], KINDS.index(name.split(".")[-1])))}


def changed(**arrays):
    """The state dict with other arrays, by names with _ for the dots; None leaves one out."""
    new = {name.replace("_", ".", 2): array for name, array in arrays.items()}
    assert new.keys() <= STATE.keys() | {"head.5.bias"}
    return {name: array for name, array in (STATE | new).items() if array is not None}


def spoiled(name, value):
    array = STATE[name].copy()
    array.reshape(-1)[-1] = value
    return STATE | {name: array}


BAD = [
    (
        changed(head_4_bias=None),
        ArgumentError,
        r"^'head\.4' \(weight \(3, 5\)\) does not fit layer 11\.dense \(Dense\), which expects Linear with",
    ),
    (
        changed(head_4_bias=None, head_4_weight=None),
        ArgumentError,
        r"got 7 layers .*; no partner for '11\.dense' of the model: is it another",
    ),
    (changed(head_5_bias=np.zeros(3)), ArgumentError, r"no partner for 'head\.5' of the state dict"),
    (changed(features_1_running_var=None), ArgumentError, r"'features\.1' \(weight \(4,\).* which expects BatchNorm1d or"),
    (
        changed(features_0_weight=np.zeros((4, 1, 5, 3))),
        ShapeError,
        r"weight \(4, 1, 5, 3\)\) does not fit layer 0\.conv2d .* weight \(4, 1, 3, 3\): ",
    ),
    (changed(features_0_weight=np.zeros((3, 3, 1, 4))), ShapeError, "does not fit layer 0.conv2d"),
    (changed(head_1_weight=np.zeros((72, 5))), ShapeError, "does not fit layer 8.dense"),
    (
        spoiled("head.1.weight", np.nan),
        NonFiniteError,
        r"^head\.1\.weight has NaN, infinity or a negative variance, expected trained weights$",
    ),
    (spoiled("features.6.bias", np.inf), NonFiniteError, "features.6.bias has NaN"),
    (
        STATE | {"head.2.num_batches_tracked": np.array(np.nan)},
        NonFiniteError,
        r"head\.2\.num_batches_tracked is nan, expected a number of",
    ),
    (STATE | {"head.2.num_batches_tracked": np.array(-1)}, NonFiniteError, r"num_batches_tracked is -1"),
    (STATE | {"head.2.num_batches_tracked": np.array(1e300)}, NonFiniteError, r"num_batches_tracked is 1e\+300"),
    (spoiled("head.2.running_var", -1), NonFiniteError, r"head\.2\.running_var has NaN, infinity or a negative variance"),
    (STATE | {"features.0.bias": np.full(4, 0.5)}, ArgumentError, r"'features\.0' .*bias \(4,\)\) does not fit layer 0\.conv2d"),
    (STATE | {"features.0.bias": np.broadcast_to(np.float32(0), 1 << 40)}, ArgumentError, r"bias \(1099511627776,\)\) does not fit"),
    (STATE | {"features.0.bias": np.zeros(3)}, ArgumentError, r"bias \(3,\)\) does not fit layer 0\.conv2d"),
    (STATE | {"head.2.num_batches_tracked": np.array([1, 2])}, ShapeError, r"num_batches_tracked \(2,\).* does not fit"),
    (STATE | {"features.0.weight_g": np.ones(4)}, ArgumentError, "weight_g"),
    (changed(head_4_bias=np.zeros(3, "complex64")), DTypeError, r"head\.4\.bias has dtype complex64, expected real numbers"),
    (changed(head_4_bias=np.array(["a", "b", "c"])), DTypeError, "expected real numbers"),
    ({}, ArgumentError, r"the state dict is not a state dict \(it has nothing\)"),
    ({"a": STATE, "b": STATE}, ArgumentError, r"it has a, b\)"),
    ({1: np.zeros(3)}, ArgumentError, "is not a state dict"),
    ("weights.npz", ArgumentError, r"got the file weights\.npz, expected one that ends with \.pt, \.pth or \.safetensors"),
    ("no.safetensors", CheckpointError, r"cannot read no\.safetensors: No such file"),
    ("no.pt", CheckpointError, r"cannot read no\.pt: there is no such file"),
    (None, ArgumentError, r"got NoneType, expected a torch\.nn\.Module, a state dict, or a \.pt or \.safetensors file"),
]


@pytest.mark.parametrize(("source", "kind", "message"), BAD, ids=range(len(BAD)))
def test_what_does_not_fit(source, kind, message):
    model = of_torch(backend="numpy")
    before = everything(model)
    with pytest.raises(kind, match=message) as raised:
        nb.convert.from_torch(source, model)
    assert "\n" not in str(raised.value)
    assert everything(model) == before


def test_what_a_layer_lacks_may_be_trivial():
    model = of_torch(backend="numpy")
    nb.convert.from_torch(STATE | {"features.0.bias": np.zeros(4, np.float32)}, model)
    back = nb.convert.to_torch(model, STATE | {"features.0.bias": np.ones(4, np.float32)})
    assert not back["features.0.bias"].any()
    lacks = {name: array for name, array in STATE.items() if name != "features.4.bias"}
    with pytest.raises(ArgumentError, match=r"layer 4\.depthwiseconv2d has a 'bias', for which 'features\.4' has no array"):
        nb.convert.to_torch(model, lacks)
    model.params["4.depthwiseconv2d.bias"].value[:] = 0
    assert nb.convert.to_torch(model, lacks).keys() == lacks.keys()


def test_files_of_old_versions_count_no_updates():
    model = of_torch(backend="numpy")
    nb.convert.from_torch({name: array for name, array in STATE.items() if "num_batches" not in name}, model)
    assert model.buffers["1.batchnorm.updates"][0] == 1
    nb.convert.from_torch(STATE, model)
    assert model.buffers["1.batchnorm.updates"][0] == STATE["features.1.num_batches_tracked"] == 30


def test_another_state_of_the_same_shapes_is_paired_by_name():
    """The names of both are equal, so the order of the dict does not count."""
    model = built([nb.Dense(4).named("a"), nb.Dense(4).named("b")], (4,), backend="numpy")
    state = nb.convert.to_torch(model)
    assert list(state) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    turned = dict(reversed(state.items()))
    before = everything(model)
    assert nb.convert.from_torch(turned, model) == {"a": "a", "b": "b"}
    assert everything(model) == before
    back = nb.convert.to_torch(model, turned)
    assert list(back) == list(turned)
    assert all(np.array_equal(back[name], state[name]) for name in state)


def test_names_that_safetensors_sorted(tmp_path):
    """Numbers tell the order; otherwise a layer must be the only one that fits."""
    twelve = built([nb.Dense(4) for _ in range(12)], (4,), backend="numpy")
    state = nb.convert.to_torch(twelve)
    storage.write(tmp_path / "a.safetensors", state, {})
    read = storage.read(tmp_path / "a.safetensors")[0]
    assert [*read][:5] == ["0.bias", "0.weight", "1.bias", "1.weight", "10.bias"]
    for source in (tmp_path / "a.safetensors", read):
        twin = built([nb.Dense(4) for _ in range(12)], (4,), backend="numpy", seed=2)
        assert [*nb.convert.from_torch(source, twin)] == [str(i) for i in range(12)]
        assert everything(twin) == everything(twelve)
    named = {"stem.weight": np.ones((4, 4)), "stem.bias": np.zeros(4), "head.weight": np.ones((4, 4)), "head.bias": np.zeros(4)}
    model = built([nb.Dense(4), nb.Dense(4)], (4,), backend="numpy")
    assert nb.convert.from_torch(named, model) == {"stem": "0.dense", "head": "1.dense"}  # a dict is in order
    storage.write(tmp_path / "b.safetensors", named, {})
    read = storage.read(tmp_path / "b.safetensors")[0]
    before = everything(model)
    for source in (tmp_path / "b.safetensors", read):
        with pytest.raises(ArgumentError, match=r"sorted by name, not in order, and 'head', 'stem' fit layer 0\.dense .*: give names="):
            nb.convert.from_torch(source, model)
        with pytest.raises(
            ArgumentError, match=r"and none fits layer 0\.dense \(Linear with weight \(5, 4\), bias \(5,\)\): is it another"
        ):
            nb.convert.from_torch(source, built([nb.Dense(5)], (4,), backend="numpy"))
        with pytest.raises(ArgumentError, match=r"no partner for 'features\.0'"):
            nb.convert.from_torch(SORTED, built([nb.Flatten(), nb.Dense(5), nb.BatchNorm()], (4, 3, 6), backend="numpy"))
        assert everything(model) == before
        assert nb.convert.from_torch(source, model, names={"stem": "0.dense", "head": "1.dense"})
    storage.write(tmp_path / "d.safetensors", {"stem.weight": np.ones((4, 4)), "head.weight": np.zeros((4, 4))}, {})
    with pytest.raises(ArgumentError, match=r"'head', 'stem' fit layer 0\.dense"):  # no bias tells that they are sorted
        nb.convert.from_torch(tmp_path / "d.safetensors", built([nb.Dense(4, False), nb.Dense(4, False)], (4,), backend="numpy"))
    storage.write(tmp_path / "c.safetensors", {"a.weight": np.ones((4, 4)), "a.bias": np.zeros(4), "b.weight": np.ones((2, 4))}, {})
    with pytest.raises(ArgumentError, match=r"and none fits layer 1\.dense"):
        nb.convert.from_torch(tmp_path / "c.safetensors", model)  # one layer is not both


def test_names_of_nested_models():
    inner = nb.Sequential([nb.Conv2D(2, 3), nb.Sequential([nb.ReLU(), nb.Conv2D(2, 1)])])
    model = built([inner, nb.Residual([nb.Conv2D(2, 3)]), nb.Conv2D(2, 1).named("last")], (4, 4, 2), backend="numpy")
    names = [name for name in nb.convert.to_torch(model) if name.endswith("weight")]
    assert names == ["0.0.weight", "0.1.1.weight", "1.body.0.weight", "last.weight"]


def test_a_layer_in_two_places_is_one():
    trunk = nb.Sequential([nb.Flatten(), nb.Dense(3)])
    model = built([nb.Parallel([trunk, trunk]), nb.Multiply(), nb.Dense(2)], ((4, 2, 3), (4, 2, 3)), backend="numpy")
    state = nb.convert.to_torch(model)
    assert list(state) == ["0.0.1.weight", "0.0.1.bias", "2.weight", "2.bias"]
    rows = np.asarray(model.params["0.parallel.0.sequential.1.dense.weight"].value).reshape(4, 2, 3, 3)  # H, W, C, units
    assert np.array_equal(state["0.0.1.weight"].reshape(3, 3, 4, 2), rows.transpose(3, 2, 0, 1))


def test_arguments():
    model = of_torch(backend="numpy")
    for tolerance in ("no", -1, np.nan, np.inf):
        with pytest.raises(ArgumentError, match=r"tolerance=.* expected a number such as 1e-4, or None"):
            nb.convert.from_torch(STATE, model, tolerance=tolerance)
    with pytest.raises(BuildError, match="not built yet"):
        nb.convert.from_torch(STATE, nb.Sequential([nb.Dense(3)]))
    for convert in (nb.convert.from_torch, nb.convert.from_keras):
        with pytest.raises(ArgumentError, match="got Dense, expected a built Sequential as the model"):
            convert(STATE, nb.Dense(3))
    with pytest.raises(ArgumentError, match=r"got dict, expected a keras\.Model, or a \.keras, \.weights\.h5 or \.h5 file"):
        nb.convert.from_keras(STATE, model)


class Scale(nb.Layer):
    def create(self, input_shape):
        self.add_param("scale", input_shape[-1:], "ones")
        return input_shape

    def forward(self, x, train=False):
        return self.check_input(x), None


def test_a_layer_of_ones_own_has_no_counterpart():
    model = built([nb.Dense(3), Scale()], (4,), backend="numpy")
    with pytest.raises(ArgumentError, match=r"layer 1\.scale \(Scale\) has weights, but no counterpart: expected BatchNorm, Conv1D, "):
        nb.convert.to_torch(model)


@pytest.mark.parametrize(
    ("package", "name", "command"), [("torch", "a.pt", "pip install torch"), ("h5py", "a.keras", r"'nbnet\[convert\]'")]
)
def test_a_missing_package(package, name, command, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, package, None)
    convert = nb.convert.from_torch if package == "torch" else nb.convert.from_keras
    with pytest.raises(ExtraError, match=command):
        convert(tmp_path / name, of_torch(backend="numpy"))


def test_weights_on_the_way_keep_their_bits_in_float64():
    model = built([nb.BatchNorm(), nb.Dense(3)], (4,), dtype="float64", backend="numpy")
    model.buffers["0.batchnorm.moving_var"][:] = [1e-300, 1e-15, 1, 1e300]
    twin = built([nb.BatchNorm(), nb.Dense(3)], (4,), dtype="float64", backend="numpy", seed=2)
    nb.convert.from_torch(nb.convert.to_torch(model), twin)
    assert everything(model) == everything(twin)


READY_MADE = {
    "digits": (8, 8, 1),
    "lenet": (16, 16, 1),
    "five_conv": (8, 8, 3),
    "resnet9": (8, 8, 3),
    "se_resnet": (8, 8, 3),
    "siamese": ((8, 8, 1), (8, 8, 1)),
    "mobile": (8, 8, 3),
    "keyword": (16, 4),
    "autoencoder": (8, 8, 1),
    "unet_small": (8, 8, 1),
    "airbench": (32, 32, 3),
}


@pytest.mark.parametrize("name", READY_MADE)
def test_ready_made_models_there_and_back(name):
    def make(seed):
        model = getattr(nb.models, name)()
        model.build(READY_MADE[name], backend="numpy", seed=seed)
        return model

    model, twin = make(0), make(1)
    state = nb.convert.to_torch(model)
    assert [*nb.convert.from_torch(state, twin).values()] == [*nb.convert.from_torch(state, model).values()]
    dropout = [key for key in model.state() if key.rpartition(".")[2] in ("seed", "step")]
    found = twin.state()
    assert all(np.array_equal(array, found[key]) for key, array in model.state().items() if key not in dropout)


def test_inputs_that_are_joined_at_once():
    model = built([nb.Add(), nb.Dense(2)], ((4,), (4,)), backend="numpy")
    assert nb.convert.to_torch(model).keys() == {"1.weight", "1.bias"}
