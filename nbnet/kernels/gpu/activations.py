"""Activations and their derivatives, as formulas inside other kernels.

Those that nbnet.kernels.activations has names for are NAME(x, *options) and NAME_through(dy, v, *options), where v is what backward gets.
Options are numbers of x's dtype.
"""

import math

from numba import cuda

from nbnet.kernels.activations import GELU_TANH
from nbnet.kernels.gpu.compile import SIMULATED, formula

A, B = GELU_TANH
ROOT = math.sqrt(0.5)
DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0

if SIMULATED:

    def like(x, value):
        """The constant in x's dtype: a float64 would promote float32."""
        return type(x)(value)

    def fma(a, b, c):
        """a * b + c, rounded once on a GPU."""
        return a * b + c

else:
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    @intrinsic
    def like(typing_context, x, value):
        """The constant in x's dtype: a float64 would promote float32."""

        def code(context, builder, signature, args):
            return builder.fptrunc(args[1], ir.FloatType()) if signature.args[0].bitwidth == 32 else args[1]

        return x(x, value), code

    @formula
    def fma(a, b, c):
        """a * b + c, rounded once."""
        return cuda.fma(a, b, c)


@formula
def activate(z, slope):
    """z where it is above 0, else slope * z, and 0 where the slope is 0: ReLU of minus infinity is 0 too. NaN stays NaN."""
    low = slope * z if slope > 0 else slope
    return low if z <= 0 else z


@formula
def activate4(z, slope):
    """z where it is above 0, else slope * z."""
    return (
        z[0] if z[0] > 0 else slope * z[0],
        z[1] if z[1] > 0 else slope * z[1],
        z[2] if z[2] > 0 else slope * z[2],
        z[3] if z[3] > 0 else slope * z[3],
    )


@formula
def through4(dy, z, slope):
    """dy times the slope of the activation at z."""
    return (
        dy[0] if z[0] > 0 else slope * dy[0],
        dy[1] if z[1] > 0 else slope * dy[1],
        dy[2] if z[2] > 0 else slope * dy[2],
        dy[3] if z[3] > 0 else slope * dy[3],
    )


# ------------------------------------------------------------------------------------------------------- piecewise linear


@formula
def relu(x):
    return like(x, 0.0) if x <= like(x, 0.0) else x  # NaN <= 0 is false: NaN passes


@formula
def relu_through(dy, y):
    return like(y, 0.0) if y <= like(y, 0.0) else dy


@formula
def leaky_relu(x, slope):
    return x if x > like(x, 0.0) else slope * x


@formula
def leaky_relu_through(dy, y, slope):
    return dy if y > like(y, 0.0) else slope * dy


@formula
def hardtanh(x, low, high):
    return low if x < low else high if x > high else x


@formula
def hardtanh_through(dy, y, low, high):
    return like(y, 0.0) if y <= low or y >= high else dy


@formula
def hardsigmoid(x):
    if x <= like(x, -3.0):
        return like(x, 0.0)
    return like(x, 1.0) if x >= like(x, 3.0) else (x + like(x, 3.0)) * like(x, 1 / 6)


@formula
def hardsigmoid_through(dy, x):
    return dy * like(x, 1 / 6) if x > like(x, -3.0) and x < like(x, 3.0) else like(x, 0.0)


@formula
def hardswish(x):
    if x <= like(x, -3.0):
        return like(x, 0.0)
    return x if x >= like(x, 3.0) else x * ((x + like(x, 3.0)) * like(x, 1 / 6))


@formula
def hardswish_through(dy, x):
    if x <= like(x, -3.0):
        return like(x, 0.0)
    return dy if x >= like(x, 3.0) else dy * (x * like(x, 1 / 3) + like(x, 0.5))


# ----------------------------------------------------------------------------------------------------- of exponentials


@formula
def within(x, bound):
    """x, at most bound in size; NaN stays NaN."""
    return -bound if x < -bound else bound if x > bound else x


@formula
def tanh(x):
    return math.tanh(x)


@formula
def tanh_through(dy, y):
    return dy * (like(y, 1.0) - y * y)


@formula
def sigmoid(x):
    e = math.exp(-abs(x))
    return (e if x < like(x, 0.0) else like(x, 1.0)) / (like(x, 1.0) + e)


@formula
def sigmoid_through(dy, y):
    return dy * (y * (like(y, 1.0) - y))


@formula
def softsign(x):
    return math.copysign(like(x, 1.0), x) if math.isinf(x) else x / (like(x, 1.0) + abs(x))


@formula
def softsign_through(dy, x):
    share = like(x, 1.0) / (like(x, 1.0) + abs(x))
    return dy * (share * share)


@formula
def normal(x):
    """Phi(x) = erfc(-x / sqrt 2) / 2 for bounded x, whose argument is rounded: an error of d is -2 exp(-a^2) / sqrt(pi) d of erfc."""
    a = -x * like(x, ROOT)
    lost = fma(-x, like(x, ROOT), -a)
    return like(x, 0.5) * math.erfc(a) - lost * (math.exp(-a * a) * like(x, 1 / math.sqrt(math.pi)))


@formula
def gelu(x):
    return x if x > like(x, 40.0) else within(x, like(x, 40.0)) * normal(within(x, like(x, 40.0)))


@formula
def gelu_through(dy, x):
    x = within(x, like(x, 40.0))
    return dy * (normal(x) + x * (math.exp(like(x, -0.5) * x * x) * like(x, DENSITY)))


@formula
def gelu_tanh(x):
    t = within(x, like(x, 40.0))
    s = sigmoid(t * (like(x, A) + like(x, B) * t * t))
    return x * s if x > like(x, 0.0) else t * s


@formula
def gelu_tanh_through(dy, x):
    x = within(x, like(x, 40.0))
    z = x * (like(x, A) + like(x, B) * x * x)
    slope = like(x, A) + like(x, 3 * B) * x * x
    return dy * (sigmoid(z) * (like(x, 1.0) + x * slope * sigmoid(-z)))


@formula
def silu(x):
    return (x if x > like(x, 0.0) else within(x, like(x, 1e3))) * sigmoid(x)


@formula
def silu_through(dy, x):
    return dy * (sigmoid(x) * (like(x, 1.0) + within(x, like(x, 1e3)) * sigmoid(-x)))


@formula
def mish(x):
    e, one, two = math.exp(-abs(x)), like(x, 1.0), like(x, 2.0)
    if x >= like(x, 0.0):
        n = one + two * e
        return x * (n / (n + two * (e * e)))
    n = e * e + two * e
    return within(x, like(x, 1e3)) * (n / (n + two))


@formula
def mish_through(dy, x):
    """The derivative is n / d + x 4 q (1 + e) / d^2 with q = exp(-2 x) above 0, else exp x."""
    e, one, two = math.exp(-abs(x)), like(x, 1.0), like(x, 2.0)
    positive = x >= like(x, 0.0)
    n = (one if positive else e * e) + two * e
    d = n + (two * (e * e) if positive else two)
    rest = within(x, like(x, 1e3)) * like(x, 4.0) * (e * e if positive else e) * (one + e)
    return dy * ((rest / d + n) / d)


@formula
def elu(x, alpha, outer, inner):
    return outer * x if x > like(x, 0.0) else outer * alpha * math.expm1(inner * x)


@formula
def elu_through(dy, x, alpha, outer, inner):
    return dy * (outer if x > like(x, 0.0) else outer * alpha * inner * math.exp(inner * x))


@formula
def softplus(x, beta, threshold):
    z = beta * x
    if z > threshold:
        return x
    return (x if x > like(x, 0.0) else like(x, 0.0)) + math.log1p(math.exp(-abs(z))) / beta


@formula
def softplus_through(dy, x, beta, threshold):
    return dy if beta * x > threshold else dy * sigmoid(beta * x)


@formula
def logsigmoid(x):
    return (like(x, 0.0) if x > like(x, 0.0) else x) - math.log1p(math.exp(-abs(x)))


@formula
def logsigmoid_through(dy, x):
    return dy * sigmoid(-x)
