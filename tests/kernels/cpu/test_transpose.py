"""Transposition against NumPy: whole blocks, the edges, and nothing outside."""

import numpy as np
import pytest
from numba import njit

from nbnet.kernels.cpu.transpose import transpose


@njit
def run(source, at, stride, rows, columns, target, to, target_stride):
    transpose(source, at, stride, rows, columns, target, to, target_stride)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (32, 48), (17, 35), (8, 24), (40, 3), (1, 1), (0, 5), (5, 0)])
def test_transpose(rng, rows, columns, dtype):
    stride, target_stride = columns + 3, rows + 2
    source = rng.normal(size=5 + rows * stride).astype(dtype)
    target = np.full(7 + columns * target_stride, 9, dtype)
    expected = target.copy()
    matrix = source[5:].reshape(rows, stride)[:, :columns]
    expected[7:].reshape(columns, target_stride)[:, :rows] = matrix.T
    run(source, 5, stride, rows, columns, target, 7, target_stride)
    np.testing.assert_array_equal(target, expected)
