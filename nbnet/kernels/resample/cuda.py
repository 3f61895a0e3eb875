"""Resampling on CUDA: a thread sums the taps of four channels of a pixel, or of one if the channels are not a multiple of four."""

from nbnet.kernels.gpu.compile import formula, kernel
from nbnet.kernels.gpu.launch import load4, store4
from nbnet.kernels.gpu.pixels import add_kahan, launch, offset, place


@formula
def _term(weight, value, one):
    """A product with 1 would change the bits of a NaN."""
    return value if weight == one else weight * value


@kernel
def _gather(x, shape, taps, row_index, row_weight, column_index, column_weight, out_shape, y):
    n, oh, ow, c = place(out_shape, 1)
    if n < out_shape[0]:
        zero, one = x.dtype.type(0), x.dtype.type(1)
        total, lost = zero, zero
        for a in range(oh * taps[0], (oh + 1) * taps[0]):
            for b in range(ow * taps[1], (ow + 1) * taps[1]):
                h, w = row_index[a], column_index[b]
                if h >= 0 and w >= 0:
                    weight = x.dtype.type(row_weight[a]) * x.dtype.type(column_weight[b])
                    term = _term(weight, x[offset(shape, n, h, w, c)], one)
                    if a == oh * taps[0] and b == ow * taps[1]:
                        total = term
                    else:
                        total, lost = add_kahan(total, lost, term, zero)
        y[offset(out_shape, n, oh, ow, c)] = total


@kernel
def _gather4(x, shape, taps, row_index, row_weight, column_index, column_weight, out_shape, y):
    n, oh, ow, c = place(out_shape, 4)
    if n < out_shape[0]:
        zero, one = x.dtype.type(0), x.dtype.type(1)
        t0, t1, t2, t3 = zero, zero, zero, zero
        l0, l1, l2, l3 = zero, zero, zero, zero
        for a in range(oh * taps[0], (oh + 1) * taps[0]):
            for b in range(ow * taps[1], (ow + 1) * taps[1]):
                h, w = row_index[a], column_index[b]
                if h >= 0 and w >= 0:
                    weight = x.dtype.type(row_weight[a]) * x.dtype.type(column_weight[b])
                    v = load4(x, offset(shape, n, h, w, c))
                    v0, v1 = _term(weight, v[0], one), _term(weight, v[1], one)
                    v2, v3 = _term(weight, v[2], one), _term(weight, v[3], one)
                    if a == oh * taps[0] and b == ow * taps[1]:
                        t0, t1, t2, t3 = v0, v1, v2, v3
                    else:
                        t0, l0 = add_kahan(t0, l0, v0, zero)
                        t1, l1 = add_kahan(t1, l1, v1, zero)
                        t2, l2 = add_kahan(t2, l2, v2, zero)
                        t3, l3 = add_kahan(t3, l3, v3, zero)
        store4(y, offset(out_shape, n, oh, ow, c), (t0, t1, t2, t3))


def gather(x, row_index, row_weight, column_index, column_weight, y):
    taps = row_index.shape[1], column_index.shape[1]
    launch((_gather, _gather4), y.shape, x, x.shape, taps, row_index, row_weight, column_index, column_weight, y.shape, y)
