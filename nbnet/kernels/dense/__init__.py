"""Dense (fully connected) layer.

Letters: M rows, I inputs, O outputs, K chunks. All arrays C-contiguous, one dtype T (float32 or float64).

    forward(x, weight, bias, y)                          y_mo = bias_o + sum_i x_mi * weight_io
    backward_data(dy, weight_t, dx)                      dx_mi = sum_o dy_mo * weight_t_oi
    backward_weights(x, dy, partials, dweight, dbias)    dweight_io = sum_m x_mi * dy_mo,  dbias_o = sum_m dy_mo
    transpose(weight, weight_t)                          weight_t_oi = weight_io

x, dx: (M, I).  y, dy: (M, O).  weight, dweight: (I, O).  weight_t: (O, I), packed by `transpose` once a step.
bias, dbias: (O,).  partials: (K, I + 1, O) T scratch with K = weight_chunks(M, I, O): one sum of the weights' gradient,
with the bias's in the last row, for each chunk of rows; they are merged in order.
Everything overwrites (=). Backward needs x and weight from forward.
"""

from nbnet.kernels import chunks


def weight_chunks(rows: int, inputs: int, outputs: int) -> int:
    """Chunks of backward_weights: at most 16, since each costs a copy of the weights to write and to merge."""
    return min(16, chunks.count(rows, inputs * outputs))
