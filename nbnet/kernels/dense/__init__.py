"""Dense (fully connected) layer.

Letters: M rows, I inputs, O outputs, K chunks. All arrays C-contiguous, one dtype T (float32 or float64).

    forward(x, weight, bias, slope, y, partials, mean, m2)
                                                 y_mo = act(bias_o + sum_i x_mi * weight_io)
    backward_data(dy, weight, transposed, dx)    dx_mi = sum_o dy_mo * weight_io
    backward_weights(x, dy, dweight, dbias)      dweight_io = sum_m x_mi * dy_mo,  dbias_o = sum_m dy_mo
    backward_weights_norm(x, dy, y, weight, mean, center, sum_dy, a, b, c, products, moments, dweight, dbias)
        the same for a_o * dy_mo + b_o + c_o * (y_mo - center_o), the gradient dy after it has passed back through a batch norm behind the
        layer (nbnet.kernels.batchnorm). The CPU does not compute this array: y is affine in x, so with means over the rows x' and y',
            sum_m x_mi * (y_mo - y'_o) = sum_j sum_m (x_mi - x'_i) * (x_mj - x'_j) * weight_jo
        which is few numbers if there are few inputs.

act(z) = z where z > 0, else slope * z: slope 1 is no activation, 0 is ReLU (0 for minus infinity too), others above 0 are leaky ReLU.
The gradient through it needs only y, and is computed before these backward kernels: nbnet.kernels.activation.

mean, m2: (O,) float64: the mean and the sum of squared deviations of y's columns; None, with partials, if they are not needed.
center, sum_dy, a, b, c: (O,), sum_dy of dy's columns.

x, dx: (M, I).  y, dy: (M, O).  weight, dweight: (I, O).  bias, dbias: (O,).
Scratch: transposed (K, O + 1, W) T of transposed_shape(M, I, O): for each chunk, its part of the transposed weights and a row of zeros;
partials (P, 3, O) float64, P the first number of grid(M, O, I), for statistics; products (K, I, O) and moments (K, I, I + 1), both float64,
K = chunks.count(M, O), for the sums of each chunk.
Everything overwrites (=). Backward needs x and weight from forward.

A result is cut into a grid of rows and columns, so that there is work for threads if either the batch or the weights are large, down
to blocks of 64 x 32. No two chunks write the same number, so there is nothing to merge.
"""

from numba.extending import register_jitable

from nbnet.kernels import chunks
from nbnet.kernels.cpu.gemm import MACS

ROWS, COLUMNS = 64, 32  # the least size of a chunk, about: rows share the weights they read, and chunks of columns share no cache line
FLAT, NARROW, STORE = 8, 16, 16  # fewer rows or columns cost as much as these; writing a number costs 16 products
PAD = 16  # numbers between rows of transposed weights; without them rows of 256 numbers would map to few sets of the level-1 cache


@register_jitable
def grid(rows, columns, depth):
    """The numbers of chunks along the rows and the columns of a result whose numbers are sums of `depth` products."""
    column_blocks, row_blocks = -(-columns // COLUMNS), -(-rows // ROWS)
    height, width = -(-min(rows, ROWS) // FLAT) * FLAT, -(-min(columns, COLUMNS) // NARROW) * NARROW
    most = chunks.count(row_blocks * column_blocks, height * width * (depth + STORE) // MACS)
    across = chunks.shared(min(most, column_blocks))
    return min(most // across, row_blocks), across


@register_jitable
def cell(chunk, down, across, rows, columns):
    """The half-open ranges of rows and of columns of one chunk of the grid."""
    first, last = chunks.bounds(chunk // across, down, rows)
    left, right = chunks.bounds(chunk % across, across, -(-columns // COLUMNS))
    return first, last, left * COLUMNS, min(right * COLUMNS, columns)


def transposed_shape(rows: int, inputs: int, outputs: int) -> tuple[int, int, int]:
    """(K, O + 1, W) of the scratch of backward_data."""
    down, across = grid(rows, inputs, outputs)
    width = max(right - left for _, _, left, right in (cell(k, down, across, rows, inputs) for k in range(across)))
    return down * across, outputs + 1, width + PAD
