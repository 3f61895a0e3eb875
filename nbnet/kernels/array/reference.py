"""Arithmetic on arrays in NumPy: the definition. See the contract in `nbnet.kernels.array`."""

import numpy as np


def add(a, b, y):
    np.add(a, b, out=y)


def multiply(a, b, y):
    np.multiply(a, b, out=y)


def scale(a, factor, y):
    y[:] = a * a.dtype.type(factor)


def squares(a, total):
    total[0] = np.square(a, dtype=np.float64).sum()


def swap(x, y):
    y[:] = x.swapaxes(1, 2)


def copy_columns(x, first, y, at, count):
    y[:, at : at + count] = x[:, first : first + count]


def multiply_rows(a, b, y):
    y[:] = a * b[:, None]


def multiply_sum(a, b, y):
    y[:] = np.multiply(a, b, dtype=np.float64).sum(axis=1)
