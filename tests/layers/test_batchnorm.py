"""The batch-norm layer: every option and every pair of options, hard numbers, and what it refuses."""

import itertools
import math

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, ShapeError
from nbnet.layers.batchnorm.groups import slices

SHAPE = (6, 2, 3)  # N and two axes, each of which can be the channels'
# r and k sit on their bounds, so that they really are constants and differences may be taken.
BOUNDED = {"rmin": 1.2, "rmax": 1.2, "dmax": 0.3}
OPTIONS = {
    "cumulative": {"decay": None},
    "axis": {"axis": 1},
    "no center": {"center": False},
    "no scale": {"scale": False},
    "biased": {"unbiased": False},
    "unbiased batch": {"unbiased_batch": True},
    "large eps": {"eps": 0.1},
    "deviation": {"track": "deviation"},
    "zero debias": {"zero_debias": True},
    "zero debias of the mean": {"zero_debias": "mean"},
    "warm decay": {"warm_decay": True},
    "initial variance": {"initial_var": 4.0},
    "renorm": {"renorm": nb.Renorm(**BOUNDED)},
    "renorm with averages": {"renorm": nb.Renorm(**BOUNDED, decay=0.8)},
    "ghost": {"virtual_batch_size": 3},
    "ghost strided": {"virtual_batch_size": 3, "groups": "strided"},
    "ghost mean variance": {"virtual_batch_size": 3, "group_variance": "mean"},
    "deferred": {"update": "deferred"},
    "relu": {"activation": "relu"},
    "leaky relu": {"activation": "leaky_relu", "slope": 0.3},
    "tanh": {"activation": "tanh"},
    "sigmoid": {"activation": "sigmoid"},
    "float32 statistics": {"stats_dtype": "float32"},
    "initializers": {"gamma_initializer": nb.initializers.normal(1.0), "beta_initializer": nb.initializers.normal(1.0)},
    # two that are not constructor options
    "weights": {"weights": True},
    "frozen": {"frozen": True},
}
MEANINGLESS = [{"cumulative", "zero debias"}, {"cumulative", "zero debias of the mean"}, {"cumulative", "warm decay"}]
PAIRS = [
    pair
    for pair in itertools.combinations(OPTIONS, 2)
    if set(pair) not in MEANINGLESS and not OPTIONS[pair[0]].keys() & OPTIONS[pair[1]].keys()
]


class Weighted(nb.Layer):
    """A layer with its weights fixed, so that it looks like any other."""

    def __init__(self, layer, weights):
        super().__init__()
        self.layer, self.weights = layer, weights
        self.input_shape, self.dtype = layer.input_shape, layer.dtype

    params = property(lambda self: self.layer.params)
    buffers = property(lambda self: self.layer.buffers)

    def apply_updates(self):
        self.layer.apply_updates()

    def forward(self, x, train=False):
        return self.layer.forward(x, train, weights=self.weights)

    def backward(self, dy, saved, need_dx=True):
        return self.layer.backward(dy, saved, need_dx)


def make(*names, dtype="float64", backend="serial"):
    options = {key: value for name in names for key, value in OPTIONS[name].items()}
    weighted, frozen = options.pop("weights", False), options.pop("frozen", False)
    layer = nb.BatchNorm(**options)
    layer.build(SHAPE[1:], backend=backend, dtype=dtype, seed=3)
    if frozen:
        layer.freeze()
        layer.trainable = True  # so that gradcheck looks at gamma and beta too
    return Weighted(layer, np.array([1, 0.5, 2, 0, 1.5, 1.0])) if weighted else layer


@pytest.mark.parametrize("names", [(), *((name,) for name in OPTIONS), *PAIRS], ids=" + ".join)
def test_gradients_of_every_pair_of_options(rng, names):
    layer = make(*names)
    errors = nb.gradcheck(layer, rng.normal(5, 2, SHAPE), tolerance=1e-7)
    assert errors.keys() == {"x", *layer.params}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_agree(rng, name, dtype):
    steps = [(rng.normal(i, 2, SHAPE), rng.standard_normal(SHAPE)) for i in range(3)]

    def run(backend, dtype):
        layer, out = make(name, dtype=dtype, backend=backend), []
        for x, dy in steps:
            y, saved = layer.forward(x.astype(dtype), train=True)
            layer.apply_updates()
            out += [y, layer.backward(dy.astype(dtype), saved), *(p.grad.copy() for p in layer.params.values())]
        return [*out, *(b.copy() for b in layer.buffers.values()), layer.forward(steps[0][0].astype(dtype))[0]]

    wanted = run("numpy", "float64")
    for a, b, w in zip(run("serial", dtype), run("parallel", dtype), wanted):
        assert np.array_equal(a, b)
        if a.dtype.kind == "f":
            assert_close(a, w, "reduction")


# ------------------------------------------------------------------------------------------------- hard numbers


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
@pytest.mark.parametrize(
    "case", ["far from zero", "constant channel", "two rows", "one channel", "a thousand channels", "tiny eps", "large variance"]
)
def test_float32_is_right_in_hard_cases(rng, backend, case):
    x = {
        "far from zero": lambda: rng.normal(1e4, 1, (300, 3)),
        "constant channel": lambda: np.stack([np.full(300, 0.1), rng.standard_normal(300)], axis=1),
        "two rows": lambda: rng.standard_normal((2, 5)),
        "one channel": lambda: rng.standard_normal((1000, 1)),
        "a thousand channels": lambda: rng.standard_normal((37, 1000)),
        "tiny eps": lambda: np.stack([np.full(50, 3.0), rng.standard_normal(50)], axis=1),
        "large variance": lambda: rng.normal(0, 1e15, (100, 2)),
    }[case]().astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    eps = 1e-42 if case == "tiny eps" else 1e-5
    layer = nb.BatchNorm(eps=eps, decay=0, unbiased=False)
    layer.build(x.shape[1:], backend=backend)
    y, saved = layer.forward(x, train=True)
    dx = layer.backward(dy, saved)
    wide, wide_dy = x.astype(np.float64), dy.astype(np.float64)
    mean, var = wide.mean(axis=0), wide.var(axis=0)
    if case in ("constant channel", "tiny eps"):
        mean[0], var[0] = wide[0, 0], 0
        assert not y[:, 0].any()
        assert np.isfinite(dx[:, 0]).all()
    inv = 1 / np.sqrt(var + eps)
    xhat = (wide - mean) * inv
    assert_close(y, xhat, "reduction")
    lost = inv * (wide_dy.mean(axis=0) + xhat * (wide_dy * xhat).mean(axis=0))
    varied = var > 0
    if case == "two rows":  # the terms cancel to almost nothing: the error is measured against them
        assert_close((dx + lost).astype(np.float32), inv * wide_dy, "reduction")
    else:
        assert_close(dx[:, varied], (inv * wide_dy - lost)[:, varied], "reduction")
    assert_close(layer.buffers["moving_mean"], mean, "reduction")
    assert_close(layer.buffers["moving_var"], var, "reduction")


# ----------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": None, "zero_debias": True}, "has no warm_decay or zero_debias"),
        ({"decay": None, "warm_decay": True}, "has no warm_decay or zero_debias"),
        ({"track": "sigma"}, "'variance' or 'deviation'"),
        ({"zero_debias": "both"}, "expected False, True"),
        ({"groups": "stride"}, "did you mean 'strided'"),
        ({"virtual_batch_size": 0}, "virtual_batch_size=0"),
        ({"activation": "rel"}, "did you mean 'relu'"),
        ({"renorm": 3}, "expected nb.Renorm"),
        ({"scale": False, "gamma_regularizer": nb.regularizers.l2(1)}, "drop one of the two"),
        ({"momentum": 0.1}, "ambiguous"),
        ({"eps": math.nan}, "above 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ArgumentError, match=message):
        nb.BatchNorm(**options)


def test_bad_renorm():
    with pytest.raises(ArgumentError, match="0 <= rmin <= rmax"):
        nb.Renorm(rmin=2, rmax=1)
    with pytest.raises(ArgumentError, match=r"decay=1\.0"):
        nb.Renorm(decay=1.0)


def test_bad_shapes_and_weights(rng):
    with pytest.raises(ShapeError, match=r"BatchNorm\(axis=0\)"):
        nb.BatchNorm(axis=0).build((3,))
    with pytest.raises(ShapeError, match=r"BatchNorm\(axis=3\)"):
        nb.BatchNorm(axis=3).build((4, 3))
    layer = nb.BatchNorm(virtual_batch_size=4, groups="strided")
    layer.build((3,), backend="serial", dtype="float64")
    x = rng.standard_normal((6, 3))
    with pytest.raises(ShapeError, match="a batch of 6 cannot be cut into strided groups of 4"):
        layer.forward(x, train=True)
    plain = nb.BatchNorm()
    plain.build((3,), backend="serial", dtype="float64")
    before = {name: array.copy() for name, array in plain.buffers.items()}
    bad = [np.where(np.arange(6) == 4, value, 1.0) for value in (-1e-9, np.inf, -np.inf, np.nan)]  # after good ones
    cases = [(np.zeros(6), "sum to 0"), (-np.ones(6), "at least 0"), (np.eye(6)[0], "one value per channel")]
    for weights, message in [*cases, *[(weights, "negative or not finite, expected finite weights of at least 0") for weights in bad]]:
        with pytest.raises(nb.NbnetError, match=message):
            plain.forward(x, train=True, weights=weights)
    with pytest.raises(ShapeError, match="broadcasts to"):
        plain.forward(x, train=True, weights=np.ones(5))
    assert all(np.array_equal(before[name], array) for name, array in plain.buffers.items())
    with pytest.raises(ArgumentError, match="did you mean 'pytorch'"):
        nb.BatchNorm.preset("torch")


def test_presets_build():
    for name in ("pytorch", "keras", "tf_contrib", "flax", "cs231n", "sigma"):
        assert nb.BatchNorm.preset(name, decay=0.5).moving.decay == 0.5


def test_evaluation_takes_batches_that_cannot_be_cut_into_groups(rng):
    x = rng.standard_normal((8, 3), dtype=np.float32)
    layer = nb.BatchNorm(virtual_batch_size=4, groups="strided")
    layer.build((3,), backend="serial")
    layer.forward(x, train=True)
    assert layer.forward(x[:5])[0].tobytes() == layer.forward(x)[0][:5].tobytes()
    with pytest.raises(ShapeError, match="cannot be cut into strided groups"):
        layer.forward(x[:5], train=True)


@pytest.mark.parametrize(
    ("examples", "size", "expected"),
    [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (5, 4, [5]), (4, 4, [4]), (3, 1, [1, 1, 1]), (3, 2, [3]), (7, 3, [3, 4])],
)
def test_a_single_example_joins_the_ghost_batch_before_it(rng, examples, size, expected):
    x = np.arange(examples)
    groups = [x[where] for where in slices(examples, size, strided=False)]
    assert [len(group) for group in groups] == expected
    assert np.array_equal(np.concatenate(groups), x)
