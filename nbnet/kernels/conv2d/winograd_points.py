"""The matrices of minimal filtering times a column, for 4 outputs (6 points) and for 2 (the points 0, p, -p and infinity).

They evaluate polynomials at the points 0, +-p, +-q and infinity (Toom and Cook). With P = p^2 and Q = q^2,

    B' = PQ   0  -P-Q   0   1  0    G =    1/PQ   (1  0  0)            A' = 1  1   1   1   1   0
          0  -pQ   -Q   p   1  0        1/2P(P-Q) (1  p  P)                 0  p  -p   q  -q   0
          0   pQ   -Q  -p   1  0        1/2P(P-Q) (1 -p  P)                 0  P   P   Q   Q   0
          0  -qP   -P   q   1  0        1/2Q(Q-P) (1  q  Q)                 0 pP -pP  qQ -qQ   1
          0   qP   -P  -q   1  0        1/2Q(Q-P) (1 -q  Q)
          0   PQ    0 -P-Q  0  1                  (0  0  1)

Two outputs need only 0, p, -p and infinity. With the same G, so that filters are transformed only once,

    B' = PQ        0       -Q   0                                      A' = 1  1   1   0
          0   p(P-Q)      P-Q   0                                           0  p  -p   1
          0  -p(P-Q)      P-Q   0
          0       -P        0   1

Points of similar size have the smallest rounding errors: with p = 3/4, q = 3/2 the error in float32 is about twice that of the plain sum,
a quarter of the error of Lavin and Gray's 1 and 2 (docs/design/convolution.md has the figures). All of it is compiled without fastmath, so
that serial and parallel kernels add in the same order.
"""

from nbnet.kernels.cpu.compile import precise
from nbnet.kernels.cpu.vecmath import fma
from nbnet.kernels.cpu.vector import splat_as

_p, _q = 0.75, 1.5
_P, _Q = _p * _p, _q * _q
_AT_0, _AT_P, _AT_Q = 1 / (_P * _Q), 1 / (2 * _P * (_P - _Q)), 1 / (2 * _Q * (_Q - _P))  # the factors of G's rows


@precise
def times(number, vector, addend):
    """number * vector + addend, rounded once."""
    return fma(splat_as(number, vector), vector, addend)


@precise
def inputs(d0, d1, d2, d3, d4, d5):
    """B' times a column."""
    even_p, odd_p = times(-_Q, d2, d4), times(-_Q, d1, d3)
    even_q, odd_q = times(-_P, d2, d4), times(-_P, d1, d3)
    first = times(_P * _Q, d0, times(-_P - _Q, d2, d4))
    last = times(_P * _Q, d1, times(-_P - _Q, d3, d5))
    return first, times(_p, odd_p, even_p), times(-_p, odd_p, even_p), times(_q, odd_q, even_q), times(-_q, odd_q, even_q), last


@precise
def inputs_of_2(d0, d1, d2, d3):
    even, odd = splat_as(_P - _Q, d2) * d2, splat_as(_p * (_P - _Q), d1) * d1
    return times(_P * _Q, d0, splat_as(-_Q, d2) * d2), even + odd, even - odd, times(-_P, d1, d3)


@precise
def outputs(m0, m1, m2, m3, m4, m5):
    """A' times a column."""
    sum_p, sum_q, odd_p, odd_q = m1 + m2, m3 + m4, m1 - m2, m3 - m4
    y1 = times(_q, odd_q, splat_as(_p, odd_p) * odd_p)
    y2 = times(_Q, sum_q, splat_as(_P, sum_p) * sum_p)
    return m0 + sum_p + sum_q, y1, y2, times(_q * _Q, odd_q, times(_p * _P, odd_p, m5))


@precise
def outputs_of_2(m0, m1, m2, m5):
    return m0 + (m1 + m2), times(_p, m1 - m2, m5)


@precise
def filters(g0, g1, g2):
    """G times a column."""
    even_p, even_q = times(_P, g2, g0), times(_Q, g2, g0)
    at_p, at_q = splat_as(_AT_P, g0), splat_as(_AT_Q, g0)
    p0, p1 = times(_p, g1, even_p) * at_p, times(-_p, g1, even_p) * at_p
    q0, q1 = times(_q, g1, even_q) * at_q, times(-_q, g1, even_q) * at_q
    return splat_as(_AT_0, g0) * g0, p0, p1, q0, q1, g2


@precise
def gradients(d0, d1, d2, d3):
    """A times a column."""
    even_p, odd_p = times(_P, d2, d0), times(_p * _P, d3, splat_as(_p, d1) * d1)
    even_q, odd_q = times(_Q, d2, d0), times(_q * _Q, d3, splat_as(_q, d1) * d1)
    return d0, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, d3


@precise
def gradients_of_2(d0, d1):
    odd = splat_as(_p, d1) * d1
    return d0, d0 + odd, d0 - odd, d1


@precise
def gather(u0, u1, u2, u3, u4, u5):
    """G' times a column."""
    at_p, at_q = splat_as(_AT_P, u1), splat_as(_AT_Q, u3)
    sum_p, odd_p, sum_q, odd_q = (u1 + u2) * at_p, (u1 - u2) * at_p, (u3 + u4) * at_q, (u3 - u4) * at_q
    g1 = times(_q, odd_q, splat_as(_p, odd_p) * odd_p)
    return times(_AT_0, u0, sum_p + sum_q), g1, times(_Q, sum_q, times(_P, sum_p, u5))
