"""Group normalisation: each row is normalised by its own statistics, one mean and variance for each group of channels.

Letters: N rows (examples), P points of a row (H*W for images), C channels, G groups of W = C / G channels, K chunks of rows.
x, dy, y, dx are (N, P, C), C-contiguous, float32 or float64 (T). Layer normalisation over the last axis is P = 1, G = 1,
with N all other axes; over several last axes they are one axis of C values. Instance normalisation is G = C.

    forward(x, groups, gamma, beta, eps, centered, scratch, mean, inv_std, y)
        mean_ng = the mean of x over the P points and W channels of the group, var_ng the biased variance,
        inv_std_ng = 1 / sqrt(var_ng + eps),   xhat = (x - mean_ng) * inv_std_ng,   y = xhat * gamma_c + beta_c
        mean, inv_std: (N, G) float64, overwritten; backward needs them and x.
    backward(dy, x, groups, gamma, mean, inv_std, centered, partials, dgamma, dbeta, dx)
        g = dy * gamma_c,   dx = inv_std_ng * (g - mean of g over the group - xhat * mean of g * xhat over the group)
        dgamma_c = sum_np dy * xhat,   dbeta_c = sum_np dy

centered: False takes 0 for the mean, so var_ng is the mean square of the group, and leaves out the mean of g: RMS normalisation.

gamma, beta, dgamma, dbeta: (C,) T. scratch: (K, 3, C) and partials: (K, 6, C), float64; K, from 1 to N, is the caller's
choice from the shape alone.
Everything overwrites (=); nothing accumulates. xhat is recomputed from x, not stored. y may be x, and dx may be dy.

Statistics take two passes over a row, which is in the cache: first the mean, as a deviation from the group's first value, then the
squared deviations from that mean. They and xhat are computed in float64, so a large mean costs no precision. var + eps is at least
the smallest normal float64, so a constant group gives 0 * large = 0.

Formulas: Wu and He 2018 (group normalisation); Ba, Kiros and Hinton 2016 (layer normalisation); Zhang and Sennrich 2019 (RMS
normalisation).
"""

TINY = 2.2250738585072014e-308  # the smallest normal float64
