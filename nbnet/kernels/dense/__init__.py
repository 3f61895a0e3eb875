"""Dense (fully connected) layer.

Letters: M rows, I inputs, O outputs, K chunks. All arrays C-contiguous, one dtype T (float32 or float64).

    forward(x, weight, bias, y)                          y_mo = bias_o + sum_i x_mi * weight_io
    backward_data(dy, weight, turned, dx)                dx_mi = sum_o dy_mo * weight_io
    backward_weights(x, dy, partials, dweight, dbias)    dweight_io = sum_m x_mi * dy_mo,  dbias_o = sum_m dy_mo

x, dx: (M, I).  y, dy: (M, O).  weight, dweight: (I, O).  bias, dbias: (O,).
Scratch: turned (O + 1, I) T, for the transposed weights and a row of zeros; partials (K, I + 1, O) T with
K = weight_chunks(M, I, O): one sum of the weights' gradient, with the bias's in the last row, for each chunk of rows; they
are merged in order.
Everything overwrites (=). Backward needs x and weight from forward.
"""

from nbnet.kernels import chunks

MACS = 32  # multiply-adds that cost as much as one elementary operation of `chunks`


def weight_chunks(rows: int, inputs: int, outputs: int) -> int:
    """Chunks of backward_weights: at most 16, since each costs a copy of the weights to write and to merge."""
    return min(16, chunks.count(rows, inputs * outputs // MACS))
