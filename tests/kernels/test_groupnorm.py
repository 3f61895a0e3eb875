import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks

from .harness import COMPILED, DTYPES, SIMULATED, Out, call, check, differences, large, not_simulated, run, simulated

# (N, P, C), groups: one value per channel, narrow and wide groups, rows of one point and images, one chunk and several
CASES = [
    ((1, 1, 2), 1),
    ((5, 1, 12), 3),
    ((3, 7, 12), 4),
    ((4, 5, 6), 6),
    *simulated(((2, 1, 130), 1), ((3, 10, 4), 2)),
    *large(((700, 1, 130), 1), ((300, 1, 260), 20), ((40, 60, 34), 1), ((40, 64, 32), 16), ((40, 60, 33), 33)),
]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
cases = pytest.mark.parametrize(("shape", "groups"), CASES, ids=str)
centering = pytest.mark.parametrize("centered", [True, False], ids=["centered", "rms"])
TINY = 2.0**-1060  # a subnormal eps


def scratch(shape, arrays):
    return Out((chunks.count(shape[0], shape[1] * shape[2]), arrays, shape[2]), np.float64, scratch=True)


def statistics(shape, groups):
    return Out((shape[0], groups), np.float64)


def forward_args(x, groups, gamma, beta, eps=1e-5, centered=True):
    outputs = scratch(x.shape, 3), statistics(x.shape, groups), statistics(x.shape, groups), Out(x.shape)
    return [x, groups, gamma, beta, eps, centered, *outputs]


def backward_args(dy, x, groups, gamma, mean, inv_std, centered=True):
    return [dy, x, groups, gamma, mean, inv_std, centered, scratch(x.shape, 6), Out(gamma.shape), Out(gamma.shape), Out(x.shape)]


def definition(x, groups, gamma, beta, eps=1e-5, centered=True):
    """The formula, group by group."""
    y = np.empty(x.shape)
    width = x.shape[2] // groups
    for n in range(x.shape[0]):
        for g in range(groups):
            part = x[n, :, g * width : (g + 1) * width]
            part = part - part.mean() if centered else part
            y[n, :, g * width : (g + 1) * width] = part / np.sqrt((part**2).mean() + eps)
    return y * gamma + beta


@not_simulated
def test_cases_make_several_chunks():
    assert sorted({chunks.count(shape[0], shape[1] * shape[2]) for shape, _ in CASES}) == [1, 2]


@dtypes
@centering
@cases
def test_forward(rng, dtype, shape, groups, centered):
    x, gamma, beta = rng.normal(1, 2, shape), rng.normal(size=shape[2]), rng.normal(size=shape[2])
    _, _, y = check("groupnorm.forward", dtype, "reduction", forward_args(x, groups, gamma, beta, centered=centered))
    assert_close(y, definition(x, groups, gamma, beta, centered=centered), "reduction", dtype)


@dtypes
@centering
@cases
def test_backward(rng, dtype, shape, groups, centered):
    x, dy, gamma, beta = rng.normal(1, 2, shape), rng.normal(size=shape), rng.normal(size=shape[2]), rng.normal(size=shape[2])
    mean, inv_std, _ = run("groupnorm.forward", "numpy", "float64", forward_args(x, groups, gamma, beta, centered=centered))
    check("groupnorm.backward", dtype, "reduction", backward_args(dy, x, groups, gamma, mean, inv_std, centered))


@centering
@pytest.mark.parametrize(("shape", "groups"), [((3, 1, 6), 2), ((4, 1, 5), 1), ((2, 3, 6), 3), ((2, 4, 3), 1), ((2, 3, 4), 4)], ids=str)
def test_gradients(rng, shape, groups, centered):
    """Of all three inputs, through the statistics."""
    x, dy, gamma, beta = rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=shape[2]), rng.normal(size=shape[2])

    def gradients(backend):
        mean, inv_std, _ = run("groupnorm.forward", backend, "float64", forward_args(x, groups, gamma, beta, centered=centered))
        return run("groupnorm.backward", backend, "float64", backward_args(dy, x, groups, gamma, mean, inv_std, centered))

    expected = [
        differences(lambda a: definition(x, groups, a, beta, centered=centered), gamma, dy),
        differences(lambda a: definition(x, groups, gamma, a, centered=centered), beta, dy),
        differences(lambda a: definition(a, groups, gamma, beta, centered=centered), x, dy),
    ]
    for backend in ("numpy", *COMPILED):
        for actual, numeric in zip(gradients(backend), expected, strict=True):
            assert_close(actual, numeric, "differences")


@pytest.mark.parametrize(("dtype", "offset"), [("float32", 1e4), ("float32", -1e6), ("float64", 1e4)])
@pytest.mark.parametrize(
    ("shape", "groups"), [((4, 1, 30), 1), ((2, 5, 12), 4)] if SIMULATED else [((20, 1, 300), 1), ((20, 30, 12), 4)], ids=str
)
def test_far_from_zero(rng, dtype, shape, groups, offset):
    """Deviation 1 around a mean of 1e4: the sum of squares minus the squared mean would lose all digits in float32."""
    x = rng.normal(offset, 1, shape).astype(dtype).astype(np.float64)
    gamma, beta, dy = rng.normal(size=shape[2]), rng.normal(size=shape[2]), rng.normal(size=shape)
    mean, inv_std, _ = check("groupnorm.forward", dtype, "reduction", forward_args(x, groups, gamma, beta))
    check("groupnorm.backward", dtype, "reduction", backward_args(dy, x, groups, gamma, mean, inv_std))
    centred = x - offset  # exact: the variance, to the last digit
    grouped = centred.reshape(shape[0], shape[1], groups, -1)
    assert_close(inv_std, 1 / np.sqrt(grouped.var(axis=(1, 3)) + 1e-5), "reduction")


@pytest.mark.parametrize("first", [0.0, -1e8])
@pytest.mark.parametrize("shape", [(3, 1, 200), (3, 50, 4)], ids=str)
def test_a_first_value_far_from_the_others(rng, shape, first):
    """Sums are about the first value of a group; a single pass about it would lose precision that the second pass keeps."""
    x = rng.normal(1e8, 1, shape)
    x[:, 0, 0] = first
    check("groupnorm.forward", "float64", "reduction", forward_args(x, 1, np.ones(shape[2]), np.zeros(shape[2])))


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@pytest.mark.parametrize("eps", [0.0, TINY, 1e-5])
@pytest.mark.parametrize("shape", [(3, 1, 6), (3, 5, 6)], ids=str)
@dtypes
def test_constant_groups(dtype, shape, eps, backend):
    """The variance is exactly 0, and for any small eps xhat is 0, not NaN."""
    x = np.broadcast_to([0.1, 0.1, 0.1, 1e4 + 0.1, 1e4 + 0.1, 1e4 + 0.1], shape).copy()
    gamma, beta = np.full(6, 3.0), np.arange(6.0)
    mean, _, y = run("groupnorm.forward", backend, dtype, forward_args(x, 2, gamma, beta, eps))
    assert_close(mean, np.broadcast_to(x[0, 0, ::3].astype(dtype), (3, 2)), "exact")
    assert_close(y, np.broadcast_to(beta, shape), "exact")


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@pytest.mark.parametrize("shape", [(9, 1, 6), (9, 5, 6)], ids=str)
@dtypes
def test_in_place(rng, dtype, shape, backend):
    """y may be x, and dx may be dy."""
    x, dy, gamma, beta = (rng.normal(size=s).astype(dtype) for s in (shape, shape, 6, 6))
    mean, inv_std, work = np.empty((9, 2)), np.empty((9, 2)), np.empty((1, 6, 6))
    y, dx, dgamma, dbeta = np.empty_like(x), np.empty_like(x), np.empty_like(gamma), np.empty_like(beta)
    call("groupnorm.forward", backend, x, 2, gamma, beta, 1e-5, True, work[:, :3], mean, inv_std, y)
    call("groupnorm.backward", backend, dy, x, 2, gamma, mean, inv_std, True, work, dgamma, dbeta, dx)
    call("groupnorm.backward", backend, dy, x, 2, gamma, mean, inv_std, True, work, dgamma, dbeta, dy)
    call("groupnorm.forward", backend, x, 2, gamma, beta, 1e-5, True, work[:, :3], mean, inv_std, x)
    assert_close(x, y, "exact")
    assert_close(dy, dx, "exact")


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("shape", [(9, 1, 6), (9, 5, 6)], ids=str)
@dtypes
def test_nan_stays_in_its_group(rng, dtype, shape, backend):
    x = rng.normal(size=shape)
    x[4, -1, 4] = np.nan
    mean, inv_std, y = run("groupnorm.forward", backend, dtype, forward_args(x, 2, np.ones(6), np.zeros(6)))
    group = np.zeros(shape, bool)
    group[4, :, 3:] = True
    assert np.argwhere(np.isnan(mean)).tolist() == [[4, 1]]
    assert np.argwhere(np.isnan(inv_std)).tolist() == [[4, 1]]
    np.testing.assert_array_equal(np.isnan(y), group)


def test_backward_of_fixed_statistics_is_not_the_gradient(rng):
    """The check above can fail: without the terms of the statistics, dx is wrong."""
    shape, gamma, beta = (3, 1, 6), rng.normal(size=6), rng.normal(size=6)
    x, dy = rng.normal(size=shape), rng.normal(size=shape)
    _, inv_std, _ = run("groupnorm.forward", "numpy", "float64", forward_args(x, 1, gamma, beta))
    expected = differences(lambda a: definition(a, 1, gamma, beta), x, dy)
    with pytest.raises(AssertionError, match="differences equal"):
        assert_close(dy * gamma * inv_std[:, :, None], expected, "differences")
