"""The pairs of activations: formulas, gradients, and what they refuse."""

import inspect

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, DTypeError, ShapeError
from nbnet.functional.activations import NAMED, named
from nbnet.layers.activations import BY_NAME

from .differences import BACKENDS, differences

F = nb.functional
X = np.array([-1.5, -0.35, 0.2, 2.0])
# name: options, and y at X from the formulas, with 30 digits in mpmath
CASES = {
    "relu": ({}, [0.0, 0.0, 0.2, 2.0]),
    "leaky_relu": ({"slope": 0.1}, [-0.15, -0.035, 0.2, 2.0]),
    "tanh": ({}, [-0.9051482536448664, -0.3363755443363322, 0.197375320224904, 0.9640275800758169]),
    "sigmoid": ({}, [0.18242552380635635, 0.4133824210826699, 0.549833997312478, 0.8807970779778824]),
    "gelu": ({}, [-0.1002108019032871, -0.12710927208853331, 0.11585194188782061, 1.9544997361036416]),
    "gelu tanh": ({"approximate": "tanh"}, [-0.10042842301976708, -0.1271138039477433, 0.11585142978210627, 1.954597694087775]),
    "silu": ({}, [-0.2736382857095345, -0.14468384737893447, 0.10996679946249559, 1.7615941559557649]),
    "mish": ({}, [-0.29809974216680674, -0.17078676325774986, 0.13259900186215923, 1.9439589595339946]),
    "elu": ({"alpha": 0.7}, [-0.5438088878960992, -0.2067183371969006, 0.2, 2.0]),
    "selu": ({}, [-1.3658143533672527, -0.5191876748099096, 0.2101401974710961, 2.101401974710961]),
    "celu": ({"alpha": 0.7}, [-0.6178765837340244, -0.2754285382011566, 0.2, 2.0]),
    "softplus": ({"beta": 2, "threshold": 3}, [0.02429367578687103, 0.20159302444272895, 0.4565076261999763, 2.0]),
    "softsign": ({}, [-0.6, -0.25925925925925924, 0.16666666666666666, 0.6666666666666666]),
    "logsigmoid": ({}, [-1.7014132779827524, -0.8833821554187771, -0.5981388693815919, -0.1269280110429725]),
    "hardswish": ({}, [-0.375, -0.15458333333333332, 0.10666666666666667, 1.6666666666666667]),
    "hardsigmoid": ({}, [0.25, 0.44166666666666665, 0.5333333333333333, 0.8333333333333334]),
    "hardtanh": ({"low": -0.5, "high": 0.75}, [-0.5, -0.35, 0.2, 0.75]),
    "relu6": ({}, [0.0, 0.0, 0.2, 2.0]),
}
pairs = pytest.mark.parametrize("name", CASES)
backends = pytest.mark.parametrize("backend", BACKENDS)


def pair(name):
    return tuple(getattr(F, f"{name.split()[0]}_{direction}") for direction in ("forward", "backward"))


@backends
@pairs
def test_values_and_gradients(rng, name, backend):
    (forward, backward), (options, wanted) = pair(name), CASES[name]
    for dtype in ("float32", "float64"):
        y, saved = forward(X.astype(dtype).reshape(2, 1, 2), **options, backend=backend)
        assert_close(y, np.reshape(wanted, (2, 1, 2)), "elementwise", dtype)
    dy = rng.standard_normal(y.shape)
    (expected,) = differences(lambda x: forward(x, **options, backend=backend)[0], [X.reshape(2, 1, 2).copy()], dy)
    assert_close(backward(dy, saved), expected, "differences")
    with pytest.raises(ShapeError, match="dy has shape"):
        backward(dy[0], saved)
    with pytest.raises(ArgumentError, match="saved is None"):
        backward(dy, None)
    with pytest.raises(DTypeError, match="x has dtype int64"):
        forward(np.arange(3))


def test_the_defaults_are_those_of_the_names_of_layers():
    assert BY_NAME.keys() == NAMED.keys() == {name.replace(" ", "_") for name in CASES}
    for name, activation in NAMED.items():
        assert BY_NAME[name]().of_kernel == activation
    assert F.softplus_forward(np.array([20.0, 20.1]))[1].activation.options == (1.0, 20.0)
    assert F.elu_forward(-1.0)[0] == np.expm1(-1)
    assert named(None) is None


@pairs
def test_the_functions_look_as_if_they_were_written_out(name):
    forward, backward = pair(name)
    assert (forward.__name__, backward.__name__) == tuple(f"{name.split()[0]}_{direction}" for direction in ("forward", "backward"))
    parameters = inspect.signature(forward).parameters
    assert list(parameters) == ["x", *CASES[name][0], "backend"] or name == "gelu"
    assert forward.__doc__.startswith("y = ")
    assert all(f"{option}" in forward.__doc__ for option in CASES[name][0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.leaky_relu_forward(x, 0), "slope=0: expected a finite number above 0; for slope 0 use ReLU()"),
        (lambda x: F.gelu_forward(x, approximate=True), "unknown approximate True: choose one of none, tanh"),
        (lambda x: F.elu_forward(x, alpha=-1), "alpha=-1: expected a finite number that is at least 0"),
        (lambda x: F.celu_forward(x, alpha=0), "alpha=0: expected a finite number above 0"),
        (lambda x: F.softplus_forward(x, beta=-1), "beta=-1: expected a finite number above 0"),
        (lambda x: F.hardtanh_forward(x, 2, 1), "low=2.0 and high=1.0: expected low below high"),
        (
            lambda x: F.prelu_forward(x, np.ones(3)),
            "weight has shape (3,) for x of shape (4,): expected (1,), or one number for each",
        ),
    ],
)
def test_bad_options(call, message):
    with pytest.raises((ArgumentError, ShapeError)) as caught:
        call(X)
    assert str(caught.value).startswith(message)


@backends
@pytest.mark.parametrize("weights", [1, 3])
def test_prelu(rng, backend, weights):
    x, weight = rng.standard_normal((2, 4, 3)), rng.uniform(-0.5, 0.9, weights)
    y, saved = F.prelu_forward(x, weight, backend=backend)
    assert_close(y, np.where(x > 0, x, weight * x), "elementwise")
    dy = rng.standard_normal(y.shape)
    into = np.empty_like(weight)
    dx, dweight = F.prelu_backward(dy, saved, dweight=into)
    assert dweight is into
    expected = differences(lambda x, weight: F.prelu_forward(x, weight, backend=backend)[0], [x.copy(), weight.copy()], dy)
    assert_close(dx, expected[0], "differences")
    assert_close(dweight, expected[1], "differences")


@backends
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_and_log_softmax(rng, name, backend):
    forward, backward = pair(name)
    x = rng.standard_normal((2, 3, 5))
    y, saved = forward(x, backend=backend)
    share = np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)
    assert_close(y, share if name == "softmax" else np.log(share), "elementwise")
    dy = rng.standard_normal(y.shape)
    (expected,) = differences(lambda x: forward(x, backend=backend)[0], [x.copy()], dy)
    assert_close(backward(dy, saved), expected, "differences")
