"""What kernels over pooling windows share."""

from nbnet.kernels.gpu.compile import formula
from nbnet.kernels.gpu.launch import divide, narrow


@formula
def window(index, size, stride, pad, limit):
    """The first and the last (exclusive) of the input's rows or columns in the window of output `index`."""
    first = narrow(index * stride - pad)
    return narrow(max(first, 0)), narrow(min(first + size, limit))


@formula
def pixels(index, size, stride, pad, limit, end):
    """How many pixels count along one axis of the window of output `index`: with an end, those of the padded image."""
    first = index * stride - pad
    return min(first + size, end) - first if end > 0 else min(first + size, limit) - max(first, 0)


@formula
def windows_of(index, size, stride, pad, outputs):
    """The first and the last (exclusive) of the output rows or columns whose windows contain input `index`."""
    at = narrow(index + pad)
    first = divide(at - size + stride, stride)[0] if at >= size else 0
    return narrow(first), narrow(min(divide(at, stride)[0] + 1, outputs))


@formula
def larger(a, b):
    """The maximum of two, where NaN is the largest and the first of equals is kept."""
    return a if a >= b or a != a else b


@formula
def better(best, at, value, place):
    """The larger of the best value so far and a new one, and its place; of equals the first, and NaN is the largest."""
    if best >= value or best != best:
        return best, at
    return value, place
