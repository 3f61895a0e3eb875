"""The matrices of minimal filtering of lines times a column: 3 outputs from 3 taps, with 5 products.

They evaluate polynomials at the points +-p, +-q and infinity (Toom and Cook). With P = p^2 and Q = q^2,

    B' = -pQ   -Q   p  1  0        G = 1/2p(P-Q) ( 1  p   P)            A' = 1  1   1   1   0
          pQ   -Q  -p  1  0            1/2p(P-Q) (-1  p  -P)                 p -p   q  -q   0
         -qP   -P   q  1  0            1/2q(Q-P) ( 1  q   Q)                 P  P   Q   Q   1
          qP   -P  -q  1  0            1/2q(Q-P) (-1  q  -Q)
          PQ    0 -P-Q 0  1                      ( 0  0   1)

All numbers in B' and A' are exact in float32. With p = 1/2, q = 5/4 the error in float32 is that of the plain sum; with 0, 1, -1, 2 and
infinity, the usual points, it is 1.4 times that (docs/design/convolution.md has the figures). Compiled without fastmath, so that serial and
parallel kernels add in the same order.
"""

from nbnet.kernels.conv2d.winograd_points import times
from nbnet.kernels.cpu.compile import precise
from nbnet.kernels.cpu.vector import splat_as, zero

_p, _q = 0.5, 1.25
_P, _Q = _p * _p, _q * _q
_AT_P, _AT_Q = 1 / (2 * _p * (_P - _Q)), 1 / (2 * _q * (_Q - _P))  # the factors of G's rows


@precise
def inputs(d0, d1, d2, d3, d4):
    """B' times a column."""
    even_p, odd_p = times(-_Q, d0, d2), times(-_Q, d1, d3)
    even_q, odd_q = times(-_P, d0, d2), times(-_P, d1, d3)
    last = times(_P * _Q, d0, times(-_P - _Q, d2, d4))
    return times(_p, even_p, odd_p), times(-_p, even_p, odd_p), times(_q, even_q, odd_q), times(-_q, even_q, odd_q), last


@precise
def outputs(m0, m1, m2, m3, m4):
    """A' times a column."""
    sum_p, sum_q, odd_p, odd_q = m0 + m1, m2 + m3, m0 - m1, m2 - m3
    return sum_p + sum_q, times(_q, odd_q, splat_as(_p, odd_p) * odd_p), times(_Q, sum_q, times(_P, sum_p, m4))


@precise
def filters(g0, g1, g2):
    """G times a column."""
    even_p, even_q = times(_P, g2, g0), times(_Q, g2, g0)
    at_p, at_q, none = splat_as(_AT_P, g0), splat_as(_AT_Q, g0), zero(g0)
    p0, p1 = times(_p, g1, even_p) * at_p, times(_p, g1, none - even_p) * at_p
    return p0, p1, times(_q, g1, even_q) * at_q, times(_q, g1, none - even_q) * at_q, g2


@precise
def gradients(d0, d1, d2):
    """A times a column."""
    even_p, even_q = times(_P, d2, d0), times(_Q, d2, d0)
    return times(_p, d1, even_p), times(-_p, d1, even_p), times(_q, d1, even_q), times(-_q, d1, even_q), d2


@precise
def gather(u0, u1, u2, u3, u4):
    """G' times a column."""
    at_p, at_q = splat_as(_AT_P, u0), splat_as(_AT_Q, u0)
    even_p, odd_p, even_q, odd_q = (u0 - u1) * at_p, (u0 + u1) * at_p, (u2 - u3) * at_q, (u2 + u3) * at_q
    return even_p + even_q, times(_q, odd_q, splat_as(_p, odd_p) * odd_p), times(_Q, even_q, times(_P, even_p, u4))
