"""How work is cut into chunks: from the shape alone, never from the number of threads.

So results have the same bits with 1 or 64 threads, and with the serial driver. Partial results of chunks are merged in chunk order. The
functions here run in Python (where a caller sizes scratch) and in kernels.
"""

from numba.extending import register_jitable

GRAIN = 32768  # elementary operations that justify a chunk: about 10 us, eight times an empty parallel loop
LIMIT = 64  # the most chunks: enough for 64 threads, few enough that merging partials costs nothing


@register_jitable
def shared(most):
    """The largest power of two that is at most `most`: chunks that 2, 4 or 8 threads share evenly."""
    chunks = 1
    while 2 * chunks <= most:
        chunks *= 2
    return chunks


@register_jitable
def count(units, work_per_unit):
    """Number of chunks for `units` indivisible units (rows, images) of `work_per_unit` elementary operations each."""
    return shared(min(LIMIT, units, units * work_per_unit // GRAIN))


@register_jitable
def bounds(chunk, chunks, units):
    """The half-open range of units of one chunk; sizes differ by at most one."""
    return chunk * units // chunks, (chunk + 1) * units // chunks
