import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks
from nbnet.kernels.activations import SMOOTH

from .harness import (
    COMPILED,
    DTYPES,
    SIMULATED,
    Out,
    call,
    check,
    check_gradient,
    differences,
    large,
    not_simulated,
    output_of,
    run,
    simulated,
)

SHAPES = [
    (1, 1),
    (2, 3),
    (7, 17),
    *simulated((61, 1), (37, 3), (11, 8), (5, 40), (3, 26)),
    *large((70000, 1), (30000, 3), (9000, 17), (5000, 64)),
]
MANY = 40 if SIMULATED else 30000  # rows
SLOPES = [1.0, 0.0, 0.2]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def partials(shape):
    return Out((chunks.count(*shape), 3, shape[1]), np.float64, scratch=True)


def weights_of(rng, shape, weighted):
    """None, one weight per row, or one per element."""
    if weighted == "none":
        return None
    return rng.uniform(0.1, 2, (shape[0], 1 if weighted == "rows" else shape[1]))


def sums(shape, precision=None):
    return Out((shape[1],), np.float64, precision=precision)


def affine(rng, channels):
    """center, scale, shift: scales of both signs."""
    return rng.normal(size=channels), rng.normal(size=channels), rng.normal(size=channels)


@not_simulated
def test_shapes_make_several_chunks():
    assert sorted({chunks.count(*shape) for shape in SHAPES}) == [1, 2, 4, 8]


@pytest.mark.parametrize("weighted", ["none", "rows", "elements"])
@dtypes
@shapes
def test_moments(rng, dtype, shape, weighted):
    weights = weights_of(rng, shape, weighted)
    # sums run in float64, so float32 data get float64's tolerance
    check("batchnorm.moments", dtype, "reduction", [rng.normal(size=shape), weights, partials(shape), *[sums(shape, "float64")] * 2])


@pytest.mark.parametrize("weighted", ["none", "rows", "elements"])
@pytest.mark.parametrize("offset", [1e4, -1e6])
@dtypes
def test_moments_far_from_zero(rng, dtype, offset, weighted):
    """Deviation 1 around a mean of 1e4: the sum of squares minus the squared mean would lose all digits in float32."""
    shape = (MANY, 3)
    x, weights = rng.normal(offset, 1, shape), weights_of(rng, shape, weighted)
    check("batchnorm.moments", dtype, "reduction", [x, weights, partials(shape), *[sums(shape, "float64")] * 2])


@pytest.mark.parametrize("weighted", ["none", "rows", "elements"])
@pytest.mark.parametrize("backend", COMPILED)
@dtypes
def test_moments_of_a_constant_channel(rng, dtype, backend, weighted):
    shape = (MANY, 3)
    x, weights = np.broadcast_to([0.1, 1e4 + 0.1, -3.7e7], shape).copy(), weights_of(rng, shape, weighted)
    mean, m2 = run("batchnorm.moments", backend, dtype, [x, weights, partials(shape), sums(shape), sums(shape)])
    assert_close(mean, x[0].astype(dtype), "exact")
    assert_close(m2, np.zeros(3), "exact")


@pytest.mark.parametrize("slope", SLOPES)
@dtypes
@shapes
def test_apply(rng, dtype, shape, slope):
    check("batchnorm.apply", dtype, "elementwise", [rng.normal(size=shape), *affine(rng, shape[1]), slope, Out(shape)])


@pytest.mark.parametrize("weighted", ["none", "rows", "elements"])
@pytest.mark.parametrize("slope", SLOPES)
@dtypes
@shapes
def test_backward_reduce(rng, dtype, shape, slope, weighted):
    dy, x, weights = rng.normal(size=shape), rng.normal(size=shape), weights_of(rng, shape, weighted)
    outputs = [partials(shape), sums(shape), sums(shape)]
    check("batchnorm.backward_reduce", dtype, "reduction", [dy, x, weights, *affine(rng, shape[1]), slope, *outputs])


@pytest.mark.parametrize("weighted", ["none", "rows", "elements"])
@pytest.mark.parametrize("slope", SLOPES)
@dtypes
@shapes
def test_backward_apply(rng, dtype, shape, slope, weighted):
    dy, x = rng.normal(size=shape), rng.normal(size=shape)
    weights = weights_of(rng, shape, weighted)
    check(
        "batchnorm.backward_apply",
        dtype,
        "elementwise",
        [dy, x, weights, *affine(rng, shape[1]), slope, *affine(rng, shape[1]), Out(shape)],
    )


@pytest.mark.parametrize("slope", SLOPES)
@dtypes
def test_an_exact_zero_is_not_positive(rng, dtype, slope):
    """Small whole numbers: many inputs of the activation are exactly 0, where its derivative is the slope."""
    shape, image = (11, 5), (2, 4, 5, 3)
    for size in (shape, image):
        x, dy, channels = rng.integers(-2, 3, size).astype(np.float64), rng.normal(size=size), size[-1]
        numbers = [rng.integers(-1, 2, channels).astype(np.float64), np.ones(channels), rng.integers(-1, 2, channels).astype(np.float64)]
        assert ((x - numbers[0]) * numbers[1] + numbers[2] == 0).any()
        if size == shape:
            check("batchnorm.backward_reduce", dtype, "reduction", [dy, x, None, *numbers, slope, partials(size), sums(size), sums(size)])
            for weights in (None, np.ones((size[0], 1))):
                check(
                    "batchnorm.backward_apply", dtype, "elementwise", [dy, x, weights, *numbers, slope, *affine(rng, channels), Out(size)]
                )
        else:
            first, out = [dy[:, ::2, ::2][:, :2, :2].copy(), x, *numbers, slope], Out((channels,), np.float64, precision=dtype)
            check("batchnorm.backward_reduce_max_pool", dtype, "reduction", [*first, pool_partials(size), out, out])
            check("batchnorm.backward_apply_max_pool", dtype, "elementwise", [*first, *affine(rng, channels), Out(size)])


OPTIONS = {"elu": (1.3, 1.1, 0.7), "softplus": (0.8, 12.0), "hardtanh": (-0.5, 0.75)}
# each on one shape; those with the most different code on all of them
SMOOTH_CASES = [(name, shape) for name in SMOOTH for shape in (SHAPES if name in ("tanh", "gelu", "hardtanh") else SHAPES[2:3])]
smooth = pytest.mark.parametrize(("name", "shape"), SMOOTH_CASES, ids=str)


@smooth
@dtypes
def test_apply_smooth(rng, dtype, name, shape):
    args = [rng.normal(size=shape), *affine(rng, shape[1]), *OPTIONS.get(name, ()), Out(shape)]
    check(f"batchnorm.apply_{name}", dtype, "elementwise", args)


@smooth
@dtypes
def test_backward_reduce_smooth(rng, dtype, name, shape):
    dy, y, x = rng.normal(size=shape), rng.uniform(-1, 1, shape), rng.normal(size=shape)
    outputs = [partials(shape), Out(shape), sums(shape), sums(shape)]
    check(f"batchnorm.backward_reduce_{name}", dtype, "reduction", [dy, y, x, *affine(rng, shape[1]), *OPTIONS.get(name, ()), *outputs])


IMAGES = [
    (1, 2, 2, 1),
    (2, 5, 7, 3),
    (3, 4, 2, 17),
    (2, 1, 5, 2),
    *simulated((3, 5, 6, 8), (2, 6, 9, 4), (1, 2, 4, 36)),
    *large((9, 33, 30, 16), (5, 24, 24, 70)),
]
images = pytest.mark.parametrize("shape", IMAGES, ids=str)


def pooled(shape):
    return shape[0], shape[1] // 2, shape[2] // 2, shape[3]


def pool_partials(shape):
    return Out((max(1, chunks.count(shape[0] * (shape[1] // 2), 2 * shape[2] * shape[3])), 3, shape[3]), np.float64, scratch=True)


@pytest.mark.parametrize("slope", SLOPES)
@dtypes
@images
def test_max_pool(rng, dtype, shape, slope):
    """Batch norm, activation and pool in one pass, also for images with an odd last row or column, which no window covers."""
    dy, x, channels = rng.normal(size=pooled(shape)), rng.normal(size=shape), shape[-1]
    first = [x, *affine(rng, channels), slope]
    check("batchnorm.apply_max_pool", dtype, "elementwise", [*first, Out(dy.shape)])
    out = Out((channels,), np.float64, precision=dtype)
    check("batchnorm.backward_reduce_max_pool", dtype, "reduction", [dy, *first, pool_partials(shape), out, out])
    check("batchnorm.backward_apply_max_pool", dtype, "elementwise", [dy, *first, *affine(rng, channels), Out(shape)])


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@dtypes
def test_max_pool_is_apply_and_then_pool(rng, dtype, backend, slope, channels):
    """The winners are those of nbnet.kernels.pool, also for equal values: x has few distinct numbers."""
    shape = (2, 5, 6, channels)
    x, dy = rng.integers(-2, 3, shape).astype(dtype), rng.normal(size=pooled(shape)).astype(dtype)
    numbers = [v.astype(dtype) for v in affine(rng, channels)]
    rows, y, z, g = x.reshape(-1, channels), np.empty_like(x), np.empty_like(dy), np.empty_like(x)
    call("batchnorm.apply", backend, rows, *numbers, slope, y.reshape(-1, channels))
    call("pool.max_forward", backend, y, 2, 2, 2, 2, 0, 0, z)
    call("pool.max_backward", backend, dy, y, 2, 2, 2, 2, 0, 0, g)
    fused = np.empty_like(dy)
    call("batchnorm.apply_max_pool", backend, x, *numbers, slope, fused)
    assert_close(fused, z, "elementwise")
    expected, dx = np.empty_like(x), np.empty_like(x)
    zeros = np.zeros(channels, dtype)
    call(
        "batchnorm.backward_apply",
        backend,
        g.reshape(-1, channels),
        rows,
        None,
        *numbers,
        slope,
        numbers[1],
        zeros,
        zeros,
        expected.reshape(-1, channels),
    )
    call("batchnorm.backward_apply_max_pool", backend, dy, x, *numbers, slope, numbers[1], zeros, zeros, dx)
    assert_close(dx, expected, "elementwise")


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("channels", [2, 4])
def test_max_pool_keeps_nan(rng, backend, channels):
    """And its pixel is the winner."""
    x, numbers = rng.normal(size=(1, 4, 4, channels)), (np.zeros(channels), np.ones(channels), np.zeros(channels))
    x[0, 3, 2, 1] = np.nan
    (y,) = run("batchnorm.apply_max_pool", backend, "float32", [x, *numbers, 0.0, Out((1, 2, 2, channels))])
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 1, 1, 1]]
    coefficients, dy = (np.ones(channels), np.zeros(channels), np.zeros(channels)), np.ones(y.shape)
    (dx,) = run("batchnorm.backward_apply_max_pool", backend, "float32", [dy, x, *numbers, 0.5, *coefficients, Out(x.shape)])
    assert np.argwhere(np.isnan(dx)).tolist() == [[0, 3, 2, 1]]
    assert (dx[0, 2:, 2:, 1] == 0).sum() == 3


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@dtypes
def test_in_place(rng, dtype, backend):
    """y may be x, and dx may be dy."""
    x, dy = rng.normal(size=(40, 3)).astype(dtype), rng.normal(size=(40, 3)).astype(dtype)
    c = [v.astype(dtype) for v in (*affine(rng, 3), *affine(rng, 3))]
    y, dx = np.empty_like(x), np.empty_like(x)
    call("batchnorm.apply", backend, x, *c[:3], 0.2, y)
    call("batchnorm.backward_apply", backend, dy, x, None, *c[:3], 0.2, *c[3:], dx)
    call("batchnorm.backward_apply", backend, dy, x, None, *c[:3], 0.2, *c[3:], dy)
    call("batchnorm.apply", backend, x, *c[:3], 0.2, x)
    assert_close(x, y, "exact")
    numbers = [np.empty(partials(x.shape).shape), np.empty(3), np.empty(3)]
    call("batchnorm.backward_reduce_tanh", backend, dy, y, x, *c[:3], numbers[0], dx, *numbers[1:])
    call("batchnorm.backward_reduce_tanh", backend, dy, y, x, *c[:3], numbers[0], dy, *numbers[1:])
    call("batchnorm.apply_tanh", backend, x, *c[:3], y)
    call("batchnorm.apply_tanh", backend, x, *c[:3], x)
    assert_close(x, y, "exact")
    assert_close(dy, dx, "exact")


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_mean_1e4_deviation_1_in_float32(rng, backend):
    """Moments and apply together, with the mean split into a float32 center and a shift as the contract says."""
    shape, eps = (50 if SIMULATED else 5000, 4), 1e-5
    x = rng.normal(1e4, 1, shape).astype(np.float32).astype(np.float64)
    mean, m2 = run("batchnorm.moments", backend, "float32", [x, None, partials(shape), sums(shape), sums(shape)])
    center, scale = mean.astype(np.float32).astype(np.float64), 1 / np.sqrt(m2 / len(x) + eps)
    (y,) = run("batchnorm.apply", backend, "float32", [x, center, scale, (center - mean) * scale, 1.0, Out(shape)])
    assert_close(y, (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps), "elementwise")


@pytest.mark.parametrize("backend", COMPILED)
@dtypes
def test_nan_reaches_the_result(rng, dtype, backend):
    shape = (MANY, 3)
    x = rng.normal(size=shape)
    x[MANY - 5, 1] = np.nan
    mean, m2 = run("batchnorm.moments", backend, dtype, [x, None, partials(shape), sums(shape), sums(shape)])
    assert np.isnan(mean).tolist() == [False, True, False]
    assert np.isnan(m2).tolist() == [False, True, False]
    (y,) = run("batchnorm.apply", backend, dtype, [x, np.zeros(3), np.ones(3), np.zeros(3), 0.0, Out(shape)])
    assert np.argwhere(np.isnan(y)).tolist() == [[MANY - 5, 1]]


@pytest.mark.parametrize("slope", SLOPES)
def test_gradient_with_frozen_statistics(rng, slope):
    """With a = scale and b = c = 0, backward_apply is the gradient of apply alone."""
    shape = (5, 3)
    x, dy, frozen = rng.normal(size=shape), rng.normal(size=shape), affine(rng, 3)
    args = [dy, x, None, *frozen, slope, frozen[1], np.zeros(3), np.zeros(3), Out(shape)]
    check_gradient(lambda x: output_of("batchnorm.apply", [x, *frozen, slope, Out(shape)]), "batchnorm.backward_apply", args, x, dy)


@pytest.mark.parametrize("weighted", ["none", "rows", "elements"])
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_gradient_through_batch_statistics(rng, backend, slope, weighted):
    """Complete batch normalisation, from the four kernels and arithmetic on C numbers."""
    shape, eps = (6, 3), 1e-3
    x, dy, gamma, beta = rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=3), rng.normal(size=3)
    w = weights_of(rng, shape, weighted)
    if w is not None:
        w[2] = 0
    total = shape[0] if w is None else w.sum(axis=0)

    def statistics(x, backend="numpy"):
        mean, m2 = run("batchnorm.moments", backend, "float64", [x, w, partials(shape), sums(shape), sums(shape)])
        return mean, 1 / np.sqrt(m2 / total + eps)

    def forward(x):
        mean, inv_std = statistics(x)
        return output_of("batchnorm.apply", [x, mean, gamma * inv_std, beta, slope, Out(shape)])

    mean, inv_std = statistics(x, backend)
    scale = gamma * inv_std
    reduced = [dy, x, w, mean, scale, beta, slope, partials(shape), sums(shape), sums(shape)]
    sum_g, sum_gx = run("batchnorm.backward_reduce", backend, "float64", reduced)
    b, c = -scale * sum_g / total, -scale * inv_std**2 * sum_gx / total
    (dx,) = run("batchnorm.backward_apply", backend, "float64", [dy, x, w, mean, scale, beta, slope, scale, b, c, Out(shape)])
    assert_close(dx, differences(forward, x, dy), "differences")
