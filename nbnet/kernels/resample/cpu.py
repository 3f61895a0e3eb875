"""Resampling on the CPU: runs of pixels that are only copied, and vectors of channels where there are weights.

The body is `precise`, so that serial and parallel drivers round alike: with fastmath, LLVM may contract a product and a sum or not.
"""

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, narrow, splat_as, store, widen, zero


@body
def _taps(index, at):
    """How many taps output `at` has."""
    count = 0
    while count < index.shape[1] and index[at, count] >= 0:
        count += 1
    return count


@body
def _only_copies(index, weight, at):
    """Whether output `at` has one tap, of weight 1."""
    return index[at, 0] >= 0 and weight[at, 0] == 1 and (index.shape[1] == 1 or index[at, 1] < 0)


@precise
def _gather(part, parts, x, row_index, row_weight, column_index, column_weight, y):
    """Output rows start to stop, counted over all images."""
    start, stop = chunks.bounds(part, parts, y.shape[0] * y.shape[1])
    _, height, width, channels = x.shape
    source, target = x.reshape(-1), y.reshape(-1)
    nothing = zero(load(source, 0, 0))
    for row in range(start, stop):
        image, oh = divmod(row, y.shape[1])
        rows, copies_row = _taps(row_index, oh), _only_copies(row_index, row_weight, oh)
        line = (image * height + row_index[oh, 0]) * width
        ow = 0
        while ow < y.shape[2]:
            at, columns, pixels = (row * y.shape[2] + ow) * channels, _taps(column_index, ow), 1
            if copies_row and _only_copies(column_index, column_weight, ow):
                first = column_index[ow, 0]
                while (
                    ow + pixels < y.shape[2]
                    and column_index[ow + pixels, 0] == first + pixels
                    and _only_copies(column_index, column_weight, ow + pixels)
                ):
                    pixels += 1
                begin, size = (line + first) * channels, pixels * channels
                for i in range(0, size, lanes(x)):
                    store(target, at + i, size - i, load(source, begin + i, size - i))
            else:
                for c in range(0, channels, lanes(x)):
                    total = widen(nothing)
                    for a in range(rows):
                        first = (image * height + row_index[oh, a]) * width
                        for b in range(columns):
                            begin = (first + column_index[ow, b]) * channels + c
                            weight = splat_as(row_weight[oh, a] * column_weight[ow, b], total)
                            total = total + weight * widen(load(source, begin, channels - c))
                    store(target, at + c, channels - c, narrow(total, nothing))
            ow += pixels


@serial
def gather_serial(x, row_index, row_weight, column_index, column_weight, y):
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3] * row_index.shape[1] * column_index.shape[1])
    for k in range(n):
        _gather(k, n, x, row_index, row_weight, column_index, column_weight, y)


@parallel
def gather_parallel(x, row_index, row_weight, column_index, column_weight, y):
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3] * row_index.shape[1] * column_index.shape[1])
    parallel_for(n, _gather, (n, x, row_index, row_weight, column_index, column_weight, y))
