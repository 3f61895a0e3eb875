"""exp, log, tanh and the logistic function on vectors: polynomials in place of calls of libm, one number at a time.

Errors are at most 2 units in the last place over the whole range (tests/kernels/test_vecmath.py measures them); infinities, NaN,
overflow and subnormal results come out as in libm. Every lane gets the same bits, wherever in a vector it stands.

exp: x = n log 2 + r with |r| <= log(2) / 2, the log in two parts (Cody and Waite 1980), and the Taylor polynomial of exp r.
log: x = 2^n m with m from sqrt(1/2) to sqrt(2), and log m = f - f^2 / 2 + s (f^2 / 2 + R(s^2)) with f = m - 1, s = f / (2 + f) and the
     coefficients of fdlibm (Sun Microsystems 1993; for float32 Cygnus Support's).
tanh: below 0.625 x + x^3 P(x^2) / Q(x^2) with the coefficients of Cephes (Moshier 1989), above that 1 - 2 / (exp 2x + 1), with
     an exp that leaves out what tanh does not see: numbers below 0, overflow, and the last half unit.
All of it is compiled without fastmath: the order of these steps is what makes them precise.
"""

import math

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic, overload

from nbnet.kernels.compile import precise
from nbnet.kernels.vector import Vector, splat_as, where, zero

LOG2_E = 1 / math.log(2)
# log 2 in two parts, the first so short that n times it is exact
LOG_2 = {32: (0.693359375, -2.12194440e-4), 64: (6.93147180369123816490e-1, 1.90821492927058770002e-10)}
TAYLOR = {bits: [1 / math.factorial(k) for k in range(degree, 1, -1)] for bits, degree in ((32, 7), (64, 13))}  # of (exp r - 1 - r) / r^2
EXP_RANGE = {32: (-105.0, 90.0), 64: (-750.0, 715.0)}  # beyond, the result is 0 or infinity
LOG = {  # of R(z) / z
    32: [0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693],
    64: [
        1.479819860511658591e-1,
        1.531383769920937332e-1,
        1.818357216161805012e-1,
        2.222219843214978396e-1,
        2.857142874366239149e-1,
        3.999999999940941908e-1,
        6.666666666666735130e-1,
    ],
}
# The least and the largest normal number, and a power of 2 that makes normal numbers of all that are less.
NORMAL = {32: (2.0**-126, (2 - 2.0**-23) * 2.0**127, 25), 64: (2.0**-1022, (2 - 2.0**-52) * 2.0**1023, 54)}
TANH_P = {
    32: [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1],
    64: [-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3],
}
TANH_Q = {32: [1.0], 64: [1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3]}
MANY = 10  # coefficients from which on two chains, of even and of odd powers, are worth one more multiplication


# -------------------------------------------------------------------------------------------------- building blocks


def _call(builder, name, *args):
    vector = args[0].type
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    function = ir.FunctionType(vector, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.v{vector.count}f{bits}"), args)


@intrinsic
def fma(context, a, b, c):
    """a * b + c, rounded once."""
    return a(a, b, c), lambda context, builder, signature, args: _call(builder, "fma", *args)


@intrinsic
def rint(context, x):
    """The nearest whole number."""
    return x(x), lambda context, builder, signature, args: _call(builder, "rint", *args)


@intrinsic
def absolute(context, x):
    return x(x), lambda context, builder, signature, args: _call(builder, "fabs", *args)


@intrinsic
def with_sign(context, x, of):
    """x with the sign of another vector."""
    return x(x, of), lambda context, builder, signature, args: _call(builder, "copysign", *args)


@intrinsic
def power_of_2(context, n):
    """2^n for whole n from the least to the largest exponent of a normal number."""

    def generate(context, builder, signature, args):
        vector = args[0].type
        bits, digits = (32, 23) if isinstance(vector.element, ir.FloatType) else (64, 52)
        whole = ir.VectorType(ir.IntType(bits), vector.count)
        # Added to 1.5 * 2^digits, a small whole number stands in the last bits of the sum.
        sum_ = builder.bitcast(builder.fadd(args[0], ir.Constant(vector, [1.5 * 2.0**digits] * vector.count)), whole)
        shifted = builder.shl(sum_, ir.Constant(whole, [digits] * vector.count))
        one = (127 if bits == 32 else 1023) << digits
        return builder.bitcast(builder.add(shifted, ir.Constant(whole, [one] * vector.count)), vector)

    return n(n), generate


def _split(builder, x):
    """Of normal x = 2^n m with m from sqrt(1/2) on to sqrt(2): n and m, as whole numbers and as bits."""
    bits, digits = (32, 23) if isinstance(x.type.element, ir.FloatType) else (64, 52)
    whole = ir.VectorType(ir.IntType(bits), x.type.count)

    def every(value):
        return ir.Constant(whole, [value] * x.type.count)

    root = 0x3F3504F3 if bits == 32 else 0x3FE6A09E667F3BCD  # the bits of sqrt(1/2)
    above = builder.sub(builder.bitcast(x, whole), every(root))
    mantissa = builder.add(builder.and_(above, every((1 << digits) - 1)), every(root))
    return builder.ashr(above, every(digits)), mantissa


@intrinsic
def exponent(context, x):
    """n of x = 2^n m, for normal x above 0 and m from sqrt(1/2) to sqrt(2)."""
    return x(x), lambda context, builder, signature, args: builder.sitofp(_split(builder, args[0])[0], args[0].type)


@intrinsic
def mantissa(context, x):
    """m of x = 2^n m."""
    return x(x), lambda context, builder, signature, args: builder.bitcast(_split(builder, args[0])[1], args[0].type)


def _make_polynomial(coefficients):
    """The intrinsic of a polynomial by Horner's rule. coefficients: of each dtype's bits, highest power first.

    Where they are many, even and odd powers apart, since each step waits for the one before it.
    """

    def horner(builder, x, table):
        first, *rest = (ir.Constant(x.type, [c] * x.type.count) for c in table)
        for c in rest:
            first = _call(builder, "fma", first, x, c)
        return first

    @intrinsic
    def polynomial(context, x):
        def generate(context, builder, signature, args):
            x, table = args[0], coefficients[signature.args[0].dtype.bitwidth]
            if len(table) < MANY:
                return horner(builder, x, table)
            square = builder.fmul(x, x)
            odd, even = (horner(builder, square, table[first::2]) for first in (-len(table) % 2, (1 - len(table)) % 2))
            return _call(builder, "fma", odd, x, even)

        return x(x), generate

    return polynomial


_taylor, _tanh_p, _tanh_q, _log = (_make_polynomial(table) for table in (TAYLOR, TANH_P, TANH_Q, LOG))


# ------------------------------------------------------------------------------------------------------ the functions


def exp(x):
    """exp of each lane."""


@overload(exp, jit_options={"fastmath": False})
def _exp(x):
    if not isinstance(x, Vector):
        return None
    high, low = LOG_2[x.dtype.bitwidth]
    least, most = EXP_RANGE[x.dtype.bitwidth]

    def implementation(x):
        bounded = where(x > splat_as(most, x), splat_as(most, x), x)
        bounded = where(splat_as(least, x) > bounded, splat_as(least, x), bounded)
        n = rint(bounded * splat_as(LOG2_E, x))
        exact = fma(n, splat_as(-high, x), bounded)
        r = fma(n, splat_as(-low, x), exact)
        lost = fma(n, splat_as(-low, x), exact - r)  # what rounding took from r
        one = splat_as(1.0, x)
        nearly = fma(r, one, one)
        lost = lost + (r - (nearly - one))  # and from 1 + r
        power = fma(fma(r * r, _taylor(r), lost), one, nearly)
        # In two steps, since 2^n may overflow, or be subnormal, where the result is not.
        half = rint(n * splat_as(0.5, x))
        return fma(fma(power, power_of_2(half), zero(x)), power_of_2(n - half), zero(x))

    return implementation


def log(x):
    """The natural logarithm of each lane: NaN below 0, minus infinity at 0."""


@overload(log, jit_options={"fastmath": False})
def _log_of(x):
    if not isinstance(x, Vector):
        return None
    high, low = LOG_2[x.dtype.bitwidth]
    least, most, shift = NORMAL[x.dtype.bitwidth]
    up, of_up = 2.0**shift, float(shift)

    def implementation(x):
        small = splat_as(least, x) > x
        normal = where(small, x * splat_as(up, x), x)
        n = exponent(normal) - where(small, splat_as(of_up, x), zero(x))
        f = mantissa(normal) - splat_as(1.0, x)
        s, half_square = f / (f + splat_as(2.0, x)), splat_as(0.5, x) * f * f
        z = s * s
        rest = fma(s, fma(z, _log(z), half_square), n * splat_as(low, x))
        y = fma(n, splat_as(high, x), f - (half_square - rest))
        y = where(zero(x) >= x, where(zero(x) > x, splat_as(math.nan, x), splat_as(-math.inf, x)), y)
        return where(x >= zero(x), where(x > splat_as(most, x), x, y), y + (x - x))

    return implementation


@precise
def sigmoid(x):
    """1 / (1 + exp(-x)) of each lane."""
    one, e = splat_as(1.0, x), exp(zero(x) - absolute(x))
    total = one + e
    lost = e - (total - one)  # what rounding took from 1 + e
    positive = x >= zero(x)
    y = where(positive, one, e) / total
    return fma(zero(x) - y * lost, where(positive, y, one - y), y)


def exp_of_size(x):
    """exp of each lane from 0 on, where no more than its first 44 or, of float32, 20 matter: to within a unit in the last place."""


@overload(exp_of_size, jit_options={"fastmath": False})
def _exp_of_size(x):
    if not isinstance(x, Vector):
        return None
    high, low = LOG_2[x.dtype.bitwidth]
    most = 20.0 if x.dtype.bitwidth == 32 else 44.0

    def implementation(x):
        bounded = where(x > splat_as(most, x), splat_as(most, x), x)
        n = rint(bounded * splat_as(LOG2_E, x))
        r = fma(n, splat_as(-low, x), fma(n, splat_as(-high, x), bounded))
        return (fma(r * r, _taylor(r), r) + splat_as(1.0, x)) * power_of_2(n)

    return implementation


@precise
def tanh(x):
    """tanh of each lane."""
    size, square, one = absolute(x), x * x, splat_as(1.0, x)
    large = size > splat_as(0.625, x)
    # One division for both: size + size * (square P / Q), or 1 + 1 * (-2 / (exp 2x + 1)).
    base = where(large, one, size)
    part = where(large, splat_as(-2.0, x), square * _tanh_p(square))
    whole = where(large, exp_of_size(size + size) + one, _tanh_q(square))
    return with_sign(fma(part / whole, base, base), x)
