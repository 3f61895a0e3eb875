"""Batch normalisation and an activation of the table in one pass, on the CPU."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.activations import TABLE
from nbnet.kernels.cpu.activation_runs import forward_of_run
from nbnet.kernels.cpu.activations import VECTORS
from nbnet.kernels.cpu.compile import body, precise
from nbnet.kernels.cpu.drivers import drivers
from nbnet.kernels.cpu.prefetch import bypasses_cache, needs_prefetch, prefetch, store_or_stream
from nbnet.kernels.cpu.reductions import merge_sums
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import EXP, fma
from nbnet.kernels.cpu.vector import load, load_as, store, widen

NUMBERS = 2048  # normalised before they are activated: they stay in the level-1 cache
ROWS = 16  # summed in registers before the sums go back to memory, while the next ones are prefetched

# ------------------------------------------------------------------------------------------------------ apply


def _apply(name):
    activate = forward_of_run(name)

    @body
    def run(part, parts, x, center, scale, shift, options, y):
        """Normalise some rows, then activate them as one run of numbers, so that vectors are full even with few channels."""
        start, stop = chunks.bounds(part, parts, x.shape[0])
        channels, source, target = x.shape[1], x.reshape(-1), y.reshape(-1)
        rows = max(1, NUMBERS // channels)
        z = np.empty(rows * channels, x.dtype)
        for block in range(start, stop, rows):
            count = min(rows, stop - block)
            for m in range(count):
                for c in range(0, channels, lanes(x)):
                    n, at = channels - c, (block + m) * channels + c
                    store(z, m * channels + c, n, fma(load(source, at, n) - load(center, c, n), load(scale, c, n), load(shift, c, n)))
            activate(options, z, 0, target, block * channels, count * channels)

    return run


APPLY = """
@serial
def apply_NAME_serial(x, center, scale, shift, OPTIONS, y):
    n = chunks.count(x.shape[0], work * x.shape[1])
    for k in range(n):
        run(k, n, x, center, scale, shift, TUPLE, y)


@parallel
def apply_NAME_parallel(x, center, scale, shift, OPTIONS, y):
    n = chunks.count(x.shape[0], work * x.shape[1])
    parallel_for(n, run, (n, x, center, scale, shift, TUPLE, y))
"""

# -------------------------------------------------------------------------------------------- backward_reduce


def _through(name):
    """The gradient g through the activation, from what its backward gets."""
    _, _, first, through = VECTORS[name]

    @precise
    def in_one_step(g, v, options):
        return through(g, v, *options)

    @precise
    def in_two_steps(g, v, options):
        return through(g, v, first(v, *options), *options)

    return in_one_step if first is None else in_two_steps


def _backward_reduce(name):
    through, from_y = _through(name), TABLE[name].saves == "y"

    @body
    def run(part, dy, y, x, center, scale, shift, options, partials, g):
        start, stop = chunks.bounds(part, partials.shape[0], x.shape[0])
        sum_g, sum_gx, channels = partials[part, 0], partials[part, 1], x.shape[1]
        gradient, activated, source, target = dy.reshape(-1), y.reshape(-1), x.reshape(-1), g.reshape(-1)
        prefetches, bypasses = needs_prefetch(x), bypasses_cache(g, channels)
        for c in range(channels):
            sum_g[c] = 0.0
            sum_gx[c] = 0.0
        for block in range(start, stop, ROWS):
            end, ahead = min(block + ROWS, stop), (block + ROWS) * channels
            for c in range(0, channels, lanes(x)):
                n = channels - c
                middle, factor, offset = load(center, c, n), load(scale, c, n), load(shift, c, n)
                s, sx = load_as(sum_g, c, n, middle), load_as(sum_gx, c, n, middle)
                for m in range(block, end):
                    at = m * channels + c
                    if prefetches:
                        prefetch(gradient, ahead)
                        prefetch(source, ahead)
                        if from_y:
                            prefetch(activated, ahead)
                        ahead += lanes(x)
                    d = load(source, at, n) - middle
                    v = load(activated, at, n) if from_y else fma(d, factor, offset)
                    value = through(load(gradient, at, n), v, options)
                    store_or_stream(target, at, n, value, bypasses)
                    s = s + widen(value)
                    sx = sx + widen(value) * widen(d)
                store(sum_g, c, n, s)
                store(sum_gx, c, n, sx)

    return run


BACKWARD_REDUCE = """
@serial
def backward_reduce_NAME_serial(dy, y, x, center, scale, shift, OPTIONS, partials, g, sum_g, sum_gx):
    for k in range(partials.shape[0]):
        run(k, dy, y, x, center, scale, shift, TUPLE, partials, g)
    merge_sums(partials, sum_g, sum_gx)


@parallel
def backward_reduce_NAME_parallel(dy, y, x, center, scale, shift, OPTIONS, partials, g, sum_g, sum_gx):
    parallel_for(partials.shape[0], run, (dy, y, x, center, scale, shift, TUPLE, partials, g))
    merge_sums(partials, sum_g, sum_gx)
"""

TEMPLATES = {"apply_NAME": APPLY, "backward_reduce_NAME": BACKWARD_REDUCE}


def make(name, text, row):
    """The drivers of one kernel."""
    form = VECTORS[row.name]
    if name.startswith("apply_"):
        return drivers(name, text, form.forward.py_func, run=_apply(row.name), work=EXP)
    return drivers(name, text, form.through.py_func, run=_backward_reduce(row.name), merge_sums=merge_sums)
