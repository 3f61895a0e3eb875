"""The functional calls: formulas, gradients, evaluation, and errors."""

import numba
import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, DTypeError, ShapeError

F = nb.functional
BACKENDS = ["numpy", "serial", "parallel"]


def differences(function, arrays, cotangent, step=1e-5):
    """Central differences of sum(cotangent * function(*arrays)) at every index of every array."""
    grads = []
    for array in arrays:
        grad = np.empty_like(array)
        for index in np.ndindex(array.shape):
            old = array[index]
            array[index] = old + step
            up = np.vdot(cotangent, function(*arrays))
            array[index] = old - step
            down = np.vdot(cotangent, function(*arrays))
            array[index] = old
            grad[index] = (up - down) / (2 * step)
        grads.append(grad)
    return grads


# ----------------------------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("axes", [0, (0, 1, 2), (1, 2), -1, (2, 0), (0, 1, 2, 3)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_moments_over_any_axes(rng, axes, keepdims):
    x = rng.normal(3, 2, (4, 5, 6, 7))
    for backend in BACKENDS:
        mean, var = F.moments(x, axes, keepdims, backend=backend)
        assert mean.shape == x.mean(axes, keepdims=keepdims).shape
        assert_close(mean, x.mean(axes, keepdims=keepdims), "reduction")
        assert_close(var, x.var(axes, keepdims=keepdims), "reduction")


def test_weighted_moments(rng):
    x = rng.normal(3, 2, (20, 3))
    weights = rng.integers(0, 4, (20, 1))
    mean, var = F.moments(x, 0, weights=weights)
    repeated = np.repeat(x, weights[:, 0], axis=0)
    assert_close(mean, repeated.mean(axis=0), "reduction")
    assert_close(var, repeated.var(axis=0), "reduction")


def test_bad_moments():
    x = np.ones((3, 4))
    with pytest.raises(ArgumentError, match="axes \\(2,\\)"):
        F.moments(x, 2)
    with pytest.raises(ArgumentError, match="sum to 0"):
        F.moments(x, 0, weights=np.zeros((3, 1)))
    with pytest.raises(DTypeError, match=r"int64.*astype"):
        F.moments(np.arange(3), 0)
    with pytest.raises(ShapeError, match="empty"):
        F.moments(np.ones((0, 3)), 0)


# -------------------------------------------------------------------------------------------------- batch norm


def batch_norm_definition(x, gamma, beta, eps=1e-5, mean=None, var=None, weights=None):
    """Written out, for the differences."""
    rows = x.reshape(-1, x.shape[-1])
    if mean is None:
        w = np.ones(len(rows)) if weights is None else weights
        mean = w @ rows / w.sum()
        var = w @ (rows - mean) ** 2 / w.sum()
    return gamma * (x - mean) / np.sqrt(var + eps) + beta


@pytest.mark.parametrize("mode", ["train", "weights", "eval"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm(rng, mode, backend):
    x, dy = rng.normal(1, 2, (3, 2, 4, 3)), rng.standard_normal((3, 2, 4, 3))
    gamma, beta = rng.standard_normal(3), rng.standard_normal(3)
    options = {
        "train": {},
        "weights": {"weights": rng.random(24) * (rng.random(24) < 0.7)},
        "eval": {"mean": rng.standard_normal(3), "var": rng.random(3) + 0.5},
    }[mode]
    y, saved = F.batch_norm_forward(x, gamma, beta, eps=1e-3, backend=backend, **options)
    assert_close(y, batch_norm_definition(x, gamma, beta, 1e-3, **options), "reduction")
    grads = F.batch_norm_backward(dy, saved)
    wanted = differences(lambda *a: batch_norm_definition(*a, 1e-3, **options), [x, gamma, beta], dy)
    for grad, numeric in zip(grads, wanted):
        assert_close(grad, numeric, "differences")


def logistic(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm_with_activation_is_the_two_apart(rng, backend):
    x, dy = rng.standard_normal((50, 4)), rng.standard_normal((50, 4))
    gamma, beta = rng.standard_normal(4), rng.standard_normal(4)
    plain, plain_saved = F.batch_norm_forward(x, gamma, beta, backend=backend)
    for slope in (0.0, 0.3):
        y, saved = F.batch_norm_forward(x, gamma, beta, slope=slope, backend=backend)
        assert_close(y, np.where(plain > 0, plain, slope * plain), "elementwise")
        wanted = F.batch_norm_backward(dy * np.where(plain > 0, 1, slope), plain_saved)
        for a, b in zip(F.batch_norm_backward(dy, saved), wanted):
            assert_close(a, b, "reduction")
    for activation, function, slope_at in (("tanh", np.tanh, lambda y: 1 - y * y), ("sigmoid", logistic, lambda y: y * (1 - y))):
        y, saved = F.batch_norm_forward(x, gamma, beta, activation=activation, backend=backend)
        assert_close(y, function(plain), "elementwise")
        wanted = F.batch_norm_backward(dy * slope_at(y), plain_saved)
        for a, b in zip(F.batch_norm_backward(dy, saved), wanted):
            assert_close(a, b, "reduction")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"slope": 0.2}, {"activation": "tanh"}, {"max_pool": True}], ids=str)
def test_dy_that_may_be_overwritten(rng, options, backend):
    x = rng.standard_normal((3, 4, 4, 5))
    y, saved = F.batch_norm_forward(x, None, None, backend=backend, **options)
    dy = rng.standard_normal(y.shape)
    wanted, given = F.batch_norm_backward(dy, saved), dy.copy()
    found = F.batch_norm_backward(dy, saved, overwrite_dy=True)
    for a, b in zip(found, wanted):
        assert_close(a, b, "exact")
    if options == {"max_pool": True}:
        assert_close(dy, given, "exact")
    else:
        assert np.shares_memory(found[0], dy)


@pytest.mark.parametrize("activation", [None, "tanh", "sigmoid"])
def test_dy_is_left_alone(rng, activation):
    x, dy = rng.standard_normal((50, 4)), rng.standard_normal((50, 4))
    _, saved = F.batch_norm_forward(x, None, None, activation=activation)
    given = dy.copy()
    sums = F.batch_norm_backward_reduce(dy, saved)
    dx = F.batch_norm_backward_apply(dy, saved, sums)
    assert_close(F.batch_norm_backward(dy, saved)[0], dx, "elementwise")
    assert_close(dy, given, "exact")


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm_keeps_its_digits_far_from_zero(rng, backend):
    """Mean 1e4, deviation 1, in float32: the input is rounded to 1e-3, the output must be no worse than float32."""
    x = (1e4 + rng.standard_normal((4000, 3))).astype(np.float32)
    dy = rng.standard_normal((4000, 3)).astype(np.float32)
    gamma, beta = rng.standard_normal(3).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    y, saved = F.batch_norm_forward(x, gamma, beta, backend=backend)
    wanted, wanted_saved = F.batch_norm_forward(*(a.astype(np.float64) for a in (x, gamma, beta)), backend="numpy")
    assert_close(y, wanted, "reduction")
    for a, b in zip(F.batch_norm_backward(dy, saved), F.batch_norm_backward(dy.astype(np.float64), wanted_saved)):
        assert_close(a, b, "reduction")


def test_batch_normalization_is_tensorflows(rng):
    x, offset = rng.standard_normal((5, 3)), rng.standard_normal(3)
    mean, var = F.moments(x, 0)
    y = F.batch_normalization(x, mean, var, offset, None, 1e-3)
    assert_close(y, F.batch_norm_forward(x, None, offset, eps=1e-3)[0], "reduction")
    assert F.batch_normalization(x.astype(np.float32), mean, var, None, 2.0, 1e-3).dtype == np.float32


def test_bad_batch_norm():
    x, one = np.ones((4, 3)), np.ones(3)
    with pytest.raises(ShapeError, match="one value a channel"):
        F.batch_norm_forward(x[:1], one, one)
    with pytest.raises(ShapeError, match=r"gamma has shape \(4,\), wanted \(3,\)"):
        F.batch_norm_forward(x, np.ones(4), one)
    with pytest.raises(ArgumentError, match="mean and var belong together"):
        F.batch_norm_forward(x, one, one, mean=one)
    with pytest.raises(ArgumentError, match="must not sum to 0"):
        F.batch_norm_forward(x, one, one, weights=np.zeros(4))
    _, saved = F.batch_norm_forward(x, one, one)
    with pytest.raises(ShapeError, match=r"dy has shape \(3, 4\), wanted \(4, 3\)"):
        F.batch_norm_backward(x.T, saved)


# ----------------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("variant", ["inverted", "vanilla", "alpha"])
@pytest.mark.parametrize("noise_shape", [None, (40, 1, 1, 5), (1, 6, 7, 1)])
def test_dropout_is_the_same_everywhere(rng, variant, noise_shape):
    x, dy = rng.standard_normal((40, 6, 7, 5)), rng.standard_normal((40, 6, 7, 5))
    results = []
    for backend in BACKENDS:
        y, saved = F.dropout_forward(x, 0.3, seed=5, step=2, stream=1, variant=variant, noise_shape=noise_shape, backend=backend)
        assert all(part.size == 3 for part in saved if isinstance(part, np.ndarray))  # the counter: no mask is kept
        results.append((y, F.dropout_backward(dy, saved)))
    for y, dx in results[1:]:
        assert np.array_equal(dx == 0, results[0][1] == 0)
        assert_close(y, results[0][0], "elementwise")
        assert_close(dx, results[0][1], "elementwise")


@pytest.mark.parametrize("variant", ["inverted", "vanilla", "alpha"])
@pytest.mark.parametrize("train", [True, False])
def test_dropout_gradients(rng, variant, train):
    x, dy = rng.standard_normal((5, 4)), rng.standard_normal((5, 4))
    options = {"seed": 1, "variant": variant, "train": train, "backend": "serial"}
    _, saved = F.dropout_forward(x, 0.4, **options)
    (wanted,) = differences(lambda a: F.dropout_forward(a, 0.4, **options)[0], [x], dy)
    assert_close(F.dropout_backward(dy, saved), wanted, "differences")


def test_dropout_in_expectation():
    x = np.full(200_000, 3.0)
    error = 4 * 3 / np.sqrt(len(x))  # four standard errors, at most
    for rate in (0.1, 0.5, 0.9):
        y, _ = F.dropout_forward(x, rate, seed=1)
        assert abs(y.mean() - 3) < error * np.sqrt(rate / (1 - rate))
        vanilla, _ = F.dropout_forward(x, rate, seed=1, variant="vanilla")
        evaluated, _ = F.dropout_forward(x, rate, seed=1, variant="vanilla", train=False)
        assert_close(evaluated, np.full(len(x), 3 * (1 - rate)), "elementwise")
        assert abs(vanilla.mean() - evaluated[0]) < error * np.sqrt(rate * (1 - rate))


def test_alpha_dropout_keeps_mean_and_variance(rng):
    x = rng.standard_normal(400_000)
    y, _ = F.dropout_forward(x, 0.3, seed=1, variant="alpha")
    assert abs(y.mean()) < 4 / np.sqrt(len(x))
    assert abs(y.var() - 1) < 0.02


def test_dropout_limits():
    x = np.arange(1.0, 9.0)
    assert np.array_equal(F.dropout_forward(x, 0, seed=0)[0], x)
    assert np.array_equal(F.dropout_forward(x, 0.5, seed=0, train=False)[0], x)
    y, saved = F.dropout_forward(x, 1, seed=0)
    assert not y.any()
    assert not F.dropout_backward(x, saved).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.1}, "probability to drop"),
        ({"rate": float("nan")}, "probability to drop"),
        ({"rate": 0.5, "variant": "inverse"}, "did you mean 'inverted'"),
        ({"rate": 0.5, "seed": -1}, "seed=-1"),
        ({"rate": 0.5, "noise_shape": (2, 3)}, "noise_shape"),
    ],
)
def test_bad_dropout(options, message):
    with pytest.raises((ArgumentError, ShapeError), match=message):
        F.dropout_forward(np.ones((3, 3)), **({"seed": 0} | options))


# ------------------------------------------------------------------------------- convolution, dense and pooling


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "same"), ((2, 1), "valid"), (3, 2), (1, 0)])
def test_conv2d(rng, backend, stride, padding):
    x, weight, bias = rng.standard_normal((2, 7, 6, 2)), rng.standard_normal((3, 2, 2, 3)), rng.standard_normal(3)
    y, saved = F.conv2d_forward(x, weight, bias, stride=stride, padding=padding, backend=backend)
    dy = rng.standard_normal(y.shape)
    grads = F.conv2d_backward(dy, saved)
    wanted = differences(lambda *a: F.conv2d_forward(*a, stride=stride, padding=padding, backend="numpy")[0], [x, weight, bias], dy)
    for grad, numeric in zip(grads, wanted):
        assert_close(grad, numeric, "differences")


def test_conv2d_against_a_loop(rng):
    x, weight, bias = rng.standard_normal((2, 5, 6, 3)), rng.standard_normal((3, 3, 3, 4)), rng.standard_normal(4)
    y, _ = F.conv2d_forward(x, weight, bias, stride=2, padding=1)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for n, h, w, o in np.ndindex(y.shape):
        wanted = bias[o] + np.sum(padded[n, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3] * weight[..., o])
        assert_close(y[n, h, w, o], wanted, "matmul")


@pytest.mark.parametrize("backend", BACKENDS)
def test_dense(rng, backend):
    x, weight, bias, dy = rng.standard_normal((5, 4)), rng.standard_normal((4, 3)), rng.standard_normal(3), rng.standard_normal((5, 3))
    y, saved = F.dense_forward(x, weight, bias, backend=backend)
    assert_close(y, np.einsum("mi,io->mo", x, weight) + bias, "matmul")
    dx, dweight, dbias = F.dense_backward(dy, saved)
    assert_close(dx, np.einsum("mo,io->mi", dy, weight), "matmul")
    assert_close(dweight, np.einsum("mi,mo->io", x, dy), "matmul")
    assert_close(dbias, dy.sum(axis=0), "matmul")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_products_with_an_activation(rng, backend, slope):
    """y, and all gradients through the activation."""
    image, weight, bias = rng.standard_normal((2, 5, 4, 2)), rng.standard_normal((3, 2, 2, 3)), rng.standard_normal(3)
    for name, x, w in (("conv2d", image, weight), ("dense", image[0, :, :, 0].copy(), weight[0, 0].repeat(2, axis=0))):
        forward, backward = getattr(F, f"{name}_forward"), getattr(F, f"{name}_backward")
        plain, _ = forward(x, w, bias, backend=backend)
        y, saved = forward(x, w, bias, slope=slope, backend=backend)
        assert_close(y, np.where(plain > 0, plain, slope * plain), "exact")
        assert 0 < np.count_nonzero(plain > 0) < plain.size
        dy = rng.standard_normal(y.shape)
        wanted = differences(lambda *a, f=forward: f(*a, slope=slope, backend="numpy")[0], [x, w, bias], dy)
        for grad, numeric in zip(backward(dy, saved), wanted):
            assert_close(grad, numeric, "differences")
        with pytest.raises(ShapeError, match="dy has shape"):
            backward(dy[:, :1], saved)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, None, "valid"), (3, 2, "same"), ((3, 2), (1, 2), 1)])
def test_pools(rng, backend, size, stride, padding):
    x = rng.standard_normal((2, 7, 6, 3))
    for name in ("max_pool2d", "avg_pool2d"):
        forward, backward = getattr(F, f"{name}_forward"), getattr(F, f"{name}_backward")
        y, saved = forward(x, size, stride, padding, backend=backend)
        dy = rng.standard_normal(y.shape)
        (wanted,) = differences(lambda a, f=forward: f(a, size, stride, padding, backend="numpy")[0], [x], dy)
        assert_close(backward(dy, saved), wanted, "differences")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 2, 4))), r"x has 3 channels, but weight has shape \(3, 3, 2, 4\)"),
        (lambda x: F.conv2d_forward(x[0], np.ones((3, 3, 3, 4))), r"wanted 4 axes \(N, H, W, C\)"),
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 3, 4), np.float32)), "weight has dtype float32, wanted float64"),
        (lambda x: F.conv2d_forward(x, np.ones((9, 9, 3, 4)), padding="valid"), "does not fit an image of height 8"),
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 3, 4)), np.ones(3)), r"bias has shape \(3,\), wanted \(4,\)"),
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 3, 4)), stride=0), "stride=0"),
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 3, 4)), padding="full"), "padding='full'"),
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 3, 4)), slope=-0.1), r"slope=-0\.1: wanted 1 \(no activation\), 0 \(ReLU\)"),
        (lambda x: F.dense_forward(x[0, 0], np.ones((3, 4)), slope=float("nan")), "slope=nan"),
        (lambda x: F.dense_forward(x, np.ones((3, 4))), "x has shape .*, wanted 2 axes"),
        (lambda x: F.dense_forward(x[0, 0], np.ones((4, 4))), "3 features"),
        (
            lambda x: F.batch_norm_forward(x, None, None, activation="relu"),
            "unknown activation 'relu'.*; for ReLU and leaky ReLU give slope=",
        ),
        (lambda x: F.batch_norm_forward(x, None, None, activation="tanh", slope=0.0), "activation='tanh' with slope=0.0: one of them"),
        (lambda x: F.batch_norm_forward(x, None, None, activation="tanh", max_pool=True), "activation='tanh' with max_pool=True"),
        (lambda x: F.max_pool2d_forward(x, 9), "does not fit"),
        (lambda x: F.avg_pool2d_forward(x, 2, padding=2), "some windows would hold no pixel"),
        (lambda x: F.max_pool2d_forward(x, 2, backend="gpu"), "unknown backend 'gpu'"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(nb.NbnetError, match=message):
        call(np.ones((2, 8, 8, 3)))


# --------------------------------------------------------------------------------- a batch in parts, as if it were one


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_accumulated_batch_norm_is_the_whole_batch(rng, dtype, weighted, activation):
    """Statistics of 8 micro-batches of different sizes, one of them empty, give the gradients of the whole batch."""
    x, dy = rng.normal(3, 2, (53, 4, 6)).astype(dtype), rng.standard_normal((53, 4, 6)).astype(dtype)
    gamma, beta = rng.standard_normal(6).astype(dtype), rng.standard_normal(6).astype(dtype)
    weights = rng.random((53, 4)).astype(dtype) if weighted else None
    y, saved = F.batch_norm_forward(x, gamma, beta, weights=weights, activation=activation)
    dx, dgamma, dbeta = F.batch_norm_backward(dy, saved)

    cuts = [1, 3, 3, 10, 20, 21, 40]
    parts, dparts = np.split(x, cuts), np.split(dy, cuts)
    wparts = [None] * 8 if weights is None else np.split(weights, cuts)
    stats = [F.batch_norm_stats(part, w) for part, w in zip(parts, wparts)]
    assert stats[2].count == 0
    merged = F.merge_stats(stats)
    applied = [F.batch_norm_apply(part, merged, gamma, beta, weights=w, activation=activation) for part, w in zip(parts, wparts)]
    sums = [F.batch_norm_backward_reduce(dpart, part_saved) for dpart, (_, part_saved) in zip(dparts, applied)]
    total = F.Sums(sum(s.g for s in sums), sum(s.gd for s in sums))
    dxs = [F.batch_norm_backward_apply(dpart, part_saved, total) for dpart, (_, part_saved) in zip(dparts, applied)]

    assert_close(np.concatenate([part_y for part_y, _ in applied]), y, "elementwise")
    assert_close(np.concatenate(dxs), dx, "reduction")
    assert_close(total.g, dbeta, "reduction")
    assert_close(total.gd * saved.inv_std, dgamma, "reduction")


def test_statistics_of_parts(rng):
    x = rng.normal(1e4, 1, (100, 3))
    mean, m2, count = F.merge_stats(F.batch_norm_stats(part) for part in np.array_split(x, 7))
    near = x - 1e4
    assert count == 100
    assert_close(mean - 1e4, near.mean(axis=0), "training")
    assert_close(m2, ((near - near.mean(axis=0)) ** 2).sum(axis=0), "reduction")
    with pytest.raises(ArgumentError, match="no parts"):
        F.merge_stats([])


# ---------------------------------------------------------------------------------------------- the dropout mask


def mask_bytes(backend, size=1_000_003):
    y, _ = F.dropout_forward(np.ones(size, np.float32), 0.3, seed=2**63 + 11, step=2**32 - 1, stream=7, backend=backend)
    return np.packbits(y != 0).tobytes()


def test_a_mask_is_the_same_bytes_everywhere():
    wanted = mask_bytes("numpy")
    assert mask_bytes("serial") == wanted
    threads = numba.get_num_threads()
    try:
        for count in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(count)
            assert mask_bytes("parallel") == wanted
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_keep_rate_is_within_four_standard_errors(rate):
    size = 10_000_000
    y, _ = F.dropout_forward(np.ones(size, np.float32), rate, seed=1)
    assert abs(np.count_nonzero(y) / size - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / size)


@pytest.mark.parametrize("wrong", [{"stride": 1.0}, {"stride": True, "padding": True}, {"padding": True}, {"stride": np.ones(2)}], ids=str)
def test_conv2d_checks_its_options_each_time(wrong):
    """Also where equal numbers of another type were right before: 1 == 1.0 == True."""
    x, weight = np.ones((1, 5, 5, 2)), np.ones((3, 3, 2, 4))
    F.conv2d_forward(x, weight, stride=1, padding=1, backend="numpy")
    F.conv2d_forward(x, weight, stride=1, backend="numpy")
    with pytest.raises(ArgumentError):
        F.conv2d_forward(x, weight, backend="numpy", **wrong)
