"""backward_data by col2im: each pixel of dy times all weights, added to the pixels of dx that it came from.

A convolution with rotated weights has the channels of dx as its columns: with three channels, a vector register holds three useful
numbers of sixteen, and with a stride most of the multiplied pixels are zeros between those of dy. Here the columns are all D = KH*KW*I
weights of an output channel, and no product is wasted. Then KH runs of KW*I numbers are added per pixel. An image belongs to one
thread, since neighbouring pixels add to the same numbers.
"""

from nbnet.kernels.conv2d import STRIP
from nbnet.kernels.cpu.compile import body, inlined
from nbnet.kernels.cpu.gemm import gemm
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, store


@body
def _add_runs(columns, count, left, run, depth, offset, step, kernel_w, row, width, dx):
    """Add `count` runs of `run` numbers, `depth` apart in columns, to a row of dx, each `step` numbers after the previous one.

    Neighbouring runs overlap, so every kernel_w-th run is added first: no load waits for the previous store.
    """
    for phase in range(kernel_w):
        for pixel in range(phase, count, kernel_w):
            start = left + pixel * step
            end = min(start + run, width)
            first = max(start, 0)
            source = pixel * depth + offset - start
            for j in range(first, end, lanes(dx)):
                n = end - j
                store(dx, row + j, n, load(dx, row + j, n) + load(columns, source + j, n))


@inlined
def backward_data(dy, transposed, zeros, kernel, groups, geometry, start, stop, columns, dx):
    """dx of images start to stop. transposed (G, O / G, D): the weights of each group. zeros (KH*KW*I,); columns: scratch for the products
    of STRIP // (KH*KW*I) pixels, at least one."""
    (kernel_h, kernel_w), (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w) = kernel, geometry
    out_h, out_w, outputs = dy.shape[1], dy.shape[2], dy.shape[3]
    height, width, inputs = dx.shape[1], dx.shape[2], dx.shape[3]
    depth = kernel_h * kernel_w * inputs
    own, channels = depth // groups, inputs // groups
    # The runs of a row of the kernel: one, unless gaps are between its pixels or between the channels of a group.
    runs = 1 if groups == 1 and dilation_w == 1 else kernel_w
    run, overlap = kernel_w // runs * channels, kernel_w // runs
    gradient, target = dy.reshape(-1), dx.reshape(-1)
    block = max(1, STRIP // depth)
    for image in range(start, stop):
        dx[image] = 0
        for oh in range(out_h):
            for first in range(0, out_w, block):
                count = min(block, out_w - first)
                for group in range(groups):
                    at = ((image * out_h + oh) * out_w + first) * outputs + group * (outputs // groups)
                    b_at = group * (outputs // groups) * own
                    gemm(
                        count,
                        gradient,
                        at,
                        0,
                        outputs,
                        1,
                        transposed,
                        b_at,
                        0,
                        own,
                        1,
                        outputs // groups,
                        zeros,
                        0,
                        0,
                        columns,
                        group * own,
                        depth,
                        own,
                    )
                for kh in range(kernel_h):
                    h = oh * stride_h + kh * dilation_h - pad_top
                    if 0 <= h < height:
                        row = (image * height + h) * width * inputs
                        for group in range(groups):
                            for k in range(runs):
                                left = (first * stride_w + k * dilation_w - pad_left) * inputs + group * channels
                                source = group * own + (kh * runs + k) * run
                                _add_runs(columns, count, left, run, depth, source, stride_w * inputs, overlap, row, width * inputs, target)
