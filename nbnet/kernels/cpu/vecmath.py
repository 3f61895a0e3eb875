"""exp, log, tanh and the logistic function on vectors: polynomials instead of scalar calls to libm.

Errors are at most 2 units in the last place over the whole range (measured by tests/kernels/cpu/test_vecmath.py). Infinities, NaN,
overflow and subnormal results are as in libm. A number gets the same bits in every lane.

exp: x = n log 2 + r with |r| <= log(2) / 2, the log in two parts (Cody and Waite 1980), and the Taylor polynomial of exp r.
     exp_of_negative, for x up to 0, omits what corrects rounding errors and scales once: half of the operations.
log: x = 2^n m with m from sqrt(1/2) to sqrt(2), and log m = f - f^2 / 2 + s (f^2 / 2 + R(s^2)) with f = m - 1, s = f / (2 + f) and the
     coefficients of fdlibm (Sun Microsystems 1993; for float32 Cygnus Support's).
tanh: e / (e + 2) with e = exp 2|x| - 1, whose polynomial omits the 1; computed as b + (e - b (e + 2)) / (e + 2) with b the smaller
     of |x| and 1/2, so that the rounding error of the quotient is small against b.
All functions are compiled without fastmath: their precision depends on the order of operations.

tanh and the logistic function have two parts, an exponential and a quotient. In one loop each part waits for the other, and 40
operations per vector exceed the out-of-order window. Two loops keep the processor busy: see nbnet.kernels.cpu.activations.
"""

import math

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic, overload

from nbnet.kernels.cpu.compile import precise
from nbnet.kernels.cpu.vector import Vector, splat_as, where, zero

LOG2_E = 1 / math.log(2)
# log 2 in two parts, the first short enough that n times it is exact
LOG_2 = {32: (0.693359375, -2.12194440e-4), 64: (6.93147180369123816490e-1, 1.90821492927058770002e-10)}
TAYLOR = {bits: [1 / math.factorial(k) for k in range(degree, 1, -1)] for bits, degree in ((32, 7), (64, 13))}  # of (exp r - 1 - r) / r^2
# of (exp r - 1 - r) / r^2, for a result that is right to about a unit: the largest relative error of 1 + r + r^2 q is 3e-9 for float32
SHORT = {32: [0.00138145986, 0.00836871698, 0.0416683881, 0.166665206, 0.499999934], 64: TAYLOR[64]}
SHIFT = {32: 64, 64: 512}  # 2^(n + SHIFT) is a normal number where exp x is subnormal
EXP_RANGE = {32: (-105.0, 90.0), 64: (-750.0, 715.0)}  # outside, the result is 0 or infinity
TANH_RANGE = {32: 10.0, 64: 22.0}  # outside, the result is 1
ROUND = {32: 1.5 * 2.0**23, 64: 1.5 * 2.0**52}  # adding it to a small number rounds that number and leaves it in the last bits of the sum
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
# The smallest and the largest normal number, and a power of 2 that scales subnormal numbers to normal ones.
NORMAL = {32: (2.0**-126, (2 - 2.0**-23) * 2.0**127, 25), 64: (2.0**-1022, (2 - 2.0**-52) * 2.0**1023, 54)}
RUN = 256  # numbers whose exponentials are computed before the first one is used
EXP = 8  # the cost of an exp or a tanh in elementary operations, for the choice of chunks
MANY = 5  # coefficients from which splitting even and odd powers pays


# -------------------------------------------------------------------------------------------------- building blocks


def _call(builder, name, *args):
    vector = args[0].type
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    function = ir.FunctionType(vector, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.v{vector.count}f{bits}"), args)


@intrinsic
def fma(context, a, b, c):
    """a * b + c: rounded once where the processor has an instruction for it, else twice. (llvm.fma always rounds once, and where there is
    no instruction it calls libm for each lane.)"""
    return a(a, b, c), lambda context, builder, signature, args: _call(builder, "fmuladd", *args)


@intrinsic
def absolute(context, x):
    return x(x), lambda context, builder, signature, args: _call(builder, "fabs", *args)


@intrinsic
def with_sign(context, x, of):
    """x with the sign of another vector."""
    return x(x, of), lambda context, builder, signature, args: _call(builder, "copysign", *args)


@intrinsic
def power_of_2(context, rounded):
    """2^n of n + ROUND, for integers n from the smallest to the largest exponent of a normal number."""

    def generate(context, builder, signature, args):
        vector = args[0].type
        bits, digits, one = (32, 23, 127) if isinstance(vector.element, ir.FloatType) else (64, 52, 1023)
        whole = ir.VectorType(ir.IntType(bits), vector.count)
        shifted = builder.shl(builder.bitcast(args[0], whole), ir.Constant(whole, [digits] * vector.count))
        return builder.bitcast(builder.add(shifted, ir.Constant(whole, [one << digits] * vector.count)), vector)

    return rounded(rounded), generate


def _split(builder, x):
    """n and m of normal x = 2^n m with m from sqrt(1/2) to sqrt(2): as integers and as bits."""
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


def make_polynomial(coefficients, split=True):
    """The intrinsic of a polynomial by Horner's rule. coefficients: of each dtype's bits, highest power first.

    Long polynomials are split into even and odd powers, since each step waits for the previous one; that costs some precision.
    """

    def horner(builder, x, table):
        first, *rest = (ir.Constant(x.type, [c] * x.type.count) for c in table)
        for c in rest:
            first = _call(builder, "fmuladd", first, x, c)
        return first

    @intrinsic
    def polynomial(context, x):
        def generate(context, builder, signature, args):
            x, table = args[0], coefficients[signature.args[0].dtype.bitwidth]
            if len(table) < MANY or not split:
                return horner(builder, x, table)
            square = builder.fmul(x, x)
            odd, even = (horner(builder, square, table[first::2]) for first in (-len(table) % 2, (1 - len(table)) % 2))
            return _call(builder, "fmuladd", odd, x, even)

        return x(x), generate

    return polynomial


_taylor, _log = (make_polynomial(table) for table in (TAYLOR, LOG))
_short = make_polynomial(SHORT, split=False)


# ------------------------------------------------------------------------------------------------------ the functions


def exp(x):
    """exp of each lane."""


@overload(exp, jit_options={"fastmath": False})
def _exp(x):
    if not isinstance(x, Vector):
        return None
    high, low = LOG_2[x.dtype.bitwidth]
    least, most = EXP_RANGE[x.dtype.bitwidth]
    nearest = ROUND[x.dtype.bitwidth]

    def implementation(x):
        big = splat_as(nearest, x)
        bounded = where(x > splat_as(most, x), splat_as(most, x), x)
        bounded = where(splat_as(least, x) > bounded, splat_as(least, x), bounded)
        n = fma(bounded, splat_as(LOG2_E, x), big) - big
        exact = fma(n, splat_as(-high, x), bounded)
        r = fma(n, splat_as(-low, x), exact)
        lost = fma(n, splat_as(-low, x), exact - r)  # the rounding error of r
        one = splat_as(1.0, x)
        nearly = fma(r, one, one)
        lost = lost + (r - (nearly - one))  # and of 1 + r
        power = fma(fma(r * r, _taylor(r), lost), one, nearly)
        # In two steps, since 2^n may overflow or be subnormal although the result is not.
        half = fma(n, splat_as(0.5, x), big)
        return fma(fma(power, power_of_2(half), zero(x)), power_of_2(n - (half - big) + big), zero(x))

    return implementation


def exp_of_negative(x, rest):
    """exp(x - rest) of each lane, for x up to 0 and a rest of at most a few units in the last place of x."""


@overload(exp_of_negative, jit_options={"fastmath": False})
def _exp_of_negative(x, rest):
    if not isinstance(x, Vector):
        return None
    high, low = LOG_2[x.dtype.bitwidth]
    least, shift = EXP_RANGE[x.dtype.bitwidth][0], SHIFT[x.dtype.bitwidth]
    nearest, back = ROUND[x.dtype.bitwidth] + shift, 2.0**-shift

    def implementation(x, rest):
        big, one = splat_as(nearest, x), splat_as(1.0, x)
        bounded = where(splat_as(least, x) > x, splat_as(least, x), x)
        rounded = fma(bounded, splat_as(LOG2_E, x), big)
        n = rounded - big
        r = fma(n, splat_as(-low, x), fma(n, splat_as(-high, x), bounded) - rest)
        return (fma(r * r, _short(r), r) + one) * power_of_2(rounded) * splat_as(back, x)

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
def exp_of_sigmoid(x):
    """exp(-|x|) of each lane."""
    return exp_of_negative(zero(x) - absolute(x), zero(x))


@precise
def sigmoid(x, e):
    """1 / (1 + exp(-x)) of each lane, with e = exp_of_sigmoid(x)."""
    one = splat_as(1.0, x)
    total = one + e
    lost = e - (total - one)  # the rounding error of 1 + e
    positive = x >= zero(x)
    y = where(positive, one, e) / total
    return fma(zero(x) - y * lost, where(positive, y, one - y), y)


def expm1(x):
    """exp(x) - 1 of each lane, for |x| up to 2 TANH_RANGE."""


@overload(expm1, jit_options={"fastmath": False})
def _expm1(x):
    if not isinstance(x, Vector):
        return None
    high, low = LOG_2[x.dtype.bitwidth]
    nearest = ROUND[x.dtype.bitwidth]

    def implementation(x):
        big = splat_as(nearest, x)
        rounded = fma(x, splat_as(LOG2_E, x), big)
        n, power = rounded - big, power_of_2(rounded)
        r = fma(n, splat_as(-low, x), fma(n, splat_as(-high, x), x))
        return fma(power, r * r * _taylor(r), fma(power, r, power - splat_as(1.0, x)))

    return implementation


def exp_of_tanh(x):
    """exp(2 |x|) - 1 of each lane, clamped where tanh is 1."""


@overload(exp_of_tanh, jit_options={"fastmath": False})
def _exp_of_tanh(x):
    if not isinstance(x, Vector):
        return None
    most = TANH_RANGE[x.dtype.bitwidth]

    def implementation(x):
        size = absolute(x)
        bounded = where(size > splat_as(most, x), splat_as(most, x), size)
        return expm1(bounded + bounded)

    return implementation


@precise
def tanh(x, e):
    """tanh of each lane, with e = exp_of_tanh(x)."""
    size, half = absolute(x), splat_as(0.5, x)
    b = where(size > half, half, size)
    lacks = fma(b, e, b + b - e) / (e + splat_as(2.0, x))
    return with_sign(b - lacks, x)
