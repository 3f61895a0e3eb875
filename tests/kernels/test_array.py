import numpy as np
import pytest

from nbnet.kernels import chunks

from .harness import COMPILED, DTYPES, Out, check, large, not_simulated, run, simulated

SIZES = [1, 7, *simulated(200), *large(1000, 70001)]
SHAPES = [(1, 1, 1, 1), (2, 3, 4, 1), (1, 5, 2, 3), *large((3, 200, 170, 2))]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
sizes = pytest.mark.parametrize("size", SIZES)


@not_simulated
def test_sizes_make_several_chunks():
    assert chunks.count(SIZES[-1], 1) == 2
    assert chunks.count(3 * 170, 200 * 2) > 1


@pytest.mark.parametrize("op", ["add", "multiply"])
@dtypes
@sizes
def test_two_arrays(rng, dtype, size, op):
    a, b = rng.normal(size=size), rng.normal(size=size)
    check(f"array.{op}", dtype, "elementwise", [a, b, Out((size,))])


@dtypes
@sizes
def test_scale(rng, dtype, size):
    check("array.scale", dtype, "elementwise", [rng.normal(size=size), -0.3, Out((size,))])


@dtypes
@sizes
def test_squares(rng, dtype, size):
    (total,) = check("array.squares", dtype, "reduction", [rng.normal(size=size), Out((1,), np.float64)])
    assert total[0] > 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@dtypes
def test_swap(rng, dtype, shape):
    x = rng.normal(size=shape)
    check("array.swap", dtype, "exact", [x, Out((shape[0], shape[2], shape[1], shape[3]))])


ROWS = [(1, 1, 1), (2, 5, 3), (3, 1, 9), *large((5, 9, 70), (3, 300, 65), (130, 40, 16))]


@not_simulated
def test_rows_make_several_chunks():
    assert chunks.count(130 * 40, 16) > 1
    assert chunks.count(130, 40 * 16) > 1


@pytest.mark.parametrize(("first", "at", "count"), [(0, 0, 3), (1, 4, 2), (2, 0, 1)])
@pytest.mark.parametrize("rows", [1, 5, *large(40000)])
@dtypes
def test_copy_columns(rng, dtype, rows, first, at, count):
    """Other columns stay."""
    x, y = rng.normal(size=(rows, 3)), rng.normal(size=(rows, 6))
    (result,) = check("array.copy_columns", dtype, "exact", [x, first, Out(start=y), at, count])
    assert result.shape == (rows, 6)


@pytest.mark.parametrize("shape", ROWS, ids=str)
@dtypes
def test_multiply_rows(rng, dtype, shape):
    a, b = rng.normal(size=shape), rng.normal(size=(shape[0], shape[2]))
    check("array.multiply_rows", dtype, "elementwise", [a, b, Out(shape)])


@pytest.mark.parametrize("shape", ROWS, ids=str)
@dtypes
def test_multiply_sum(rng, dtype, shape):
    a, b = rng.normal(size=shape), rng.normal(size=shape)
    check("array.multiply_sum", dtype, "reduction", [a, b, Out((shape[0], shape[2]))])


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_multiply_sum_of_extremes(backend):
    """Float32 sums run in float64: 1 beside 2^30 is not lost, products may exceed float32; NaN and infinity stay in their column."""
    a = np.array([[2.0**30, 3e38, np.inf, np.nan], [1, 3e38, 1, 1], [-(2.0**30), 0, 1, 1]]).reshape(1, 3, 4)
    b = np.array([[1, 2, 1, 1], [1, -1, 1, 1], [1, 5, 1, 1]], float).reshape(1, 3, 4)
    (y,) = run("array.multiply_sum", backend, "float32", [a, b, Out((1, 4))])
    np.testing.assert_array_equal(y, np.array([[1, 3e38, np.inf, np.nan]], np.float32))
