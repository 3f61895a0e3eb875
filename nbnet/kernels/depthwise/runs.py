"""Runs of windows along a row, for all channels: the inner loops of depthwise convolution.

    y[k, c] = init[c] + sum_{r < rows} sum_{t < taps} x[at + k * apart + r * down + t * step + c] * w[w_at + r * w_down + t * w_step + c]

A tuple `source` is (x, apart, down, step), `weights` is (w, w_down, w_step); arrays are flat, and all distances are in numbers. `result` is
(init, slope, y, between, bypasses): y[k] = act(...) is `between` numbers after y[k - 1], and bypasses the caches or not. `fetch` is (at,
pixels): where in x the numbers begin that come next in memory, and how many pixels of them to prefetch for each output.
"""

from nbnet.kernels.cpu.compile import body, inlined
from nbnet.kernels.cpu.epilogue import activated
from nbnet.kernels.cpu.prefetch import prefetch_far, store_or_stream
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import fma
from nbnet.kernels.cpu.vector import load, load_whole
from nbnet.kernels.cpu.window_tiles import make_windows

OUTPUTS = 6  # side by side, which share vectors
one_window, six_windows = make_windows(1), make_windows(OUTPUTS)


@body
def met(outputs, first, apart, step, taps, limit):
    """The outputs k whose taps first + k * apart + t * step, for t < taps, are all from 0 to limit: the first and the last (exclusive)."""
    low, high = min(0, (taps - 1) * step), max(0, (taps - 1) * step)
    start = max(0, -((first + low) // apart))
    return start, max(start, min(outputs, (limit - 1 - first - high) // apart + 1))


@body
def inside(first, step, taps, limit):
    """The taps t with 0 <= first + t * step < limit: the first and the last (exclusive)."""
    start, stop = taps, taps
    for t in range(taps - 1, -1, -1):
        if 0 <= first + t * step < limit:
            start = t
        elif start == stop:
            start = stop = t
    return start, stop


@body
def phase(index, stride, dilation, size):
    """The outputs whose windows have an input, counted from the padding, and at which positions: the first position, the distance to the
    next one, how many there are; the output of the first, and by how much the next one's is less."""
    position, step = 0, 1
    while step < stride and step * dilation % stride != 0:
        step += 1
    less = step * dilation // stride
    while position < step and (index - position * dilation) % stride != 0:
        position += 1
    count = (size - position + step - 1) // step if position < step and position < size else 0
    return position, step, count, (index - position * dilation) // stride, less


@inlined
def _act(z, slope):
    return activated(z, slope) if slope != 1 else z


@body
def _groups(source, at, weights, w_at, rows, taps, result, to, count, fetch):
    """`count` outputs with all their taps, at least OUTPUTS. The last group, and the last vector of channels, begin early where they do not
    fit: some results are computed twice."""
    (x, apart, down, step), (w, w_down, w_step), (init, slope, y, between, bypasses) = source, weights, result
    ahead, pixels = fetch
    channels, again = init.size, 0
    for k in range(0, count, OUTPUTS):
        if k + OUTPUTS > count:
            again = k + OUTPUTS - count  # outputs of the group before
            at, to = at - again * apart, to - again * between
        fetched = (OUTPUTS - again) * pixels
        for start in range(0, channels, lanes(y)):
            for i in range(fetched):
                prefetch_far(x, ahead + start * fetched + i * lanes(y))
            c = min(start, channels - lanes(y))
            z = six_windows(x, at + c, apart, down, step, w, w_at + c, w_down, w_step, rows, taps, load_whole(init, c))
            here, n = to + c, channels - c
            if again < 1:
                store_or_stream(y, here, n, _act(z[0], slope), bypasses)
            if again < 2:
                store_or_stream(y, here + between, n, _act(z[1], slope), bypasses)
            if again < 3:
                store_or_stream(y, here + 2 * between, n, _act(z[2], slope), bypasses)
            if again < 4:
                store_or_stream(y, here + 3 * between, n, _act(z[3], slope), bypasses)
            if again < 5:
                store_or_stream(y, here + 4 * between, n, _act(z[4], slope), bypasses)
            store_or_stream(y, here + 5 * between, n, _act(z[5], slope), bypasses)
        at, to, ahead = at + OUTPUTS * apart, to + OUTPUTS * between, ahead + fetched * channels


@body
def _single(source, at, weights, w_at, rows, taps, result, to, fetch):
    """One output."""
    (x, _, down, step), (w, w_down, w_step), (init, slope, y, _, bypasses) = source, weights, result
    channels = init.size
    for start in range(0, channels, lanes(y)):
        for i in range(fetch[1]):
            prefetch_far(x, fetch[0] + start * fetch[1] + i * lanes(y))
        c = max(0, min(start, channels - lanes(y)))
        n, z = channels - c, load(init, c, channels - c)
        if n >= lanes(y):
            (z,) = one_window(x, at + c, 0, down, step, w, w_at + c, w_down, w_step, rows, taps, z)
        else:
            for r in range(rows):
                for t in range(taps):
                    z = fma(load(x, at + c + r * down + t * step, n), load(w, w_at + c + r * w_down + t * w_step, n), z)
        store_or_stream(y, to + c, n, _act(z, slope), bypasses)


@inlined
def run(source, base, weights, w_at, rows, columns, result, to, fetch):
    """A run of outputs.

    base: of the first row and column of x; w_at: of the first weight; to: of the first output. rows: the first and the last (exclusive) r
    that are inside. columns: number of outputs, first, apart, step, taps, limit, in pixels of a row of x: tap t of output k is at
    first + k * apart + t * step, and inside from 0 to limit.
    """
    count, first, apart, step, taps, limit = columns
    channels, between, (ahead, pixels) = result[0].size, result[3], fetch
    line, w_line, height = base + rows[0] * source[2] + first * channels, w_at + rows[0] * weights[1], rows[1] - rows[0]
    start, stop = met(count, first, apart, step, taps, limit)
    inner = stop - start if stop - start >= OUTPUTS and channels >= lanes(result[2]) else 0
    if inner > 0:
        at, here, following = line + start * source[1], to + start * between, (ahead + start * pixels * channels, pixels)
        _groups(source, at, weights, w_line, height, taps, result, here, inner, following)
    for j in range(count - inner):
        k = j if j < start else j + inner
        left, right = (0, taps) if start <= k < stop else inside(first + k * apart, step, taps, limit)
        at, w, following = line + k * source[1] + left * source[3], w_line + left * weights[2], (ahead + k * pixels * channels, pixels)
        _single(source, at, weights, w, height, right - left, result, to + k * between, following)
