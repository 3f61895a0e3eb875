"""The activation at the end of a product: convolution and dense apply it while results are still in a near cache.

act(z) = z where z > 0, else slope * z, and 0 where the slope is 0: ReLU of minus infinity is 0 too, as in nbnet.kernels.activation.
NaN stays NaN.
"""

from nbnet.kernels.cpu.compile import body, precise
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, splat_as, store, where, zero


@precise
def activated(z, slope):
    """act of a vector."""
    low = zero(z) if slope == 0 else splat_as(slope, z) * z
    return where(zero(z) >= z, low, z)


@body
def activate_rows(y, at, rows, stride, columns, slope):
    """y = act(y) in place, for rows of `columns` numbers, `stride` apart, starting at y[at]."""
    for row in range(rows):
        for j in range(0, columns, lanes(y)):
            here, count = at + row * stride + j, columns - j
            store(y, here, count, activated(load(y, here, count), slope))
