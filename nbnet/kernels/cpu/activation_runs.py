"""Loops over runs of numbers that apply the forms of nbnet.kernels.cpu.activations."""

from functools import cache

import numpy as np

from nbnet.kernels.cpu.activations import VECTORS
from nbnet.kernels.cpu.compile import body
from nbnet.kernels.cpu.prefetch import bypasses_cache, store_or_stream
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import EXP, RUN
from nbnet.kernels.cpu.vector import load, load_whole, store_whole


def cost(first):
    """Elementary operations per number, for the choice of chunks."""
    return 1 if first is None else EXP


# -------------------------------------------------------------------------------------------------------- runs of numbers


@cache
def forward_of_run(name):
    """The body (options, x, at, y, to, count) of y[to : to + count] = forward(x[at : at + count]); they may be the same."""
    first, forward, _, _ = VECTORS[name]

    @body
    def in_one_loop(options, x, at, y, to, count):
        bypasses = bypasses_cache(y, to)
        for i in range(0, count, lanes(x)):
            n = count - i
            store_or_stream(y, to + i, n, forward(load(x, at + i, n), *options), bypasses and n >= lanes(x))

    @body
    def in_two_loops(options, x, at, y, to, count):
        bypasses = bypasses_cache(y, to)
        e = np.empty(RUN, x.dtype)
        for run in range(0, count, RUN):
            end = min(run + RUN, count)
            for i in range(run, end, lanes(x)):
                store_whole(e, i - run, first(load(x, at + i, end - i), *options))
            for i in range(run, end, lanes(x)):
                n = end - i
                value = forward(load(x, at + i, n), load_whole(e, i - run), *options)
                store_or_stream(y, to + i, n, value, bypasses and n >= lanes(x))

    return in_one_loop if first is None else in_two_loops


@cache
def backward_of_run(name):
    """The body (options, dy, v, start, stop, dx) of dx[start:stop] = dy[start:stop] times the derivative; dx may be dy."""
    _, _, first, through = VECTORS[name]

    @body
    def in_one_loop(options, dy, v, start, stop, dx):
        bypasses = bypasses_cache(dx, start)
        for i in range(start, stop, lanes(v)):
            n = stop - i
            store_or_stream(dx, i, n, through(load(dy, i, n), load(v, i, n), *options), bypasses and n >= lanes(v))

    @body
    def in_two_loops(options, dy, v, start, stop, dx):
        bypasses = bypasses_cache(dx, start)
        e = np.empty(RUN, v.dtype)
        for at in range(start, stop, RUN):
            end = min(at + RUN, stop)
            for i in range(at, end, lanes(v)):
                store_whole(e, i - at, first(load(v, i, end - i), *options))
            for i in range(at, end, lanes(v)):
                n = end - i
                value = through(load(dy, i, n), load(v, i, n), load_whole(e, i - at), *options)
                store_or_stream(dx, i, n, value, bypasses and n >= lanes(v))

    return in_one_loop if first is None else in_two_loops
