"""Activations on vectors: the forms that nbnet.kernels.activations has names for, and loops over runs of numbers.

A form has up to two stages, `first` (an exponential) and the rest, which run in two loops (see vecmath). All are compiled without
fastmath. tools/check_activations.py measures their errors: at most 4 units in the last place of y where |y| > 1e-3 |x|, and of the
derivative, or of 1 / 2 where that is larger.

gelu:      x Phi(x). Phi(-t) = exp(-t^2 / 2) R(t) for t = |x|, where R(t) = erfcx(t / sqrt 2) / 2 is a quotient of polynomials with positive
           coefficients, from interpolation at Chebyshev points of (t - k) / (t + k); its relative error is 2e-8 for float32 and 3e-18 for
           float64. What is rounded off from t^2 / 2, from the last steps of both polynomials and from the quotient is added again.
gelu_tanh: x sigmoid(a x + b x^3), the argument in two numbers.
log1p:     of e from 0 to 1: e - s (e - z L(z)) with s = e / (2 + e), z = s^2; L interpolates (2 atanh s - 2 s) / s^3 at Chebyshev points.
mish:      x n / d of e = exp(-|x|), where tanh(log(1 + exp x)) = ((1 + exp x)^2 - 1) / ((1 + exp x)^2 + 1).
"""

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from nbnet.kernels import chunks
from nbnet.kernels.activations import GELU_TANH
from nbnet.kernels.cpu.cache import folder_of
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.prefetch import bypasses_cache, store_or_stream
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import (
    EXP,
    EXP_RANGE,
    RUN,
    TANH_RANGE,
    absolute,
    exp,
    exp_of_difference,
    exp_of_sigmoid,
    exp_of_tanh,
    expm1,
    fma,
    make_polynomial,
    sigmoid,
    tanh,
    with_sign,
)
from nbnet.kernels.cpu.vector import load, load_whole, splat_as, store_whole, where, zero
from nbnet.kernels.sources import define

TAIL = {  # R(t) = (1/2 + numerator) / (1 + denominator), highest power first, without the constants
    32: (
        [0.004082358442, 0.04042960703, 0.1826702207, 0.4375936985],
        [0.01023283508, 0.1013484895, 0.4679680467, 1.200255036, 1.673072338],
    ),
    64: (
        [
            2.23977282520914325e-7,
            6.9751980002380017e-6,
            0.00010660900455285864,
            0.00104032862673835699,
            0.00712791457491052787,
            0.035693962107276707,
            0.132137581591228626,
            0.357558722595986747,
            0.67992072039775538,
            0.828148263641825952,
        ],
        [
            5.61427789241826715e-7,
            0.0000174842285285728531,
            0.000267790572928829906,
            0.00262520137940710364,
            0.0181331384937540619,
            0.0920442436217862225,
            0.348557979446797135,
            0.980697842354512574,
            2.00242283741209693,
            2.81799464039411526,
            2.45418108808651737,
        ],
    ),
}
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
DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
A, B = GELU_TANH

# -------------------------------------------------------------------------------------------------- building blocks


def _constant(values):
    """The intrinsic that gives a number, by the bits of the dtype, in every lane of a vector like its argument."""

    @intrinsic
    def constant(context, like):
        value = values[like.dtype.bitwidth]
        return like(like), lambda context, builder, signature, args: ir.Constant(args[0].type, [value] * args[0].type.count)

    return constant


# of the numerator and the denominator of R(t): even and odd powers, in t^2
_even, _odd, _even_below, _odd_below = (
    make_polynomial({bits: TAIL[bits][i][(len(TAIL[bits][i]) - power) % 2 :: 2] for bits in TAIL}, split=False)
    for i in range(2)
    for power in (2, 1)
)
_log1p = make_polynomial(LOG1P)
_end_of_exp = _constant({bits: -low for bits, (low, _) in EXP_RANGE.items()})  # exp(-x) is 0 from here
_end_of_gauss = _constant({32: 15.0, 64: 39.0})  # so is exp(-x^2 / 2)
_end_of_cubic = _constant({32: 12.0, 64: 24.0})  # and exp(-a x - b x^3)
_end_of_expm1 = _constant({bits: -2 * value for bits, value in TANH_RANGE.items()})  # exp x - 1 is -1 up to here
_largest = _constant({32: float(np.finfo(np.float32).max), 64: float(np.finfo(np.float64).max)})
# a and b as sums of two numbers
_a, _b = _constant({32: float(np.float32(A)), 64: A}), _constant({32: float(np.float32(B)), 64: B})
_a_rest, _b_rest = _constant({32: A - float(np.float32(A)), 64: 0.0}), _constant({32: B - float(np.float32(B)), 64: 0.0})


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


# ------------------------------------------------------------------------------------------------------- piecewise linear


@precise
def relu(x):
    return where(zero(x) >= x, zero(x), x)


@precise
def relu_through(dy, y):
    return where(zero(y) >= y, zero(y), dy)


@precise
def leaky_relu(x, slope):
    return where(x > zero(x), x, splat_as(slope, x) * x)


@precise
def leaky_relu_through(dy, y, slope):
    return where(y > zero(y), dy, splat_as(slope, y) * dy)


@precise
def hardtanh(x, low, high):
    return at_most(at_least(x, splat_as(low, x)), splat_as(high, x))


@precise
def hardtanh_through(dy, y, low, high):
    return where((splat_as(low, y) >= y) | (y >= splat_as(high, y)), zero(y), dy)


@precise
def hardsigmoid(x):
    three = splat_as(3.0, x)
    y = (x + three) * splat_as(1 / 6, x)
    return where(zero(x) - three >= x, zero(x), where(x >= three, splat_as(1.0, x), y))


@precise
def hardsigmoid_through(dy, x):
    three = splat_as(3.0, x)
    return where((x > zero(x) - three) & (three > x), dy * splat_as(1 / 6, x), zero(x))


@precise
def hardswish(x):
    three = splat_as(3.0, x)
    y = x * ((x + three) * splat_as(1 / 6, x))
    return where(zero(x) - three >= x, zero(x), where(x >= three, x, y))


@precise
def hardswish_through(dy, x):
    three = splat_as(3.0, x)
    slope = fma(x, splat_as(1 / 3, x), splat_as(0.5, x))
    return where(zero(x) - three >= x, zero(x), where(x >= three, dy, dy * slope))


# ------------------------------------------------------------------------------------------------ tanh, sigmoid, softsign


@precise
def tanh_first(x):
    return exp_of_tanh(x)


@precise
def tanh_through(dy, y):
    return dy * (splat_as(1.0, y) - y * y)


@precise
def sigmoid_through(dy, y):
    return dy * (y * (splat_as(1.0, y) - y))


@precise
def softsign(x):
    size, one = absolute(x), splat_as(1.0, x)
    return where(size > _largest(x), with_sign(one, x), x / (one + size))


@precise
def softsign_through(dy, x):
    share = splat_as(1.0, x) / (splat_as(1.0, x) + absolute(x))
    return dy * (share * share)


# ------------------------------------------------------------------------------------------------------------------- gelu


@precise
def _with_rest(even, odd, square, t, one):
    """even * square + odd * t + one, and what it lacks to twice the precision but for the errors of even and odd."""
    first = fma(even, square, one)
    total = fma(odd, t, first)
    return total, fma(even, square, one - first) + fma(odd, t, first - total)


@precise
def _tail(t):
    """R(t), and what it lacks; below 1 from R(t) - 1/2, which is small."""
    half, one, square = splat_as(0.5, t), splat_as(1.0, t), t * t
    even, odd, even_below, odd_below = _even(square), _odd(square), _even_below(square), _odd_below(square)
    above, lost = _with_rest(even, odd, square, t, half)
    below, lost_below = _with_rest(even_below, odd_below, square, t, one)
    small = one > t
    above = where(small, fma(even - half * even_below, square, t * (odd - half * odd_below)), above)
    lost, base = where(small, zero(t), lost), where(small, half, zero(t))
    share = one / below
    ratio = above * share
    rest = (fma(zero(t) - ratio, below, above) + (lost - ratio * lost_below)) * share
    total = base + ratio
    return total, (base - total) + ratio + rest


@precise
def gelu_first(x):
    """exp(-x^2 / 2)."""
    t = at_most(absolute(x), _end_of_gauss(x))
    half = splat_as(0.5, x) * t
    square = t * half
    return exp_of_difference(zero(x) - square, fma(t, half, zero(x) - square))


@precise
def gelu(x, e):
    ratio, rest = _tail(at_most(absolute(x), _end_of_gauss(x)))
    tail = e * ratio
    rest = fma(e, ratio, zero(x) - tail) + e * rest
    positive, bounded = x > zero(x), within(x, _end_of_gauss(x))
    rest = bounded * where(positive, zero(x) - rest, rest)
    return fma(where(positive, x, bounded), where(positive, splat_as(1.0, x) - tail, tail), rest)


@precise
def gelu_through(dy, x, e):
    """The derivative is Phi(x) + x phi(x)."""
    t = at_most(absolute(x), _end_of_gauss(x))
    slope = e * (_tail(t)[0] - t * splat_as(DENSITY, x))
    return dy * where(x > zero(x), splat_as(1.0, x) - slope, slope)


@precise
def gelu_tanh_first(x):
    """exp(-(a t + b t^3)) of t = |x|."""
    t = at_most(absolute(x), _end_of_cubic(x))
    square = t * t
    factor = fma(_b(x), square, _a(x))
    lost = fma(_b(x), square, _a(x) - factor) + fma(_b(x), fma(t, t, zero(x) - square), fma(_b_rest(x), square, _a_rest(x)))
    z = t * factor
    return exp_of_difference(zero(x) - z, fma(t, lost, fma(t, factor, zero(x) - z)))


@precise
def gelu_tanh(x, e):
    return at_least(x, zero(x) - _end_of_cubic(x)) * sigmoid(x, e)


@precise
def gelu_tanh_through(dy, x, e):
    s, other = both_sigmoids(x, e)
    x = within(x, _end_of_cubic(x))
    slope = fma(x * x, splat_as(3 * B, x), _a(x))
    return dy * (s * fma(x * slope, other, splat_as(1.0, x)))


# ---------------------------------------------------------------------------- silu, mish, elu, softplus, logsigmoid


@precise
def silu(x, e):
    return at_least(x, zero(x) - _end_of_exp(x)) * sigmoid(x, e)


@precise
def silu_through(dy, x, e):
    s, other = both_sigmoids(x, e)
    return dy * (s * fma(within(x, _end_of_exp(x)), other, splat_as(1.0, x)))


@precise
def mish(x, e):
    one, two = splat_as(1.0, x), splat_as(2.0, x)
    positive = x >= zero(x)
    n = fma(two, e, where(positive, one, e * e))
    d = n + where(positive, two * (e * e), two)
    return at_least(x, zero(x) - _end_of_exp(x)) * (n / d)


@precise
def mish_through(dy, x, e):
    """The derivative is n / d + x 4 q (1 + e) / d^2 with q = exp(-2 x) above 0, else exp x."""
    one, two = splat_as(1.0, x), splat_as(2.0, x)
    positive, square = x >= zero(x), e * e
    n = fma(two, e, where(positive, one, square))
    share = one / (n + where(positive, two * square, two))
    rest = within(x, _end_of_exp(x)) * splat_as(4.0, x) * where(positive, square, e) * (one + e)
    return dy * (share * fma(rest, share, n))


@precise
def elu_first(x, alpha, outer, inner):
    """exp(inner x) - 1 where x is below 0."""
    return expm1(at_least(at_most(splat_as(inner, x) * x, zero(x)), _end_of_expm1(x)))


@precise
def elu(x, e, alpha, outer, inner):
    return where(x > zero(x), splat_as(outer, x) * x, splat_as(outer * alpha, x) * e)


@precise
def elu_through_first(x, alpha, outer, inner):
    return exp(at_most(splat_as(inner, x) * x, zero(x)))


@precise
def elu_through(dy, x, e, alpha, outer, inner):
    return dy * where(x > zero(x), splat_as(outer, x), splat_as(outer * alpha * inner, x) * e)


@precise
def softplus_first(x, beta, threshold):
    """exp(-|beta x|)."""
    factor = splat_as(beta, x)
    z = factor * x
    lost = where(_end_of_exp(x) > absolute(z), fma(factor, x, zero(x) - z), zero(x))
    return exp_of_difference(zero(x) - absolute(z), where(z > zero(x), lost, zero(x) - lost))


@precise
def softplus(x, e, beta, threshold):
    y = at_least(x, zero(x)) + log1p(e) * splat_as(1 / beta, x)
    return where(splat_as(beta, x) * x > splat_as(threshold, x), x, y)


@precise
def softplus_through(dy, x, e, beta, threshold):
    z = splat_as(beta, x) * x
    return dy * where(z > splat_as(threshold, x), splat_as(1.0, x), sigmoid(z, e))


@precise
def logsigmoid(x, e):
    return at_most(x, zero(x)) - log1p(e)


@precise
def logsigmoid_through(dy, x, e):
    return dy * sigmoid(zero(x) - x, e)


# -------------------------------------------------------------------------------------------------------------- the table


class Vectors(NamedTuple):
    """first(x, *options) -> e, forward(x [, e], *options) -> y, and for backward first(v, *options) -> e, through(dy, v [, e], *options)
    -> dx, where v is what backward gets. None where a form has no first stage."""

    first: Any
    forward: Any
    through_first: Any
    through: Any


VECTORS = {
    "relu": Vectors(None, relu, None, relu_through),
    "leaky_relu": Vectors(None, leaky_relu, None, leaky_relu_through),
    "tanh": Vectors(tanh_first, tanh, None, tanh_through),
    "sigmoid": Vectors(exp_of_sigmoid, sigmoid, None, sigmoid_through),
    "gelu": Vectors(gelu_first, gelu, gelu_first, gelu_through),
    "gelu_tanh": Vectors(gelu_tanh_first, gelu_tanh, gelu_tanh_first, gelu_tanh_through),
    "silu": Vectors(exp_of_sigmoid, silu, exp_of_sigmoid, silu_through),
    "mish": Vectors(exp_of_sigmoid, mish, exp_of_sigmoid, mish_through),
    "elu": Vectors(elu_first, elu, elu_through_first, elu_through),
    "softplus": Vectors(softplus_first, softplus, softplus_first, softplus_through),
    "logsigmoid": Vectors(exp_of_sigmoid, logsigmoid, exp_of_sigmoid, logsigmoid_through),
    "softsign": Vectors(None, softsign, None, softsign_through),
    "hardswish": Vectors(None, hardswish, None, hardswish_through),
    "hardsigmoid": Vectors(None, hardsigmoid, None, hardsigmoid_through),
    "hardtanh": Vectors(None, hardtanh, None, hardtanh_through),
}


def cost(first):
    """Elementary operations per number, for the choice of chunks."""
    return 1 if first is None else EXP


def drivers(name, text, formula, **scope):
    """What a filled-in template of drivers defines, for a formula; scope: the other names in the template."""
    scope = {"chunks": chunks, "serial": serial, "parallel": parallel, "parallel_for": parallel_for, **scope}
    return define(name, text, formula, folder_of(formula), scope)


# -------------------------------------------------------------------------------------------------------- runs of numbers


@cache
def forward_of_run(name):
    """The body (options, x, at, y, to, count) of y[to : to + count] = forward(x[at : at + count]); they may be the same."""
    first, forward, _, _ = VECTORS[name]

    @body
    def in_one_loop(options, x, at, y, to, count):
        bypasses = bypasses_cache(y, to)
        for i in range(0, count, lanes(x)):
            n = count - i
            store_or_stream(y, to + i, n, forward(load(x, at + i, n), *options), bypasses and n >= lanes(x))

    @body
    def in_two_loops(options, x, at, y, to, count):
        bypasses = bypasses_cache(y, to)
        e = np.empty(RUN, x.dtype)
        for run in range(0, count, RUN):
            end = min(run + RUN, count)
            for i in range(run, end, lanes(x)):
                store_whole(e, i - run, first(load(x, at + i, end - i), *options))
            for i in range(run, end, lanes(x)):
                n = end - i
                value = forward(load(x, at + i, n), load_whole(e, i - run), *options)
                store_or_stream(y, to + i, n, value, bypasses and n >= lanes(x))

    return in_one_loop if first is None else in_two_loops


@cache
def backward_of_run(name):
    """The body (options, dy, v, start, stop, dx) of dx[start:stop] = dy[start:stop] times the derivative; dx may be dy."""
    _, _, first, through = VECTORS[name]

    @body
    def in_one_loop(options, dy, v, start, stop, dx):
        bypasses = bypasses_cache(dx, start)
        for i in range(start, stop, lanes(v)):
            n = stop - i
            store_or_stream(dx, i, n, through(load(dy, i, n), load(v, i, n), *options), bypasses and n >= lanes(v))

    @body
    def in_two_loops(options, dy, v, start, stop, dx):
        bypasses = bypasses_cache(dx, start)
        e = np.empty(RUN, v.dtype)
        for at in range(start, stop, RUN):
            end = min(at + RUN, stop)
            for i in range(at, end, lanes(v)):
                store_whole(e, i - at, first(load(v, i, end - i), *options))
            for i in range(at, end, lanes(v)):
                n = end - i
                value = through(load(dy, i, n), load(v, i, n), load_whole(e, i - at), *options)
                store_or_stream(dx, i, n, value, bypasses and n >= lanes(v))

    return in_one_loop if first is None else in_two_loops
