"""Pooling on CUDA: a thread computes four channels of a pixel, or one if the channels are not a multiple of four.

Backward gathers: a thread reads the windows that contain its pixel, so no two threads add to the same number, and dx need not be
zeroed first.
"""

from nbnet.kernels.gpu.compile import formula, kernel
from nbnet.kernels.gpu.launch import add4, load4, multiply4, narrow, store4
from nbnet.kernels.gpu.pixels import add_kahan, launch, offset, place
from nbnet.kernels.gpu.windows import better, larger, pixels, window, windows_of

# ------------------------------------------------------------------------------------------------ max_forward


@kernel
def _max_forward(x, shape, size, stride, pad, out_shape, y):
    n, oh, ow, c = place(out_shape, 1)
    if n < out_shape[0]:
        top, bottom = window(oh, size[0], stride[0], pad[0], shape[1])
        left, right = window(ow, size[1], stride[1], pad[1], shape[2])
        best = x[offset(shape, n, top, left, c)]
        for h in range(top, bottom):
            for w in range(left, right):
                best = larger(best, x[offset(shape, n, h, w, c)])
        y[offset(out_shape, n, oh, ow, c)] = best


@kernel
def _max_forward4(x, shape, size, stride, pad, out_shape, y):
    n, oh, ow, c = place(out_shape, 4)
    if n < out_shape[0]:
        top, bottom = window(oh, size[0], stride[0], pad[0], shape[1])
        left, right = window(ow, size[1], stride[1], pad[1], shape[2])
        best = load4(x, offset(shape, n, top, left, c))
        for h in range(top, bottom):
            for w in range(left, right):
                v = load4(x, offset(shape, n, h, w, c))
                best = larger(best[0], v[0]), larger(best[1], v[1]), larger(best[2], v[2]), larger(best[3], v[3])
        store4(y, offset(out_shape, n, oh, ow, c), best)


def max_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    geometry = (size_h, size_w), (stride_h, stride_w), (pad_top, pad_left)
    launch((_max_forward, _max_forward4), y.shape, x, x.shape, *geometry, y.shape, y)


# ----------------------------------------------------------------------------------------------- max_backward


@kernel
def _max_backward(dy, x, shape, size, stride, pad, out_shape, dx):
    n, row, column, c = place(shape, 1)
    if n < shape[0]:
        me = narrow(row * shape[2] + column)
        total = x.dtype.type(0)
        first_h, last_h = windows_of(row, size[0], stride[0], pad[0], out_shape[1])
        first_w, last_w = windows_of(column, size[1], stride[1], pad[1], out_shape[2])
        for oh in range(first_h, last_h):
            top, bottom = window(oh, size[0], stride[0], pad[0], shape[1])
            for ow in range(first_w, last_w):
                left, right = window(ow, size[1], stride[1], pad[1], shape[2])
                best, winner = x[offset(shape, n, top, left, c)], narrow(top * shape[2] + left)
                for h in range(top, bottom):
                    for w in range(left, right):
                        best, winner = better(best, winner, x[offset(shape, n, h, w, c)], narrow(h * shape[2] + w))
                if winner == me:
                    total += dy[offset(out_shape, n, oh, ow, c)]
        dx[offset(shape, n, row, column, c)] = total


@kernel
def _max_backward4(dy, x, shape, size, stride, pad, out_shape, dx):
    n, row, column, c = place(shape, 4)
    if n < shape[0]:
        me = narrow(row * shape[2] + column)
        zero = x.dtype.type(0)
        total = zero, zero, zero, zero
        first_h, last_h = windows_of(row, size[0], stride[0], pad[0], out_shape[1])
        first_w, last_w = windows_of(column, size[1], stride[1], pad[1], out_shape[2])
        for oh in range(first_h, last_h):
            top, bottom = window(oh, size[0], stride[0], pad[0], shape[1])
            for ow in range(first_w, last_w):
                left, right = window(ow, size[1], stride[1], pad[1], shape[2])
                v = load4(x, offset(shape, n, top, left, c))
                b0, b1, b2, b3 = v
                at = narrow(top * shape[2] + left)
                w0, w1, w2, w3 = at, at, at, at
                for h in range(top, bottom):
                    for w in range(left, right):
                        v, at = load4(x, offset(shape, n, h, w, c)), narrow(h * shape[2] + w)
                        b0, w0 = better(b0, w0, v[0], at)
                        b1, w1 = better(b1, w1, v[1], at)
                        b2, w2 = better(b2, w2, v[2], at)
                        b3, w3 = better(b3, w3, v[3], at)
                g = load4(dy, offset(out_shape, n, oh, ow, c))
                g = g[0] if w0 == me else zero, g[1] if w1 == me else zero, g[2] if w2 == me else zero, g[3] if w3 == me else zero
                total = add4(total, g)
        store4(dx, offset(shape, n, row, column, c), total)


@formula
def _of_winner(g, w, me, zero):
    return g[0] if w[0] == me else zero, g[1] if w[1] == me else zero, g[2] if w[2] == me else zero, g[3] if w[3] == me else zero


@formula
def _better4(best, w, v, at):
    b0, w0 = better(best[0], w[0], v[0], at)
    b1, w1 = better(best[1], w[1], v[1], at)
    b2, w2 = better(best[2], w[2], v[2], at)
    b3, w3 = better(best[3], w[3], v[3], at)
    return (b0, b1, b2, b3), (w0, w1, w2, w3)


@kernel
def _max_backward_2x2(dy, x, shape, blocks, out_shape, dx):
    """For windows of 2 x 2 side by side, and four channels: a thread has one block of 2 x 2 pixels, or what of it is inside, and reads it
    once. Blocks at the edge may have no window."""
    n, oh, ow, c = place(blocks, 4)
    if n < shape[0]:
        zero = x.dtype.type(0)
        at, below = offset(shape, n, 2 * oh, 2 * ow, c), shape[2] * shape[3]
        right, down = 2 * ow + 1 < shape[2], 2 * oh + 1 < shape[1]
        best, w = load4(x, at), (0, 0, 0, 0)
        if right:
            best, w = _better4(best, w, load4(x, at + shape[3]), 1)
        if down:
            best, w = _better4(best, w, load4(x, at + below), 2)
            if right:
                best, w = _better4(best, w, load4(x, at + below + shape[3]), 3)
        g = zero, zero, zero, zero
        if oh < out_shape[1] and ow < out_shape[2]:
            g = add4(load4(dy, offset(out_shape, n, oh, ow, c)), g)  # -0 becomes 0, as in a sum over windows
        store4(dx, at, _of_winner(g, w, 0, zero))
        if right:
            store4(dx, at + shape[3], _of_winner(g, w, 1, zero))
        if down:
            store4(dx, at + below, _of_winner(g, w, 2, zero))
            if right:
                store4(dx, at + below + shape[3], _of_winner(g, w, 3, zero))


def max_backward(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    geometry = (size_h, size_w), (stride_h, stride_w), (pad_top, pad_left)
    if geometry == ((2, 2), (2, 2), (0, 0)) and x.shape[3] % 4 == 0:
        blocks = x.shape[0], -(-x.shape[1] // 2), -(-x.shape[2] // 2), x.shape[3]
        launch((None, _max_backward_2x2), blocks, dy, x, x.shape, blocks, dy.shape, dx)
        return
    launch((_max_backward, _max_backward4), x.shape, dy, x, x.shape, *geometry, dy.shape, dx)


# ------------------------------------------------------------------------------------------------ avg_forward


@kernel
def _avg_forward(x, shape, size, stride, pad, end, out_shape, y):
    n, oh, ow, c = place(out_shape, 1)
    if n < out_shape[0]:
        top, bottom = window(oh, size[0], stride[0], pad[0], shape[1])
        left, right = window(ow, size[1], stride[1], pad[1], shape[2])
        zero = x.dtype.type(0)
        total, lost = zero, zero
        for h in range(top, bottom):
            for w in range(left, right):
                total, lost = add_kahan(total, lost, x[offset(shape, n, h, w, c)], zero)
        count = pixels(oh, size[0], stride[0], pad[0], shape[1], end[0]) * pixels(ow, size[1], stride[1], pad[1], shape[2], end[1])
        y[offset(out_shape, n, oh, ow, c)] = total / x.dtype.type(count)


@kernel
def _avg_forward4(x, shape, size, stride, pad, end, out_shape, y):
    n, oh, ow, c = place(out_shape, 4)
    if n < out_shape[0]:
        top, bottom = window(oh, size[0], stride[0], pad[0], shape[1])
        left, right = window(ow, size[1], stride[1], pad[1], shape[2])
        zero = x.dtype.type(0)
        t0, t1, t2, t3 = zero, zero, zero, zero
        l0, l1, l2, l3 = zero, zero, zero, zero
        for h in range(top, bottom):
            for w in range(left, right):
                v = load4(x, offset(shape, n, h, w, c))
                t0, l0 = add_kahan(t0, l0, v[0], zero)
                t1, l1 = add_kahan(t1, l1, v[1], zero)
                t2, l2 = add_kahan(t2, l2, v[2], zero)
                t3, l3 = add_kahan(t3, l3, v[3], zero)
        count = pixels(oh, size[0], stride[0], pad[0], shape[1], end[0]) * pixels(ow, size[1], stride[1], pad[1], shape[2], end[1])
        count = x.dtype.type(count)
        store4(y, offset(out_shape, n, oh, ow, c), (t0 / count, t1 / count, t2 / count, t3 / count))


def avg_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, y):
    geometry = (size_h, size_w), (stride_h, stride_w), (pad_top, pad_left), (end_h, end_w)
    launch((_avg_forward, _avg_forward4), y.shape, x, x.shape, *geometry, y.shape, y)


# ----------------------------------------------------------------------------------------------- avg_backward


@kernel
def _avg_backward(dy, shape, size, stride, pad, end, out_shape, dx):
    n, row, column, c = place(shape, 1)
    if n < shape[0]:
        one = dx.dtype.type(1)
        total = dx.dtype.type(0)
        first_h, last_h = windows_of(row, size[0], stride[0], pad[0], out_shape[1])
        first_w, last_w = windows_of(column, size[1], stride[1], pad[1], out_shape[2])
        for oh in range(first_h, last_h):
            rows = pixels(oh, size[0], stride[0], pad[0], shape[1], end[0])
            for ow in range(first_w, last_w):
                share = one / dx.dtype.type(rows * pixels(ow, size[1], stride[1], pad[1], shape[2], end[1]))
                total += dy[offset(out_shape, n, oh, ow, c)] * share
        dx[offset(shape, n, row, column, c)] = total


@kernel
def _avg_backward4(dy, shape, size, stride, pad, end, out_shape, dx):
    n, row, column, c = place(shape, 4)
    if n < shape[0]:
        zero, one = dx.dtype.type(0), dx.dtype.type(1)
        total = zero, zero, zero, zero
        first_h, last_h = windows_of(row, size[0], stride[0], pad[0], out_shape[1])
        first_w, last_w = windows_of(column, size[1], stride[1], pad[1], out_shape[2])
        for oh in range(first_h, last_h):
            rows = pixels(oh, size[0], stride[0], pad[0], shape[1], end[0])
            for ow in range(first_w, last_w):
                share = one / dx.dtype.type(rows * pixels(ow, size[1], stride[1], pad[1], shape[2], end[1]))
                g = load4(dy, offset(out_shape, n, oh, ow, c))
                total = add4(total, multiply4(g, (share, share, share, share)))
        store4(dx, offset(shape, n, row, column, c), total)


def avg_backward(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, dx):
    geometry = (size_h, size_w), (stride_h, stride_w), (pad_top, pad_left), (end_h, end_w)
    launch((_avg_backward, _avg_backward4), dx.shape, dy, dx.shape, *geometry, dy.shape, dx)
