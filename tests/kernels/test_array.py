import numpy as np
import pytest

from nbnet.kernels import chunks

from .harness import DTYPES, Out, check, large, not_simulated, simulated

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
