"""The course's API: its formulas, its dictionaries and the ways in which its notebooks use them."""

import inspect

import numpy as np
import pytest
from tolerances import assert_close

from nbnet import cs231n
from nbnet.cs231n import *  # noqa: F403  # as a notebook does

DISTANCE = 1e-5  # of central differences
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
fc, fcb, fcb_alt = cs231n.batchnorm_forward, cs231n.batchnorm_backward, cs231n.batchnorm_backward_alt
images, imagesb = cs231n.spatial_batchnorm_forward, cs231n.spatial_batchnorm_backward
ln, lnb = cs231n.layernorm_forward, cs231n.layernorm_backward
gn, gnb = cs231n.spatial_groupnorm_forward, cs231n.spatial_groupnorm_backward
drop, dropb = cs231n.dropout_forward, cs231n.dropout_backward


def numerical_gradient(f, x, df):
    """What the course's eval_numerical_gradient_array does: it writes into x itself, calls f and puts x back."""
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        old = x[index]
        x[index] = old + DISTANCE
        up = f(x).copy()
        x[index] = old - DISTANCE
        down = f(x).copy()
        x[index] = old
        grad[index] = np.sum((up - down) * df) / (2 * DISTANCE)
    return grad


def batchnorm(x, gamma, beta, eps=1e-5):
    return gamma * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps) + beta


def groupnorm(x, gamma, beta, groups, eps=1e-5):
    n, c, h, w = x.shape
    parts = x.reshape(n, groups, c // groups * h * w)
    parts = (parts - parts.mean(axis=2, keepdims=True)) / np.sqrt(parts.var(axis=2, keepdims=True) + eps)
    return parts.reshape(x.shape) * gamma + beta


def normal(rng, *shapes):
    return [rng.normal(1, 2, shape) for shape in shapes]


# ------------------------------------------------------------------------------------------------- the interface


def test_signatures_are_the_courses():
    expected = {
        "batchnorm_forward": ["x", "gamma", "beta", "bn_param"],
        "batchnorm_backward": ["dout", "cache"],
        "batchnorm_backward_alt": ["dout", "cache"],
        "spatial_batchnorm_forward": ["x", "gamma", "beta", "bn_param"],
        "spatial_batchnorm_backward": ["dout", "cache"],
        "layernorm_forward": ["x", "gamma", "beta", "ln_param"],
        "layernorm_backward": ["dout", "cache"],
        "spatial_groupnorm_forward": ["x", "gamma", "beta", "G", "gn_param"],
        "spatial_groupnorm_backward": ["dout", "cache"],
        "dropout_forward": ["x", "dropout_param"],
        "dropout_backward": ["dout", "cache"],
    }
    assert {name: list(inspect.signature(getattr(cs231n, name)).parameters) for name in cs231n.__all__} == expected
    assert all(globals()[name] is getattr(cs231n, name) for name in expected)


# -------------------------------------------------------------------------------------------------- batch norm


def test_batchnorm_forward(rng):
    x, gamma, beta = normal(rng, (20, 5), 5, 5)
    for bn_param, eps in (({"mode": "train"}, 1e-5), ({"mode": "train", "eps": 0.5}, 0.5)):
        out, _ = fc(x, gamma, beta, bn_param)
        assert_close(out, batchnorm(x, gamma, beta, eps), "reduction")


def test_batchnorm_fills_the_dictionary(rng):
    """Running averages start at zeros, momentum is the weight of the old value, 0.9, and the variance is the biased one."""
    x, gamma, beta = normal(rng, (20, 5), 5, 5)
    bn_param = {"mode": "train"}
    fc(x, gamma, beta, bn_param)
    assert sorted(bn_param) == ["mode", "running_mean", "running_var"]
    assert_close(bn_param["running_mean"], 0.1 * x.mean(axis=0), "reduction")
    assert_close(bn_param["running_var"], 0.1 * x.var(axis=0), "reduction")


def test_batchnorm_goes_on_from_the_dictionary(rng):
    mean, var = np.zeros(5), np.zeros(5)
    gamma, beta = normal(rng, 5, 5)
    bn_param = {"mode": "train", "momentum": 0.7}
    for _ in range(4):
        (x,) = normal(rng, (20, 5))
        fc(x, gamma, beta, bn_param)
        mean, var = 0.7 * mean + 0.3 * x.mean(axis=0), 0.7 * var + 0.3 * x.var(axis=0)
        assert_close(bn_param["running_mean"], mean, "reduction")
        assert_close(bn_param["running_var"], var, "reduction")
    kept = bn_param["running_mean"], bn_param["running_var"]
    bn_param["mode"] = "test"
    (x,) = normal(rng, (7, 5))
    out, _ = fc(x, gamma, beta, bn_param)
    assert_close(out, gamma * (x - mean) / np.sqrt(var + 1e-5) + beta, "reduction")
    assert_close(bn_param["running_mean"], kept[0], "exact")
    assert_close(bn_param["running_var"], kept[1], "exact")


def test_batchnorm_makes_new_running_arrays(rng):
    """The dictionary gets new arrays, as in the course: one that somebody kept does not change under his hands."""
    x, gamma, beta = normal(rng, (20, 5), 5, 5)
    start = np.zeros(5)
    bn_param = {"mode": "train", "running_mean": start, "running_var": np.ones(5)}
    fc(x, gamma, beta, bn_param)
    assert not start.any()
    assert_close(bn_param["running_var"], 0.9 + 0.1 * x.var(axis=0), "reduction")


def test_batchnorm_in_test_mode_from_nothing(rng):
    """Running averages of zeros: the course does not refuse them either."""
    x, gamma, beta = normal(rng, (4, 3), 3, 3)
    bn_param = {"mode": "test"}
    out, _ = fc(x, gamma, beta, bn_param)
    assert_close(out, gamma * x / np.sqrt(1e-5) + beta, "reduction")
    assert_close(bn_param["running_mean"], np.zeros(3), "exact")


@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize("backward", [fcb, fcb_alt])
def test_batchnorm_backward(rng, backward, mode):
    """As the notebook does it: one bn_param for all the calls of the numerical gradient, whatever that does to its averages."""
    x, gamma, beta, dout = normal(rng, (5, 4), 4, 4, (5, 4))
    bn_param = {"mode": mode}
    if mode == "test":
        bn_param |= {"running_mean": rng.normal(size=4), "running_var": rng.uniform(0.5, 2, 4)}
    expected = [
        numerical_gradient(lambda a: fc(a, gamma, beta, bn_param)[0], x, dout),
        numerical_gradient(lambda a: fc(x, a, beta, bn_param)[0], gamma.copy(), dout),
        numerical_gradient(lambda a: fc(x, gamma, a, bn_param)[0], beta.copy(), dout),
    ]
    _, cache = fc(x, gamma, beta, bn_param)
    for grad, numeric in zip(backward(dout, cache), expected, strict=True):
        assert_close(grad, numeric, "differences")


@DTYPES
def test_the_two_backwards_agree(rng, dtype):
    x, gamma, beta, dout = (a.astype(dtype) for a in normal(rng, (100, 50), 50, 50, (100, 50)))
    _, cache = fc(x, gamma, beta, {"mode": "train"})
    for a, b in zip(fcb(dout, cache), fcb_alt(dout, cache), strict=True):
        assert a.dtype == b.dtype == dtype
        assert_close(a, b, "reduction")


def test_the_alternative_is_another_computation(rng, monkeypatch):
    """It calls no kernel: a check that ran the same code twice would check nothing."""
    x, gamma, beta, dout = normal(rng, (6, 3), 3, 3, (6, 3))
    _, cache = fc(x, gamma, beta, {"mode": "train"})
    expected = fcb_alt(dout, cache)
    monkeypatch.setattr(type(cache.saved.backend), "kernel", lambda self, op: pytest.fail(f"{op} was called"))
    for a, b in zip(fcb_alt(dout, cache), expected, strict=True):
        assert_close(a, b, "exact")
    with pytest.raises(pytest.fail.Exception):
        fcb(dout, cache)


def test_spatial_batchnorm(rng):
    x, gamma, beta, dout = normal(rng, (2, 3, 4, 5), 3, 3, (2, 3, 4, 5))
    bn_param = {"mode": "train"}
    out, cache = images(x, gamma, beta, bn_param)
    rows = x.transpose(0, 2, 3, 1).reshape(-1, 3)
    assert out.shape == x.shape
    assert_close(out, batchnorm(rows, gamma, beta).reshape(2, 4, 5, 3).transpose(0, 3, 1, 2), "reduction")
    assert_close(bn_param["running_mean"], 0.1 * rows.mean(axis=0), "reduction")
    assert_close(bn_param["running_var"], 0.1 * rows.var(axis=0), "reduction")
    expected = [
        numerical_gradient(lambda a: images(a, gamma, beta, {"mode": "train"})[0], x, dout),
        numerical_gradient(lambda a: images(x, a, beta, {"mode": "train"})[0], gamma.copy(), dout),
        numerical_gradient(lambda a: images(x, gamma, a, {"mode": "train"})[0], beta.copy(), dout),
    ]
    for grad, numeric in zip(imagesb(dout, cache), expected, strict=True):
        assert_close(grad, numeric, "differences")
    bn_param["mode"] = "test"
    out, _ = images(x, gamma, beta, bn_param)
    mean, var = (bn_param[name].reshape(1, 3, 1, 1) for name in ("running_mean", "running_var"))
    assert_close(out, gamma.reshape(1, 3, 1, 1) * (x - mean) / np.sqrt(var + 1e-5) + beta.reshape(1, 3, 1, 1), "reduction")


# ----------------------------------------------------------------------------------------- layer and group norm


@pytest.mark.parametrize("param", [{}, {"eps": 0.3}, {"mode": "train"}])
def test_layernorm(rng, param):
    x, gamma, beta, dout = normal(rng, (4, 6), 6, 6, (4, 6))
    before = dict(param)
    out, cache = ln(x, gamma, beta, param)
    assert param == before
    assert_close(out, gamma * batchnorm(x.T, 1, 0, param.get("eps", 1e-5)).T + beta, "reduction")
    expected = [
        numerical_gradient(lambda a: ln(a, gamma, beta, param)[0], x, dout),
        numerical_gradient(lambda a: ln(x, a, beta, param)[0], gamma.copy(), dout),
        numerical_gradient(lambda a: ln(x, gamma, a, param)[0], beta.copy(), dout),
    ]
    for grad, numeric in zip(lnb(dout, cache), expected, strict=True):
        assert_close(grad, numeric, "differences")


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("param", [{}, {"eps": 0.3}])
def test_spatial_groupnorm(rng, groups, param):
    shape, each = (2, 6, 3, 2), (1, 6, 1, 1)
    x, gamma, beta, dout = normal(rng, shape, each, each, shape)
    out, cache = gn(x, gamma, beta, groups, param)
    assert_close(out, groupnorm(x, gamma, beta, groups, param.get("eps", 1e-5)), "reduction")
    expected = [
        numerical_gradient(lambda a: gn(a, gamma, beta, groups, param)[0], x, dout),
        numerical_gradient(lambda a: gn(x, a, beta, groups, param)[0], gamma.copy(), dout),
        numerical_gradient(lambda a: gn(x, gamma, a, groups, param)[0], beta.copy(), dout),
    ]
    for grad, numeric in zip(gnb(dout, cache), expected, strict=True):
        assert_close(grad, numeric, "differences")


# ----------------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("p", [0.25, 0.4, 0.7])
@DTYPES
def test_dropout_drops_with_probability_p(rng, p, dtype):
    x = rng.normal(10, 1, (500, 500)).astype(dtype)
    out, cache = drop(x, {"mode": "train", "p": p, "seed": 231})
    dropped = out == 0
    standard_error = np.sqrt(p * (1 - p) / x.size)
    assert abs(dropped.mean() - p) < 4 * standard_error
    assert out.dtype == x.dtype
    assert_close(out, np.where(dropped, 0, x / (1 - p)), "elementwise", dtype)
    dout = rng.normal(size=x.shape).astype(dtype)
    assert_close(dropb(dout, cache), np.where(dropped, 0, dout / (1 - p)), "elementwise", dtype)
    test, cache = drop(x, {"mode": "test", "p": p})
    assert_close(test, x, "exact")
    assert_close(dropb(dout, cache), dout, "exact")


def test_dropout_with_a_seed_has_one_mask(rng):
    x, dout = normal(rng, (10, 10), (10, 10))
    dropout_param = {"mode": "train", "p": 0.2, "seed": 123}
    before = dict(dropout_param)
    first, cache = drop(x, dropout_param)
    for _ in range(3):
        assert_close(drop(x, dropout_param)[0], first, "exact")
    assert dropout_param == before
    other, _ = drop(x, {**dropout_param, "seed": 124})
    assert ((first == 0) != (other == 0)).any()
    expected = numerical_gradient(lambda a: drop(a, dropout_param)[0], x, dout)
    assert_close(dropb(dout, cache), expected, "differences")


def test_dropout_without_a_seed_has_new_masks(rng):
    x, dropout_param = np.ones((20, 20)), {"mode": "train", "p": 0.5}
    calls = [drop(x, dropout_param) for _ in range(4)]
    masks = [out == 0 for out, _ in calls]
    assert all((masks[i] != masks[j]).any() for i in range(4) for j in range(i)), "two calls had the same mask"
    for mask, (_, cache) in zip(masks, calls, strict=True):  # each cache still knows its own
        np.testing.assert_array_equal(dropb(x, cache) == 0, mask)
    assert "seed" not in dropout_param


def test_dropout_caches_hold_no_mask():
    _, (dropout_param, saved) = drop(np.ones((50, 50)), {"mode": "train", "p": 0.5})
    assert dropout_param == {"mode": "train", "p": 0.5}
    assert all(part.size == 3 for part in saved if isinstance(part, np.ndarray))  # the counter


@pytest.mark.parametrize("mode", ["train", "test"])
def test_numpy_random_state_is_left_alone(rng, mode):
    x = rng.normal(size=(6, 4))
    np.random.seed(231)  # noqa: NPY002
    expected = np.random.rand(5)  # noqa: NPY002
    np.random.seed(231)  # noqa: NPY002
    for param in ({"mode": mode, "p": 0.5}, {"mode": mode, "p": 0.5, "seed": 7}):
        _, cache = drop(x, param)
        dropb(x, cache)
    fc(x, np.ones(4), np.zeros(4), {"mode": mode})
    np.testing.assert_array_equal(np.random.rand(5), expected)  # noqa: NPY002


# ------------------------------------------------------------------------------------------------- the notebook


def test_a_network_of_the_course(rng):
    """Affine, batch norm, ReLU, dropout, twice, by the course's pattern of layers with one bn_param each; it learns."""
    x = rng.normal(size=(60, 8))
    labels = (x[:, :4].sum(axis=1) > x[:, 4:].sum(axis=1)).astype(int)
    weights = [rng.normal(0, 0.5, (8, 16)), rng.normal(0, 0.5, (16, 2))]
    gamma, beta = np.ones(16), np.zeros(16)
    bn_param, dropout_param = {"mode": "train"}, {"mode": "train", "p": 0.1, "seed": 1}

    def loss(mode):
        bn_param["mode"] = dropout_param["mode"] = mode
        hidden, bn_cache = batchnorm_forward(x @ weights[0], gamma, beta, bn_param)  # noqa: F405
        active, drop_cache = dropout_forward(np.maximum(hidden, 0), dropout_param)  # noqa: F405
        scores = active @ weights[1]
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        value = -np.log(p[np.arange(60), labels]).mean()
        if mode == "test":
            return value, (p.argmax(axis=1) == labels).mean()
        p[np.arange(60), labels] -= 1
        dactive = dropout_backward(p @ weights[1].T / 60, drop_cache)  # noqa: F405
        dx, dgamma, dbeta = batchnorm_backward(dactive * (hidden > 0), bn_cache)  # noqa: F405
        grads = [x.T @ dx, active.T @ p / 60, dgamma, dbeta]
        for array, grad in zip([*weights, gamma, beta], grads, strict=True):
            array -= 0.5 * grad
        return value

    first = loss("train")
    for _ in range(100):
        last = loss("train")
    assert last < first / 3
    value, accuracy = loss("test")
    assert accuracy > 0.9
    assert value < first / 3
