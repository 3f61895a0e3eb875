"""What the forms of activations share: numbers of each dtype, bounds, log(1 + e), and both logistic functions.

log1p: of e from 0 to 1: e - s (e - z L(z)) with s = e / (2 + e), z = s^2; L interpolates (2 atanh s - 2 s) / s^3 at Chebyshev points.
"""

from llvmlite import ir
from numba.extending import intrinsic

from nbnet.kernels.cpu.compile import precise
from nbnet.kernels.cpu.vecmath import make_polynomial
from nbnet.kernels.cpu.vector import splat_as, where, zero

LOG1P = {  # L(z)
    32: [0.232243292, 0.217065758, 0.28592358, 0.399997063, 0.666666673],
    64: [
        0.156305778009228504,
        0.074921437955507673,
        0.108451783948800148,
        0.117342790613031975,
        0.133351786314492558,
        0.153845439648605493,
        0.181818198979627144,
        0.222222221982367706,
        0.285714285716000993,
        0.399999999999995225,
        0.666666666666666669,
    ],
}
_log1p = make_polynomial(LOG1P)


def constant_of(values):
    """The intrinsic that gives a number, by the bits of the dtype, in every lane of a vector like its argument."""

    @intrinsic
    def constant(context, like):
        value = values[like.dtype.bitwidth]
        return like(like), lambda context, builder, signature, args: ir.Constant(args[0].type, [value] * args[0].type.count)

    return constant


@precise
def at_most(x, bound):
    """The smaller of two vectors; NaN in x stays NaN."""
    return where(x > bound, bound, x)


@precise
def at_least(x, bound):
    """The larger of two vectors; NaN in x stays NaN."""
    return where(bound > x, bound, x)


@precise
def within(x, bound):
    return at_least(at_most(x, bound), zero(x) - bound)


@precise
def log1p(e):
    """log(1 + e) of each lane, for e from 0 to 1."""
    s = e / (splat_as(2.0, e) + e)
    z = s * s
    return e - s * (e - z * _log1p(z))


@precise
def both_sigmoids(x, e):
    """1 / (1 + exp(-x)) and 1 / (1 + exp x) with e = exp(-|x|)."""
    one = splat_as(1.0, x)
    positive, share = x >= zero(x), one / (one + e)
    return where(positive, one, e) * share, where(positive, e, one) * share


@precise
def times_sigmoid(factor, x, e):
    """factor / (1 + exp(-x)) with e = exp(-|x|)."""
    one = splat_as(1.0, x)
    return factor * where(x >= zero(x), one, e) / (one + e)
