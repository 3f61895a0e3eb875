"""Merging the partial statistics of chunks, in chunk order: so the result is the same bits on any number of threads.

Without fastmath, with which LLVM may add in another order in the one driver than in the other.
"""

from nbnet.kernels.cpu.compile import precise


@precise
def merge_moments(partials, mean, m2):
    """Mean and summed squared deviations of all rows, from those of each chunk."""
    for c in range(mean.shape[0]):
        total, mu, squares = 0.0, 0.0, 0.0
        for k in range(partials.shape[0]):
            n = partials[k, 2, c]
            if n > 0:
                delta = partials[k, 0, c] - mu
                squares += partials[k, 1, c] + delta * delta * total * n / (total + n)
                total += n
                mu += delta * n / total
        mean[c] = mu
        m2[c] = squares


@precise
def merge_sums(partials, sum_g, sum_gx):
    """The sums over all rows, from those of each chunk."""
    for c in range(sum_g.shape[0]):
        g, gx = 0.0, 0.0
        for k in range(partials.shape[0]):
            g += partials[k, 0, c]
            gx += partials[k, 1, c]
        sum_g[c] = g
        sum_gx[c] = gx
