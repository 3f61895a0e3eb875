"""Fused layers give what the layers give one by one: outputs, gradients, buffers, and how a run goes on."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import BuildError
from nbnet.functional import fused as runs

BACKENDS = ("numpy", "serial", "parallel")


def conv(filters=5, **options):
    """Without a bias: before a batch norm its gradient is 0, and what roundings leave of it cannot be compared."""
    return nb.Conv2D(filters, 3, use_bias=False, **options)


class Rows(nb.Layer):
    """The rows of an image, one after the other: (H, W, C) -> (H * W, C)."""

    replayable = True

    def create(self, input_shape):
        return input_shape[0] * input_shape[1], input_shape[2]

    def forward(self, x, train=False):
        return x.reshape(len(x), *self.output_shape), x.shape

    def backward(self, dy, saved, need_dx=True):
        return dy.reshape(saved)


NETWORKS = {
    "conv, norm": lambda: [conv(), nb.BatchNorm()],
    "conv, norm, relu": lambda: [conv(), nb.BatchNorm(), nb.ReLU()],
    "conv, norm, leaky relu, pool": lambda: [conv(), nb.BatchNorm(), nb.LeakyReLU(0.2), nb.MaxPool2D(2)],
    "conv, norm with relu, pool": lambda: [conv(stride=2), nb.BatchNorm(activation="relu"), nb.MaxPool2D(2)],
    "conv, unbiased norm, pool": lambda: [conv(), nb.BatchNorm(unbiased_batch=True, scale=False), nb.MaxPool2D(2)],
    "conv, renormalised, relu": lambda: [conv(), nb.BatchNorm(renorm=nb.Renorm()), nb.ReLU()],
    "norm, relu, pool": lambda: [nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2)],
    "norm, pool": lambda: [nb.BatchNorm(), nb.MaxPool2D(2)],
    "conv, relu": lambda: [nb.Conv2D(16, 3), nb.ReLU(), nb.Conv2D(17, 3), nb.LeakyReLU(0.2)],  # the second by minimal filtering
    "conv, leaky relu, pool": lambda: [nb.Conv2D(5, 2, stride=2, padding=1), nb.LeakyReLU(0.2), nb.MaxPool2D(2)],
    "dense, relu": lambda: [nb.Flatten(), nb.Dense(20), nb.ReLU(), nb.Dense(6, use_bias=False), nb.LeakyReLU(0.2)],
    "dense, norm, relu": lambda: [nb.Flatten(), nb.Dense(6), nb.BatchNorm(), nb.ReLU()],
    "dense, norm, relu, dense": lambda: [nb.Flatten(), nb.Dense(6), nb.BatchNorm(), nb.ReLU(), nb.Dense(3)],
    "dense, norm": lambda: [nb.Flatten(), nb.Dense(6, use_bias=False), nb.BatchNorm()],
    "dense, norm, tanh": lambda: [nb.Flatten(), nb.Dense(6, use_bias=False), nb.BatchNorm(), nb.Tanh(), nb.Dense(3)],
    "dense, norm with sigmoid": lambda: [nb.Flatten(), nb.Dense(6, use_bias=False), nb.BatchNorm(activation="sigmoid")],
    "conv, norm, tanh, conv": lambda: [conv(), nb.BatchNorm(), nb.Tanh(), conv(3)],
    "conv, norm, sigmoid, pool": lambda: [conv(), nb.BatchNorm(), nb.Sigmoid(), nb.MaxPool2D(2)],
    "norm, tanh": lambda: [nb.BatchNorm(scale=False), nb.Tanh()],
    "conv, norm, gelu, conv": lambda: [conv(), nb.BatchNorm(), nb.GELU(), conv(3)],
    "dense, norm with mish": lambda: [nb.Flatten(), nb.Dense(6, use_bias=False), nb.BatchNorm(activation="mish")],
    "norm, elu": lambda: [nb.BatchNorm(), nb.ELU(0.5)],
    "dense, relu, dropout": lambda: [nb.Flatten(), nb.Dense(20), nb.ReLU(), nb.Dropout(0.4), nb.Dense(6)],
    "conv, relu, vanilla dropout": lambda: [nb.Conv2D(16, 3), nb.ReLU(), nb.Dropout(0.3, variant="vanilla"), nb.Conv2D(5, 3)],
    "dense, relu, all dropped": lambda: [nb.Flatten(), nb.Dense(6), nb.ReLU(), nb.Dropout(1.0)],
    "dense, relu, none dropped": lambda: [nb.Flatten(), nb.Dense(6), nb.ReLU(), nb.Dropout(0.0)],
    "conv, norm, relu, mirrored": lambda: [conv(6, padding_mode="reflect"), nb.BatchNorm(), nb.ReLU(), conv(4, padding_mode="edge")],
    "conv, norm, relu in groups": lambda: [conv(6, groups=3, dilation=2), nb.BatchNorm(), nb.ReLU(), conv(4, groups=2, stride=2)],
    "conv of each channel, norm, relu, pool": lambda: [
        *(nb.DepthwiseConv2D(3, use_bias=False), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2)),
        *(nb.DepthwiseConv2D(3, stride=2, multiplier=2, use_bias=False), nb.BatchNorm(), nb.ReLU(), nb.Conv2D(5, 1)),
    ],
    "conv of each channel, relu, dropout": lambda: [nb.DepthwiseConv2D((3, 2)), nb.ReLU(), nb.Dropout(0.3), nb.Conv2D(5, 3)],
    "conv1d, norm, relu": lambda: [
        *(Rows(), nb.Conv1D(5, 3, use_bias=False), nb.BatchNorm(), nb.ReLU()),
        *(nb.Conv1D(4, 2, stride=2, padding="causal", groups=1), nb.ReLU(), nb.Dropout(0.3), nb.Conv1D(3, 3)),
    ],
    "conv, transposed, norm, relu": lambda: [conv(4, stride=2), nb.ConvTranspose2D(5, 3, stride=2), nb.BatchNorm(), nb.ReLU()],
    "residual": lambda: [nb.Residual([conv(), nb.BatchNorm(), nb.ReLU(), conv(3), nb.BatchNorm()]), nb.ReLU()],
}
# What stays apart, and in how many steps the whole runs.
APART = {
    "pool of 3": ([conv, nb.BatchNorm, nb.ReLU, lambda: nb.MaxPool2D(3)], 2),
    "padded pool": ([conv, nb.BatchNorm, lambda: nb.MaxPool2D(2, padding="same")], 2),
    "overlapping pool": ([nb.BatchNorm, lambda: nb.MaxPool2D(2, stride=1)], 2),
    "tanh in the norm": ([conv, lambda: nb.BatchNorm(activation="tanh"), lambda: nb.MaxPool2D(2)], 2),
    "two activations": ([conv, lambda: nb.BatchNorm(activation="relu"), nb.ReLU], 2),
    "ghost batches": ([conv, lambda: nb.BatchNorm(virtual_batch_size=2), nb.ReLU], 3),
    "another axis": ([lambda: nb.BatchNorm(axis=1), nb.ReLU], 2),
    "tanh": ([conv, nb.Tanh], 2),
    "gelu in the convolution": ([lambda: conv(activation="gelu"), nb.BatchNorm, nb.ReLU], 2),
    "relu in the convolution": ([lambda: conv(activation="relu"), nb.ReLU], 2),
    "norm, prelu": ([nb.BatchNorm, nb.PReLU], 2),
    "pool between": ([conv, lambda: nb.MaxPool2D(2), nb.ReLU], 3),
    "alpha dropout": ([conv, nb.ReLU, lambda: nb.Dropout(0.5, variant="alpha")], 2),
    "spatial dropout": ([conv, nb.ReLU, lambda: nb.Dropout(0.5, spatial=True)], 2),
    "dropout of a leaky relu": ([conv, nb.LeakyReLU, lambda: nb.Dropout(0.5)], 2),
    "activation alone": ([conv, nb.ReLU, nb.ReLU], 2),
}
networks = pytest.mark.parametrize("name", NETWORKS)


def built(name, backend="parallel", fuse=True, dtype="float64"):
    model = nb.Sequential(NETWORKS[name]())
    model.build((7, 6, 3), backend=backend, dtype=dtype, seed=3, fuse=fuse)
    rng = np.random.default_rng(1)
    for key, param in model.params.items():
        if "gamma" in key or "beta" in key or "bias" in key:
            param.value[:] = rng.normal(size=param.value.shape)
    return model


@pytest.mark.parametrize("backend", BACKENDS)
@networks
def test_fused_equals_unfused(rng, name, backend):
    x = rng.normal(size=(4, 7, 6, 3))
    fused, plain = built(name, backend), built(name, backend, fuse=False)
    assert len(plain.steps) == len(plain.layers)
    if name != "residual":
        assert len(fused.steps) < len(fused.layers)
    for _ in range(2):  # twice: the moving statistics and what renormalisation makes of them
        y, tape = fused.forward(x, train=True)
        wanted, plain_tape = plain.forward(x, train=True)
        assert_close(y, wanted, "reduction")
        dy = rng.normal(size=y.shape)
        given = dy.copy()
        assert_close(fused.backward(dy, tape), plain.backward(dy, plain_tape), "reduction")
        assert_close(dy, given, "exact")  # gradients between layers are overwritten, the caller's is not
        for key, param in fused.params.items():
            assert_close(param.grad, plain.params[key].grad, "reduction", what=f"gradient of {key}: ")
        for key, array in fused.buffers.items():
            assert_close(array, plain.buffers[key], "reduction", what=f"{key}: ")
    assert_close(fused.predict(x), plain.predict(x), "reduction")


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("conv, norm")])
def test_blocks_equal_unfused(rng, name, monkeypatch):
    """Batch norm and convolution go backward image by image, and the gradients of the weights are added up."""
    monkeypatch.setattr(runs, "BLOCK", 1)
    monkeypatch.setattr(runs, "OF_WEIGHTS", 0)
    test_fused_equals_unfused(rng, name, "serial")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("layers", "skips"),
    {
        "tanh": (lambda: [nb.Dense(6, use_bias=False), nb.BatchNorm(), nb.Tanh(), nb.Dense(3)], True),
        "renormalised, sigmoid": (lambda: [nb.Dense(6, use_bias=False), nb.BatchNorm(renorm=nb.Renorm()), nb.Sigmoid()], True),
        "constants": (lambda: [nb.Dense(6), nb.BatchNorm(activation="tanh")], True),
        "no activation": (lambda: [nb.Dense(6, use_bias=False), nb.BatchNorm(unbiased_batch=True)], True),
        "relu": (lambda: [nb.Dense(6, use_bias=False), nb.BatchNorm(), nb.ReLU()], False),
    }.values(),
)
def test_first_dense_of_few_inputs(rng, backend, layers, skips, monkeypatch):
    """The gradient of its weights comes without the gradient of its outputs, where batch norm's is affine in what it gets."""
    calls = []
    original = runs._backward_weights_norm
    monkeypatch.setattr(runs, "_backward_weights_norm", lambda *args: (calls.append(1), original(*args))[1])
    models = nb.Sequential(layers()), nb.Sequential(layers())
    x = rng.normal(3, 2, (9, 4))
    for model, fuse in zip(models, (True, False)):
        model.build((4,), backend=backend, dtype="float64", seed=1, fuse=fuse)
        model.layers[1].use_batch_statistics = model.layers[0].use_bias is False  # "constants" has a bias, whose gradient is not 0
    for _ in range(2):
        y, tape = models[0].forward(x, train=True)
        dy = rng.normal(size=y.shape)
        models[0].backward(dy, tape, need_dx=False)
        models[1].backward(dy, models[1].forward(x, train=True)[1], need_dx=False)
        for key, param in models[0].params.items():
            assert_close(param.grad, models[1].params[key].grad, "reduction", what=f"gradient of {key}: ")
    assert len(calls) == 2 * skips


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_dense_of_few_inputs_by_differences(rng, backend):
    model = nb.Sequential([nb.Dense(6), nb.BatchNorm(), nb.Tanh(), nb.Dense(3)])
    model.build((4,), backend=backend, dtype="float64", seed=1)
    x, dy, step = rng.normal(3, 2, (9, 4)), rng.normal(size=(9, 3)), 1e-6
    weight = model.params["0.dense.weight"]
    model.backward(dy, model.forward(x, train=True)[1], need_dx=False)
    wanted = np.empty_like(weight.value)
    for index in np.ndindex(weight.value.shape):
        sides = []
        for sign in (1, -1):
            before = weight.value[index]
            weight.value[index] += sign * step
            sides.append((model.forward(x, train=True)[0] * dy).sum())
            weight.value[index] = before
        wanted[index] = (sides[0] - sides[1]) / (2 * step)
    assert_close(weight.grad, wanted, "differences")


@pytest.mark.parametrize("index", [0, 1])
def test_a_backward_of_ones_own_in_a_first_dense_layer_is_called(rng, index):
    model, calls = nb.Sequential([nb.Dense(6), nb.BatchNorm(), nb.Tanh()]), []
    model.build((4,), backend="numpy", dtype="float64")
    layer = model.layers[index]
    original = layer.backward
    layer.backward = lambda *args, **options: (calls.append(1), original(*args, **options))[1]
    y, tape = model.forward(rng.normal(size=(9, 4)), train=True)
    model.backward(rng.normal(size=y.shape), tape, need_dx=False)
    assert calls == [1]


def test_dropout_set_otherwise_after_build(rng):
    x, dy = rng.normal(size=(4, 7, 6, 3)), rng.normal(size=(4, 6))
    fused, plain = built("dense, relu, dropout"), built("dense, relu, dropout", fuse=False)
    for model in (fused, plain):
        model.layers[3].variant = "alpha"
    (y, tape), (wanted, plain_tape) = fused.forward(x, train=True), plain.forward(x, train=True)
    assert_close(y, wanted, "reduction")
    assert_close(fused.backward(dy, tape), plain.backward(dy, plain_tape), "reduction")


def test_norm_set_otherwise_after_build(rng):
    model = built("dense, norm")
    model.layers[2].virtual_batch_size = 2
    with pytest.raises(BuildError, match=r"is fused with others and cannot be changed this way: set its options before build\(\)"):
        model.forward(rng.normal(size=(4, 7, 6, 3)), train=True)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "renormalised" not in name])  # its gradient takes r and k as constants
def test_gradients_of_fused_layers(name):
    model = built(name)
    nb.gradcheck(model, np.random.default_rng(2).normal(size=(3, 7, 6, 3)))


@pytest.mark.parametrize("switch", ["use_batch_statistics", "update_statistics"])
@networks
def test_switches_reach_fused_layers(rng, name, switch):
    x = rng.normal(size=(4, 7, 6, 3))
    fused, plain = built(name), built(name, fuse=False)
    for model in (fused, plain):
        for layer in model.walk():
            if isinstance(layer, nb.BatchNorm):
                setattr(layer, switch, False)
    (y, tape), (wanted, plain_tape) = fused.forward(x, train=True), plain.forward(x, train=True)
    assert_close(y, wanted, "reduction")
    assert_close(fused.backward(y, tape), plain.backward(wanted, plain_tape), "reduction")
    for key, array in fused.buffers.items():
        assert_close(array, plain.buffers[key], "reduction", what=f"{key}: ")


@pytest.mark.parametrize("name", APART)
def test_what_does_not_fit_stays_apart(name):
    makers, steps = APART[name]
    model = nb.Sequential([make() for make in makers])
    model.build((8, 6, 3))
    assert len(model.steps) == steps


def test_a_layer_of_ones_own_is_never_fused():
    class MyNorm(nb.BatchNorm):
        pass

    class MyReLU(nb.ReLU):
        pass

    class MyDense(nb.Dense):
        pass

    for layers in ([conv(), MyNorm(), nb.ReLU()], [conv(), MyReLU(), nb.Flatten(), nb.Dense(3), MyReLU(), MyDense(2), nb.ReLU()]):
        model = nb.Sequential(layers)
        model.build((4, 4, 1))
        assert model.steps == model.layers


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["conv, relu", "conv, leaky relu, pool", "dense, relu"])
def test_nan_and_infinity_pass_as_unfused(rng, name, backend):
    """The same sums go through the same activation: y and gradients are equal in every place, forward and backward."""
    x = rng.normal(size=(6, 7, 6, 3)).astype(np.float32)
    x[0, 0, 0, 0], x[1, 3, 3, 1], x[2, 6, 5, 2] = np.nan, np.inf, -np.inf
    fused, plain = (built(name, backend, fuse, "float32") for fuse in (True, False))
    with np.errstate(all="ignore"):
        (y, tape), (wanted, plain_tape) = fused.forward(x, train=True), plain.forward(x, train=True)
        dy = rng.normal(size=y.shape).astype(np.float32)
        assert np.isnan(y).any()
        assert_close(y, wanted, "exact")
        assert_close(fused.backward(dy, tape), plain.backward(dy, plain_tape), "exact")
    for key, param in fused.params.items():
        assert_close(param.grad, plain.params[key].grad, "exact", what=f"gradient of {key}: ")
    finite = rng.normal(size=x.shape).astype(np.float32)
    assert_close(fused.predict(finite), plain.predict(finite), "exact")


def test_first_activation_step_without_dx(rng):
    model = built("conv, relu")
    y, tape = model.forward(rng.normal(size=(2, 7, 6, 3)), train=True)
    assert model.backward(y, tape, need_dx=False) is None
    assert all(param.grad.any() for param in model.params.values())
    assert model.forward(np.ones((2, 7, 6, 3)))[1] is None


def test_summary_shows_the_steps(capsys):
    model = nb.Sequential([conv(), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.Flatten(), nb.Dense(3), nb.ReLU(), nb.Dense(2)])
    model.build((4, 4, 1))
    model.summary()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│ ") and line[2].isdigit()]
    assert [row.split("│")[-2].strip() for row in rows] == ["0", "0", "0", "0", "1", "2", "2", "3"]


def test_backward_empties_a_list():
    """The memory of a step's tape is free as soon as backward has passed it."""
    model = built("conv, norm, relu")
    y, tape = model.forward(np.ones((2, 7, 6, 3)), train=True)
    rest = list(tape)
    model.backward(y, rest)
    assert rest == []
    assert model.backward(y, tape).shape == (2, 7, 6, 3)  # a tuple is left alone


class Keeping(nb.Layer):
    """The identity; keeps the gradient, as it was and as it is."""

    def forward(self, x, train=False):
        return x, ()

    def backward(self, dy, saved, need_dx=True):
        self.kept = dy, dy.copy()
        return dy


def test_gradients_that_a_layer_keeps_stay(rng):
    keeping = Keeping()
    middle = nb.Residual([nb.BatchNorm(), nb.ReLU(), conv(3), nb.BatchNorm(), nb.Tanh()], [nb.BatchNorm(), nb.Sigmoid()])
    layers = [
        conv(3),
        nb.BatchNorm(),
        nb.Tanh(),
        keeping,
        nb.BatchNorm(),
        nb.ReLU(),
        middle,
        nb.BatchNorm(),
        nb.Tanh(),
        nb.Flatten(),
        nb.Dense(2),
    ]
    model = nb.Sequential(layers)
    model.build((4, 4, 3), dtype="float64")
    y, tape = model.forward(rng.normal(size=(5, 4, 4, 3)), train=True)
    model.backward(rng.normal(size=y.shape), tape)
    assert_close(*keeping.kept, "exact")


@pytest.mark.parametrize("patched", [1, 3, 6, "step"])
def test_functions_in_place_of_a_layers(rng, patched):
    """They take what every layer's backward takes, and what they keep stays as it is."""
    layers = [nb.Dense(6), nb.BatchNorm(), nb.Tanh(), nb.Dense(5), nb.BatchNorm(), nb.ReLU(), nb.Dense(3)]
    model = nb.Sequential(layers)
    model.build((4,), dtype="float64")
    thing = model.steps[0] if patched == "step" else layers[patched]
    kept, own = [], thing.backward

    def backward(dy, saved, need_dx=True):
        dx = own(dy, saved, need_dx)
        kept.extend((array, array.copy()) for array in (dy, dx) if array is not None)
        return dx

    thing.backward = backward
    y, tape = model.forward(rng.normal(size=(10, 4)), train=True)
    model.backward(rng.normal(size=y.shape), tape)
    assert len(kept) == 2
    for array, as_it_was in kept:
        assert_close(array, as_it_was, "exact")


def test_a_slope_that_is_set_after_build(rng):
    x, dy = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    models = [nb.Sequential([nb.Dense(5, use_bias=False), nb.BatchNorm(), nb.LeakyReLU(0.3), nb.Dense(3)]) for _ in range(2)]
    results = []
    for model, fuse in zip(models, (True, False)):
        model.build((4,), backend="serial", dtype="float64", fuse=fuse)
        model.layers[2].slope = 0.7
        y, tape = model.forward(x, train=True)
        results.append((y, model.backward(dy, tape)))
    for fused, plain in zip(*results):
        assert_close(fused, plain, "reduction")
