"""One contract that every layer keeps, and what is special to some."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, BuildError, DTypeError, ShapeError
from nbnet.runtime.stage import can_replay

IMAGE = (6, 5, 3)
LAYERS = {
    "dense": (lambda: nb.Dense(4), (7,)),
    "dense without bias": (lambda: nb.Dense(4, use_bias=False), (7,)),
    "conv2d": (lambda: nb.Conv2D(4, 3), IMAGE),
    "conv2d stride": (lambda: nb.Conv2D(4, (3, 2), stride=2, use_bias=False), IMAGE),
    "conv2d valid": (lambda: nb.Conv2D(4, 3, padding="valid"), IMAGE),
    "conv2d padding 2": (lambda: nb.Conv2D(2, 3, stride=(1, 2), padding=2), IMAGE),
    "conv2d groups": (lambda: nb.Conv2D(4, 3, groups=2, dilation=2), (6, 5, 4)),
    "conv2d padding of each side": (lambda: nb.Conv2D(2, (3, 2), padding=((0, 2), (1, 0))), IMAGE),
    "conv2d mirrored": (lambda: nb.Conv2D(2, 3, stride=2, padding_mode="reflect"), IMAGE),
    "depthwiseconv2d edge": (lambda: nb.DepthwiseConv2D(3, padding=(2, 1), padding_mode="edge"), IMAGE),
    "depthwiseconv2d": (lambda: nb.DepthwiseConv2D(3), IMAGE),
    "depthwiseconv2d stride": (lambda: nb.DepthwiseConv2D(3, stride=2, use_bias=False, dilation=(1, 2)), IMAGE),
    "depthwiseconv2d multiplier": (lambda: nb.DepthwiseConv2D((2, 3), multiplier=2), IMAGE),
    "separableconv2d": (lambda: nb.SeparableConv2D(4, 3), IMAGE),
    "conv1d": (lambda: nb.Conv1D(4, 3), (7, 3)),
    "conv1d causal": (lambda: nb.Conv1D(4, 3, padding="causal", dilation=2, use_bias=False), (7, 3)),
    "conv1d groups": (lambda: nb.Conv1D(4, 3, stride=2, padding=(2, 1), groups=2), (7, 4)),
    "convtranspose2d": (lambda: nb.ConvTranspose2D(4, 3), IMAGE),
    "convtranspose2d stride": (lambda: nb.ConvTranspose2D(2, 3, stride=2, use_bias=False), IMAGE),
    "convtranspose2d padding": (lambda: nb.ConvTranspose2D(2, 3, stride=2, padding=1, output_padding=1), IMAGE),
    "convtranspose2d groups": (lambda: nb.ConvTranspose2D(4, (2, 3), padding="valid", groups=2, dilation=(2, 1)), (6, 5, 6)),
    "convtranspose1d": (lambda: nb.ConvTranspose1D(4, 3, stride=2, padding=(1, 0)), (5, 3)),
    "convtranspose1d padding": (lambda: nb.ConvTranspose1D(2, 3, stride=2, padding=1, output_padding=1, dilation=2), (5, 3)),
    "maxpool2d": (lambda: nb.MaxPool2D(2), IMAGE),
    "maxpool2d overlapping": (lambda: nb.MaxPool2D(3, stride=2, padding="same"), IMAGE),
    "avgpool2d": (lambda: nb.AvgPool2D(2), IMAGE),
    "avgpool2d overlapping": (lambda: nb.AvgPool2D(3, stride=2, padding=1), IMAGE),
    "globalavgpool2d": (lambda: nb.GlobalAvgPool2D(), IMAGE),
    "maxpool2d of sides": (lambda: nb.MaxPool2D((2, 3), stride=2, padding=((1, 0), (2, 1)), ceil_mode=True), IMAGE),
    "avgpool2d counts padding": (lambda: nb.AvgPool2D(3, 2, ((1, 2), (0, 1)), ceil_mode=True, count_include_pad=True), IMAGE),
    "globalmaxpool2d": (lambda: nb.GlobalMaxPool2D(), IMAGE),
    "globalmaxpool2d keepdims": (lambda: nb.GlobalMaxPool2D(keepdims=True), IMAGE),
    "maxpool1d": (lambda: nb.MaxPool1D(3, stride=2, padding=(0, 1)), (7, 3)),
    "avgpool1d": (lambda: nb.AvgPool1D(2, padding=1, ceil_mode=True, count_include_pad=True), (7, 3)),
    "globalmaxpool1d": (lambda: nb.GlobalMaxPool1D(), (7, 3)),
    "globalmaxpool1d keepdims": (lambda: nb.GlobalMaxPool1D(keepdims=True), (7, 3)),
    "globalavgpool1d": (lambda: nb.GlobalAvgPool1D(), (7, 3)),
    "adaptiveavgpool2d": (lambda: nb.AdaptiveAvgPool2D((4, 3)), IMAGE),
    "pad2d": (lambda: nb.Pad2D(((1, 2), (0, 3)), "reflect"), IMAGE),
    "zeropad2d": (lambda: nb.ZeroPad2D((2, 1)), IMAGE),
    "crop2d": (lambda: nb.Crop2D(((1, 0), (2, 1))), IMAGE),
    "upsample2d": (lambda: nb.UpSample2D((2, 3)), IMAGE),
    "upsample2d bilinear": (lambda: nb.UpSample2D(2, "bilinear"), IMAGE),
    "flatten": (lambda: nb.Flatten(), IMAGE),
    "batchnorm": (lambda: nb.BatchNorm(), IMAGE),
    "batchnorm plain": (lambda: nb.BatchNorm(center=False, scale=False, eps=1e-3, unbiased=False), (7,)),
    "groupnorm": (lambda: nb.GroupNorm(3, eps=1e-3), (4, 3, 6)),
    "groupnorm flat": (lambda: nb.GroupNorm(2, center=False), (6,)),
    "layernorm": (lambda: nb.LayerNorm(), (7,)),
    "layernorm plain": (lambda: nb.LayerNorm(center=False, scale=False, eps=1e-3), IMAGE),
    "layernorm of images": (lambda: nb.LayerNorm(axes=(-3, -2, -1)), IMAGE),
    "instancenorm": (lambda: nb.InstanceNorm(), IMAGE),
    "rmsnorm": (lambda: nb.RMSNorm(), (7,)),
    "rmsnorm of two axes": (lambda: nb.RMSNorm(axes=(2, 3), scale=False), IMAGE),
    "dropout": (lambda: nb.Dropout(0.4), IMAGE),
    "relu": (lambda: nb.ReLU(), IMAGE),
    "leakyrelu": (lambda: nb.LeakyReLU(0.2), IMAGE),
    "tanh": (lambda: nb.Tanh(), IMAGE),
    "sigmoid": (lambda: nb.Sigmoid(), IMAGE),
    "gelu": (lambda: nb.GELU(), IMAGE),
    "gelu tanh": (lambda: nb.GELU(approximate="tanh"), IMAGE),
    "silu": (lambda: nb.SiLU(), IMAGE),
    "mish": (lambda: nb.Mish(), IMAGE),
    "elu": (lambda: nb.ELU(0.7), IMAGE),
    "selu": (lambda: nb.SELU(), IMAGE),
    "celu": (lambda: nb.CELU(0.7), IMAGE),
    "softplus": (lambda: nb.Softplus(beta=2, threshold=3), IMAGE),
    "softsign": (lambda: nb.Softsign(), IMAGE),
    "logsigmoid": (lambda: nb.LogSigmoid(), IMAGE),
    "hardswish": (lambda: nb.Hardswish(), IMAGE),
    "hardsigmoid": (lambda: nb.Hardsigmoid(), IMAGE),
    "hardtanh": (lambda: nb.Hardtanh(-0.5, 0.75), IMAGE),
    "relu6": (lambda: nb.ReLU6(), IMAGE),
    "prelu": (lambda: nb.PReLU(), IMAGE),
    "prelu per channel": (lambda: nb.PReLU(per_channel=True, initial=-0.3), IMAGE),
    "dense with gelu": (lambda: nb.Dense(4, activation="gelu"), (7,)),
    "dense with relu": (lambda: nb.Dense(4, activation="relu"), (7,)),
    "conv2d with tanh": (lambda: nb.Conv2D(4, 3, activation="tanh"), IMAGE),
    "batchnorm with silu": (lambda: nb.BatchNorm(activation="silu"), IMAGE),
    "softmax": (lambda: nb.Softmax(), (7,)),
    "logsoftmax": (lambda: nb.LogSoftmax(), (7,)),
    "sequential": (
        lambda: nb.Sequential([nb.Conv2D(3, 3, use_bias=False), nb.BatchNorm(), nb.ReLU(), nb.Flatten(), nb.Dropout(0.3), nb.Dense(4)]),
        IMAGE,
    ),
    "residual": (lambda: nb.Residual([nb.Conv2D(3, 3), nb.Tanh()]), IMAGE),
    "residual shortcut": (lambda: nb.Residual([nb.Conv2D(4, 3, stride=2), nb.Tanh()], nb.Conv2D(4, 1, stride=2)), IMAGE),
    "globalavgpool2d keepdims": (lambda: nb.GlobalAvgPool2D(keepdims=True), IMAGE),
    "identity": (lambda: nb.Identity(), IMAGE),
    "reshape": (lambda: nb.Reshape((9, -1)), IMAGE),
    "permute": (lambda: nb.Permute((3, 1, 2)), IMAGE),
    "permute reversed": (lambda: nb.Permute((3, 2, 1)), IMAGE),
    "concat": (lambda: nb.Concat([[], nb.Conv2D(2, 3), [nb.Conv2D(4, 1), nb.Tanh()]]), IMAGE),
    "concat flat": (lambda: nb.Concat([nb.Dense(2), nb.Identity()]), (7,)),
    "add": (lambda: nb.Add([nb.Conv2D(3, 3), nb.Identity(), nb.Conv2D(3, 1)]), IMAGE),
    "multiply": (lambda: nb.Multiply([nb.Conv2D(3, 3), nb.Identity()]), IMAGE),
    "multiply three": (lambda: nb.Multiply([nb.Dense(5), [nb.Dense(5), nb.Tanh()], nb.Dense(5)]), (7,)),
    "squeeze and excitation": (
        lambda: nb.Multiply([[], [nb.GlobalAvgPool2D(), nb.Dense(2), nb.ReLU(), nb.Dense(3), nb.Sigmoid()]]),
        IMAGE,
    ),
    "squeeze and excitation of images": (
        lambda: nb.Multiply([[nb.GlobalAvgPool2D(keepdims=True), nb.Conv2D(3, 1), nb.Sigmoid()], nb.Tanh(), nb.GlobalAvgPool2D()]),
        IMAGE,
    ),
    "parallel": (lambda: nb.Sequential([nb.Parallel([nb.Conv2D(2, 3), [], nb.Conv2D(1, 3)]), nb.Concat()]), IMAGE),
    "shared": (lambda: nb.Sequential([dense := nb.Dense(7), nb.Tanh(), dense, nb.Residual([dense, nb.Tanh()])]), (7,)),
}
everywhere = pytest.mark.parametrize("name", LAYERS)


def make(name, backend="serial", dtype="float64", batch=4, seed=3):
    """A built layer, and an input for it."""
    factory, shape = LAYERS[name]
    layer = factory()
    layer.build(shape, backend=backend, dtype=dtype, seed=seed)
    x = np.random.Generator(np.random.Philox(1)).standard_normal((batch, *shape)).astype(dtype)
    return layer, x


def run(name, backend, dtype):
    """One training pass: outputs, dx and parameter gradients."""
    layer, x = make(name, backend, dtype)
    y, saved = layer.forward(x, train=True)
    dy = np.random.Generator(np.random.Philox(2)).standard_normal(y.shape).astype(dtype)
    dx = layer.backward(dy, saved)
    return [y, dx, *(p.grad for p in layer.params.values()), *(b for b in layer.buffers.values() if b.dtype == dtype)]


@everywhere
def test_shapes_and_modes(name):
    layer, x = make(name, dtype="float32")
    state = {key: array.copy() for key, array in layer.buffers.items()}
    y, saved = layer.forward(x)
    assert saved is None
    assert y.shape == (len(x), *layer.output_shape)
    assert y.dtype == np.float32
    assert all(np.array_equal(state[key], array) for key, array in layer.buffers.items()), "evaluation changed a buffer"
    values = {key: param.value.copy() for key, param in layer.params.items()}
    y, saved = layer.forward(x, train=True)
    assert saved is not None
    assert layer.backward(np.ones_like(y), saved).shape == x.shape
    assert all(np.array_equal(values[key], param.value) for key, param in layer.params.items()), "a pass changed a parameter"


@everywhere
def test_gradients(name):
    layer, x = make(name)
    errors = nb.gradcheck(layer, x, tolerance=1e-7)
    assert errors.keys() == {"x", *layer.params}


@everywhere
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_agree(name, dtype):
    reference = run(name, "numpy", "float64")
    serial = run(name, "serial", dtype)
    parallel = run(name, "parallel", dtype)
    assert len(reference) == len(serial)
    for wanted, a, b in zip(reference, serial, parallel):
        assert np.array_equal(a, b), "serial and parallel differ"
        assert_close(a, wanted, "matmul")


@everywhere
def test_same_seed_same_layer(name):
    for a, b in zip(run(name, "serial", "float32"), run(name, "serial", "float32")):
        assert np.array_equal(a, b)


@everywhere
def test_bad_input(name):
    layer, x = make(name)
    y, saved = layer.forward(x)
    with pytest.raises(ArgumentError, match="saved is None: expected what forward returned with train=True"):
        layer.backward(y, saved)
    with pytest.raises(ShapeError, match="expected \\(N, "):
        layer.forward(x[:, :-1])
    with pytest.raises(ShapeError, match="N at least 1"):
        layer.forward(x[:0])
    with pytest.raises(DTypeError, match="float32, expected float64"):
        layer.forward(x.astype(np.float32))
    with pytest.raises(BuildError, match="call build"):
        LAYERS[name][0]().forward(x)


@everywhere
def test_before_it_is_built(name):
    layer = LAYERS[name][0]()
    for each in layer.walk():
        assert each.params == {}
        assert each.buffers == {}
        assert (each.name, each.label, each.input_shape, each.output_shape) == ("", "", None, ())
        assert each.multiply_adds() == 0
    assert layer.named("a-name") is layer
    assert layer.label == "a-name"


@everywhere
def test_it_can_be_recorded(name):
    """What each says of itself, and so does each layer in it. Dropout with shared decisions cannot: see tests/runtime/test_replay.py."""
    layer, _ = make(name)
    assert [each.name for each in layer.walk() if not can_replay(each, layer.backend)] == []


@everywhere
def test_bad_gradients(name):
    layer, x = make(name, "numpy")
    y, saved = layer.forward(x, train=True)
    grads = {key: param.grad.copy() for key, param in layer.params.items()}
    one_less = y.reshape(len(y), -1)[:, :-1]
    for wrong in (y[:-1], np.concatenate([y, y]), y[..., None], one_less, y[0], y.sum()):
        with pytest.raises(ShapeError, match="dy has shape"):
            layer.backward(wrong, saved)
    for wrong in (y.astype(np.float32), None):
        with pytest.raises(DTypeError, match="dy has dtype"):
            layer.backward(wrong, saved)
    assert all(np.array_equal(grads[key], param.grad) for key, param in layer.params.items()), "a gradient changed"
    layer.backward(y.tolist(), saved)


@everywhere
def test_code_of_repr_makes_the_same_layer(name):
    layer, x = make(name, "numpy")
    again = eval(repr(layer), {"nb": nb})
    again.build(layer.input_shape, backend="numpy", dtype="float64", seed=3)
    assert repr(again) == repr(layer)
    assert again.forward(x)[0].tobytes() == layer.forward(x)[0].tobytes()


@everywhere
def test_weights_go_through_a_file(name, tmp_path):
    _, shape = LAYERS[name]
    first, second = (nb.Sequential([LAYERS[name][0]()]) for _ in range(2))
    for seed, model in enumerate((first, second)):
        model.build(shape, backend="serial", dtype="float64", seed=seed)
    x = np.random.Generator(np.random.Philox(1)).standard_normal((4, *shape))
    first.forward(x, train=True)
    first.save_weights(tmp_path / "w.safetensors")
    second.load_weights(tmp_path / "w.safetensors")
    assert all(np.array_equal(a, second.state()[key]) for key, a in first.state().items())
    assert np.array_equal(first.predict(x), second.predict(x))


def test_every_layer_is_in_the_table():
    classes = {kind for kind in vars(nb).values() if isinstance(kind, type) and issubclass(kind, nb.Layer) and kind is not nb.Layer}
    several_outputs = {nb.Parallel}  # which the tests above do not take: it is in the table within another layer
    assert {type(factory()) for factory, _ in LAYERS.values()} | several_outputs == classes


# -------------------------------------------------------------------------------------------------- batch norm


def test_batchnorm_moving_statistics(rng):
    layer = nb.BatchNorm(decay=0.7)
    layer.build((3,), backend="serial", dtype="float64")
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = rng.normal(2, 3, (10, 3))
        layer.forward(x, train=True)
        mean = 0.7 * mean + 0.3 * x.mean(axis=0)
        var = 0.7 * var + 0.3 * x.var(axis=0, ddof=1)
    assert_close(layer.buffers["moving_mean"], mean, "reduction")
    assert_close(layer.buffers["moving_var"], var, "reduction")
    y, _ = layer.forward(x)
    assert_close(y, (x - mean) / np.sqrt(var + 1e-5), "reduction")


def test_batchnorm_refuses_momentum():
    with pytest.raises(ArgumentError, match="use decay="):
        nb.BatchNorm(momentum=0.1)


def test_batchnorm_refuses_one_value_a_channel():
    layer = nb.BatchNorm()
    layer.build((3,), backend="serial")
    before = {key: array.copy() for key, array in layer.buffers.items()}
    with pytest.raises(ShapeError, match="one value per channel"):
        layer.forward(np.ones((1, 3), np.float32), train=True)
    assert all(np.array_equal(before[key], array) for key, array in layer.buffers.items())
    layer.forward(np.ones((1, 3), np.float32))


# ----------------------------------------------------------------------------------------------------- dropout


def test_dropout_masks_differ_by_step_layer_and_seed():
    model = nb.Sequential([nb.Dropout(0.5), nb.Dropout(0.5)])
    model.build((1000,), backend="serial", seed=1)
    x = np.ones((2, 1000), np.float32)
    first, second = (model.layers[0].forward(x, train=True)[0] for _ in range(2))
    other_layer = model.layers[1].forward(x, train=True)[0]
    model.build((1000,), backend="serial", seed=2)
    other_seed = model.layers[0].forward(x, train=True)[0]
    masks = [first, second, other_layer, other_seed]
    assert set(np.unique(first)) == {0, 2}
    for i in range(4):
        for j in range(i):
            assert 0.4 < np.mean(masks[i] == masks[j]) < 0.6, "two masks are not independent"


# -------------------------------------------------------------------------------------------------- containers


def test_sequential_names_and_layers():
    model = nb.Sequential([nb.Conv2D(4, 3), nb.Residual([nb.BatchNorm()]), nb.Flatten(), nb.Dense(2)])
    assert model.build((5, 5, 1), backend="serial") == (2,)
    assert list(model.params) == [
        "0.conv2d.weight",
        "0.conv2d.bias",
        "1.residual.body.0.batchnorm.gamma",
        "1.residual.body.0.batchnorm.beta",
        "3.dense.weight",
        "3.dense.bias",
    ]
    assert list(model.buffers) == [f"1.residual.body.0.batchnorm.{name}" for name in ("moving_mean", "moving_var", "updates")]
    assert model.layers[0].params["weight"].value.shape == (3, 3, 1, 4)
    model.layers[3].params["weight"].value[:] = 0
    assert not model.params["3.dense.weight"].value.any()


def test_the_first_layer_spares_dx():
    model = nb.Sequential([nb.Flatten(), nb.Dense(3), nb.ReLU()])
    model.build((2, 2, 1), backend="serial")
    y, tape = model.forward(np.ones((2, 2, 2, 1), np.float32), train=True)
    assert model.backward(np.ones_like(y), tape, need_dx=False) is None
    assert model.backward(np.ones_like(y), tape).shape == (2, 2, 2, 1)


def test_uint8_images_are_scaled():
    model = nb.Sequential([nb.Flatten()])
    model.build((2, 2, 1), backend="serial")
    x = np.array([[0, 51], [255, 102]], np.uint8).reshape(1, 2, 2, 1)
    assert_close(model.predict(x), np.array([[0, 0.2, 1, 0.4]]), "elementwise")


def test_summary_counts(capsys):
    model = nb.Sequential([nb.Conv2D(4, 3), nb.BatchNorm(), nb.Flatten(), nb.Dense(2)])
    model.build((5, 5, 1), backend="serial")
    model.summary()
    text = capsys.readouterr().out
    for part in ("0.conv2d", "(N, 5, 5, 4)", "40", "1.batchnorm", "202", "250"):
        assert part in text


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: nb.Dense(0), "units=0: expected a whole number, at least 1"),
        (lambda: nb.Conv2D(0, 3), "filters=0: expected a whole number, at least 1"),
        (lambda: nb.Conv2D(4, 0), "kernel_size=0"),
        (lambda: nb.Conv2D(4, 3, stride=(1, 0)), "stride="),
        (lambda: nb.Conv2D(4, 3, padding="some"), "'same', 'valid', a number of pixels"),
        (lambda: nb.Dropout(1.5), "probability to drop"),
        (lambda: nb.BatchNorm(decay=2), "weight of the old"),
        (lambda: nb.BatchNorm(eps=0), "a number above 0"),
        (lambda: nb.LeakyReLU(0), "use ReLU"),
        (lambda: nb.GELU("tahn"), "unknown approximate 'tahn': did you mean 'tanh'"),
        (lambda: nb.ELU(-1), "alpha=-1: expected a finite number that is at least 0"),
        (lambda: nb.CELU(0), "alpha=0: expected a finite number above 0"),
        (lambda: nb.Softplus(beta=0), "beta=0: expected a finite number above 0"),
        (lambda: nb.Softplus(threshold=float("nan")), "threshold=nan: expected a finite number"),
        (lambda: nb.Hardtanh(1, 1), "expected low below high"),
        (lambda: nb.PReLU(initial=float("inf")), "initial=inf: expected a finite number"),
        (lambda: nb.Dense(4, activation="gelo"), "unknown activation 'gelo': did you mean 'gelu'"),
        (lambda: nb.Conv2D(4, 3, activation="softmax"), "unknown activation 'softmax'"),
        (lambda: nb.BatchNorm(activation="tan"), "unknown activation 'tan': did you mean 'tanh'"),
        (lambda: nb.Sequential(["dense"]), "expected layers"),
    ],
)
def test_bad_options(make_layer, message):
    with pytest.raises(ArgumentError, match=message):
        make_layer()


@pytest.mark.parametrize("options", [{"variant": "vanilla"}, {"variant": "alpha"}, {"spatial": True}, {"noise_shape": (None, 6, 1, 1)}])
def test_dropout_options_keep_the_contract(rng, options):
    layer = nb.Dropout(0.4, **options)
    layer.build(IMAGE, backend="serial", dtype="float64", seed=2)
    x = rng.standard_normal((5, *IMAGE))
    nb.gradcheck(layer, x, tolerance=1e-7)
    y, _ = layer.forward(x, train=True)
    if layer.noise_shape is not None:
        kept = y != 0
        axes = tuple(i for i, n in enumerate(layer.noise_shape) if n == 1)
        assert np.array_equal(kept.all(axis=axes), kept.any(axis=axes)), "a shared decision differs"
        assert 0 < kept.mean() < 1


def test_a_fixed_mask_stays():
    layer = nb.Dropout(0.5, seed=7)
    layer.build((100,), backend="serial")
    layer.fixed_mask = True
    x = np.ones((3, 100), np.float32)
    first, second = (layer.forward(x, train=True)[0] for _ in range(2))
    assert np.array_equal(first, second)
    layer.fixed_mask = False
    layer.forward(x, train=True)
    assert not np.array_equal(layer.forward(x, train=True)[0], first)


def test_bad_dropout_layers():
    with pytest.raises(ArgumentError, match="expected one of the two"):
        nb.Dropout(0.5, spatial=True, noise_shape=(None, 1))
    with pytest.raises(ArgumentError, match="did you mean 'alpha'"):
        nb.Dropout(0.5, variant="alfa")
    with pytest.raises(ShapeError, match=r"does not fit \(N, 6, 5, 3\)"):
        nb.Dropout(0.5, noise_shape=(None, 2, 1, 1)).build(IMAGE)


@pytest.mark.parametrize("shape", [(np.int64(6), np.uint8(5), 3), np.array([6, 5, 3]), [6, np.int32(5), np.int64(3)]])
def test_shapes_of_numpy_numbers(shape):
    model = nb.Sequential([nb.Conv2D(2, 3), nb.Flatten(), nb.Dense(4)])
    model.build(shape, backend="serial")
    assert repr(model.input_shape) == "(6, 5, 3)"
    assert model.predict(np.zeros((2, 6, 5, 3), np.float32)).shape == (2, 4)


class Returns(nb.Layer):
    """A layer whose create returns what it is given."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def create(self, input_shape):
        return self.shape


def test_shapes_that_create_returns():
    layer = Returns((np.int64(2), np.int64(3)))
    nb.Sequential([layer]).build((6,), backend="serial")
    assert repr(layer.output_shape) == "(2, 3)"
    for shape in (3, (2.5,), None, "ab"):
        with pytest.raises(ShapeError, match=r"Returns\.create returned .*, expected the shape of one output, such as \(6,\)"):
            nb.Sequential([Returns(shape)]).build((6,), backend="serial")


@pytest.mark.parametrize("shape", [(True,), (6.0,), (np.float64(6),), ("6",), 6])
def test_shapes_that_are_none(shape):
    with pytest.raises(ShapeError, match="expected the positive sizes of one example"):
        nb.Sequential([nb.Dense(2)]).build(shape, backend="serial")
