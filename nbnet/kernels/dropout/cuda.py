"""Dropout on CUDA: four elements per counter and thread; random words stay in registers. The counter of a pass is read from an array."""

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.compile import SIMULATED, formula, kernel
from nbnet.kernels.gpu.launch import THREADS, elementwise, load, run, store
from nbnet.kernels.philox import philox

VECTORS = 2  # per thread: two loads in flight

if SIMULATED:
    _philox = philox.py_func

    def philox(*words):
        with np.errstate(over="ignore"):  # 32-bit sums wrap around
            return _philox(*words)


@kernel
def _apply(x, size, counter, before, threshold, scale, shift, dropped, y):
    seed, stream, step = counter[0], np.uint32(counter[1]), np.uint32(counter[2])
    k0, k1 = np.uint32(seed & np.uint64(0xFFFFFFFF)), np.uint32(seed >> np.uint64(32))
    first = cuda.blockIdx.x * (VECTORS * THREADS) + cuda.threadIdx.x
    a, b = load(x, 4 * first, size), load(x, 4 * (first + THREADS), size)
    for i in range(VECTORS):
        at = first + i * THREADS
        v = a if i == 0 else b
        place = at + before
        w = philox(np.uint32(place & 0xFFFFFFFF), np.uint32(place >> 32), stream, step, k0, k1)
        v = (
            v[0] * scale + shift if w[0] >= threshold else dropped,
            v[1] * scale + shift if w[1] >= threshold else dropped,
            v[2] * scale + shift if w[2] >= threshold else dropped,
            v[3] * scale + shift if w[3] >= threshold else dropped,
        )
        store(y, 4 * at, size, v)


def apply(x, counter, threshold, scale, shift, dropped, y):
    if x.size:
        T = x.dtype.type
        grid = -(-x.size // (4 * VECTORS * THREADS))
        before = np.int64(counter[3] if counter.size > 3 else 0)
        numbers = device.numbers(counter), before, np.uint64(threshold), T(scale), T(shift), T(dropped)
        run(_apply, grid, THREADS, x, x.size, *numbers, y)


@formula
def _through(dy, y, scale, zero):
    return zero if y <= zero else dy * scale


@kernel
def _relu_backward(dy, y, scale, size, dx):
    at, zero = 4 * cuda.grid(1), y.dtype.type(0)
    g, v = load(dy, at, size), load(y, at, size)
    a, b = _through(g[0], v[0], scale, zero), _through(g[1], v[1], scale, zero)
    store(dx, at, size, (a, b, _through(g[2], v[2], scale, zero), _through(g[3], v[3], scale, zero)))


def relu_backward(dy, y, scale, dx):
    elementwise(_relu_backward, dy.size, dy, y, y.dtype.type(scale), dy.size, dx)
