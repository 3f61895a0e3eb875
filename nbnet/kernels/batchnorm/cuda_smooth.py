"""Batch normalisation and an activation of the table in one pass, on CUDA."""

import numpy as np

from nbnet.kernels.gpu import activations, device
from nbnet.kernels.gpu.columns import PER_THREAD, RUN, columns, columns_of_sums, gather, merge_sums, write_sums
from nbnet.kernels.gpu.compile import from_text
from nbnet.kernels.gpu.launch import add4, load, multiply_add4, run, store, subtract4, wide4

# ------------------------------------------------------------------------------------------------------ apply

APPLY = """
@kernel
def _apply_NAME(x, center, scale, shift, OPTIONS, size, channels, period, rows, y):
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column >= period:
        return
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    for row in range(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, rows, cuda.gridDim.x * cuda.blockDim.y):
        at = 4 * (row * period + column)
        z = multiply_add4(subtract4(load(x, at, size), center), scale, shift)
        store(y, at, size, (act(z[0], OPTIONS), act(z[1], OPTIONS), act(z[2], OPTIONS), act(z[3], OPTIONS)))


def apply_NAME(x, center, scale, shift, OPTIONS, y):
    T = x.dtype.type
    launch(_apply_NAME, x, center, scale, shift, (TYPED), y)
"""


def launch_apply(compiled, x, center, scale, shift, options, y):
    """The kernel's rows are super-rows; the last may be partial."""
    channels = x.shape[1]
    layout = columns(x.size, channels, PER_THREAD, 1 << 30)
    rows = -(-x.size // (4 * layout.period))
    run(compiled, layout.grid, layout.block, x, center, scale, shift, *options, x.size, channels, layout.period, rows, y)


# -------------------------------------------------------------------------------------------- backward_reduce

BACKWARD_REDUCE = """
@kernel
def _backward_reduce_NAME(dy, y, x, center, scale, shift, OPTIONS, size, channels, period, rows, partials, g):
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    zero = x.dtype.type(0)
    zeros = zero, zero, zero, zero
    wide_g, wide_gx = wide4(zeros), wide4(zeros)
    row, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    if column >= period:
        row = rows
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    while row < rows:
        sum_g, sum_gx = zeros, zeros
        last = min(rows, row + RUN * step)
        while row < last:
            at = 4 * (row * period + column)
            d, w = subtract4(load(x, at, size), center), load(dy, at, size)
            v = VALUE
            w = act(w[0], v[0], OPTIONS), act(w[1], v[1], OPTIONS), act(w[2], v[2], OPTIONS), act(w[3], v[3], OPTIONS)
            store(g, at, size, w)
            sum_g = add4(sum_g, w)
            sum_gx = multiply_add4(w, d, sum_gx)
            row += step
        wide_g, wide_gx = add4(wide_g, wide4(sum_g)), add4(wide_gx, wide4(sum_gx))
    write_sums(wide_g, wide_gx, period, partials)


def backward_reduce_NAME(dy, y, x, center, scale, shift, OPTIONS, partials, g, sum_g, sum_gx):
    T = x.dtype.type
    launch(_backward_reduce_NAME, dy, y, x, center, scale, shift, (TYPED), g, sum_g, sum_gx)
"""


def launch_backward_reduce(compiled, dy, y, x, center, scale, shift, options, g, sum_g, sum_gx):
    """The kernel's rows are super-rows; the last may be partial, and dy is loaded as 0 beyond the array."""
    channels = x.shape[1]
    layout = columns_of_sums(x.size, channels)
    blocks, period = layout.grid[0], layout.period
    rows = -(-x.size // (4 * period))
    partials = device.pool().empty((blocks, 2, 4 * period), np.float64)
    numbers = (x.size, channels, period, rows, partials, g)
    run(compiled, layout.grid, layout.block, dy, y, x, center, scale, shift, *options, *numbers)
    merge_sums(partials, layout, channels, sum_g, sum_gx)


TEMPLATES = {"apply_NAME": APPLY, "backward_reduce_NAME": BACKWARD_REDUCE}
IN_KERNELS = {each.__name__: each for each in (gather, load, multiply_add4, subtract4, store, wide4, add4, write_sums)} | {"RUN": RUN}


def make(name, text, row):
    """The kernel and its launcher."""
    applies = name.startswith("apply_")
    act = getattr(activations, row.name if applies else f"{row.name}_through")
    value = "load(y, at, size)" if row.saves == "y" else "multiply_add4(d, scale, shift)"
    scope = {"act": act, "launch": launch_apply if applies else launch_backward_reduce, **IN_KERNELS}
    return from_text(name, text.replace("VALUE", value), act, scope)
