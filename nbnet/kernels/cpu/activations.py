"""Activations on vectors: the forms that nbnet.kernels.activations has names for.

A form has up to two stages, `first` (an exponential) and the rest, which run in two loops (see vecmath and activation_runs). All are
compiled without fastmath. tools/check_activations.py measures their errors: at most 4 units in the last place of y where |y| > 1e-3 |x|,
and of the derivative, or of 1 / 2 where that is larger.

mish:      x n / d of e = exp(-|x|), where tanh(log(1 + exp x)) = ((1 + exp x)^2 - 1) / ((1 + exp x)^2 + 1).
"""

from typing import Any, NamedTuple

import numpy as np

from nbnet.kernels.cpu.compile import precise
from nbnet.kernels.cpu.elementary import at_least, at_most, both_sigmoids, constant_of, log1p, times_sigmoid, within
from nbnet.kernels.cpu.gelu import gelu, gelu_tanh, gelu_tanh_first, gelu_tanh_through, gelu_tanh_through_first, gelu_through
from nbnet.kernels.cpu.vecmath import (
    EXP_RANGE,
    TANH_RANGE,
    absolute,
    exp_of_negative,
    exp_of_sigmoid,
    exp_of_tanh,
    expm1,
    fma,
    sigmoid,
    tanh,
    with_sign,
)
from nbnet.kernels.cpu.vector import splat_as, where, zero

_end_of_exp = constant_of({bits: -low for bits, (low, _) in EXP_RANGE.items()})  # exp(-x) is 0 from here
_end_of_expm1 = constant_of({bits: -2 * value for bits, value in TANH_RANGE.items()})  # exp x - 1 is -1 up to here
_largest = constant_of({32: float(np.finfo(np.float32).max), 64: float(np.finfo(np.float64).max)})

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


# ---------------------------------------------------------------------------- silu, mish, elu, softplus, logsigmoid


@precise
def silu(x, e):
    return times_sigmoid(at_least(x, zero(x) - _end_of_exp(x)), x, e)


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
    return exp_of_negative(at_most(splat_as(inner, x) * x, zero(x)), zero(x))


@precise
def elu_through(dy, x, e, alpha, outer, inner):
    return dy * where(x > zero(x), splat_as(outer, x), splat_as(outer * alpha * inner, x) * e)


@precise
def softplus_first(x, beta, threshold):
    """exp(-|beta x|)."""
    factor, size = splat_as(beta, x), at_most(absolute(x), _end_of_exp(x) * splat_as(1 / beta, x))
    z = factor * size
    return exp_of_negative(zero(x) - z, fma(factor, size, zero(x) - z))


@precise
def softplus_through_first(x, beta, threshold):
    return exp_of_negative(zero(x) - absolute(splat_as(beta, x) * x), zero(x))


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
    "gelu": Vectors(None, gelu, None, gelu_through),
    "gelu_tanh": Vectors(gelu_tanh_first, gelu_tanh, gelu_tanh_through_first, gelu_tanh_through),
    "silu": Vectors(exp_of_sigmoid, silu, exp_of_sigmoid, silu_through),
    "mish": Vectors(exp_of_sigmoid, mish, exp_of_sigmoid, mish_through),
    "elu": Vectors(elu_first, elu, elu_through_first, elu_through),
    "softplus": Vectors(softplus_first, softplus, softplus_through_first, softplus_through),
    "logsigmoid": Vectors(exp_of_sigmoid, logsigmoid, exp_of_sigmoid, logsigmoid_through),
    "softsign": Vectors(None, softsign, None, softsign_through),
    "hardswish": Vectors(None, hardswish, None, hardswish_through),
    "hardsigmoid": Vectors(None, hardsigmoid, None, hardsigmoid_through),
    "hardtanh": Vectors(None, hardtanh, None, hardtanh_through),
}
