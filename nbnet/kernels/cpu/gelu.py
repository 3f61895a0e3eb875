"""The forms of GELU on vectors, exact and with tanh: see nbnet.kernels.cpu.activations.

gelu:      x Phi(x). Phi(-t) = exp(-t^2 / 2) R(t) for t = |x|, where R(t) = erfcx(t / sqrt 2) / 2 is a quotient of polynomials with positive
           coefficients, from interpolation at Chebyshev points of (t - k) / (t + k); its relative error is 2e-8 for float32 and 3e-18 for
           float64. What is rounded off from t^2 / 2, from the last steps of both polynomials and from the quotient is added again.
gelu_tanh: x sigmoid(a x + b x^3), the argument in two numbers.
"""

import math

import numpy as np

from nbnet.kernels.activations import GELU_TANH
from nbnet.kernels.cpu.compile import precise
from nbnet.kernels.cpu.elementary import at_least, at_most, both_sigmoids, constant_of, times_sigmoid, within
from nbnet.kernels.cpu.vecmath import absolute, exp_of_negative, fma, make_polynomial
from nbnet.kernels.cpu.vector import splat_as, where, zero

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
DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
A, B = GELU_TANH

# of the numerator and the denominator of R(t): even and odd powers, in t^2
_even, _odd, _even_below, _odd_below = (
    make_polynomial({bits: TAIL[bits][i][(len(TAIL[bits][i]) - power) % 2 :: 2] for bits in TAIL}, split=False)
    for i in range(2)
    for power in (2, 1)
)
_end_of_gauss = constant_of({32: 15.0, 64: 39.0})  # so is exp(-x^2 / 2)
_end_of_cubic = constant_of({32: 12.0, 64: 24.0})  # and exp(-a x - b x^3)
# a and b as sums of two numbers
_a, _b = constant_of({32: float(np.float32(A)), 64: A}), constant_of({32: float(np.float32(B)), 64: B})
_a_rest, _b_rest = constant_of({32: A - float(np.float32(A)), 64: 0.0}), constant_of({32: B - float(np.float32(B)), 64: 0.0})


@precise
def _with_rest(even, odd, t, one):
    """even * t^2 + odd * t + one, and what it lacks to twice the precision but for the errors of even and odd."""
    square = t * t
    first = fma(even, square, one)
    total = fma(odd, t, first)
    return total, fma(even, square, one - first) + fma(odd, t, first - total)


@precise
def _tail(t):
    """R(t), and what it lacks."""
    square = t * t
    above, lost = _with_rest(_even(square), _odd(square), t, splat_as(0.5, t))
    below, lost_below = _with_rest(_even_below(square), _odd_below(square), t, splat_as(1.0, t))
    share = splat_as(1.0, t) / below
    ratio = above * share
    return ratio, (fma(zero(t) - ratio, below, above) + fma(zero(t) - ratio, lost_below, lost)) * share


@precise
def _gauss(t):
    """exp(-t^2 / 2)."""
    half = splat_as(0.5, t) * t
    square = t * half
    return exp_of_negative(zero(t) - square, fma(t, half, zero(t) - square))


@precise
def gelu(x):
    t = at_most(absolute(x), _end_of_gauss(x))
    ratio, rest = _tail(t)
    return at_least(x, splat_as(-0.0, x)) - _gauss(t) * fma(t, rest, t * ratio)  # x - x Phi(-x), or -|x| Phi(-|x|), which may be -0


@precise
def gelu_through(dy, x):
    """The derivative is Phi(x) + x phi(x)."""
    t = at_most(absolute(x), _end_of_gauss(x))
    slope = _gauss(t) * (_tail(t)[0] - t * splat_as(DENSITY, x))
    return dy * where(x > zero(x), splat_as(1.0, x) - slope, slope)


@precise
def gelu_tanh_first(x):
    """exp(-(a t + b t^3)) of t = |x|."""
    t = at_most(absolute(x), _end_of_cubic(x))
    square = t * t
    factor = fma(_b(x), square, _a(x))
    lost = fma(_b(x), square, _a(x) - factor) + fma(_b(x), fma(t, t, zero(x) - square), fma(_b_rest(x), square, _a_rest(x)))
    z = t * factor
    return exp_of_negative(zero(x) - z, fma(t, lost, fma(t, factor, zero(x) - z)))


@precise
def gelu_tanh(x, e):
    return times_sigmoid(at_least(x, zero(x) - _end_of_cubic(x)), x, e)


@precise
def gelu_tanh_through_first(x):
    t = at_most(absolute(x), _end_of_cubic(x))
    return exp_of_negative(zero(x) - t * fma(_b(x), t * t, _a(x)), zero(x))


@precise
def gelu_tanh_through(dy, x, e):
    s, other = both_sigmoids(x, e)
    x = within(x, _end_of_cubic(x))
    slope = fma(x * x, splat_as(3 * B, x), _a(x))
    return dy * (s * fma(x * slope, other, splat_as(1.0, x)))
