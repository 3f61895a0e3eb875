"""Resampling in NumPy: the definition. See the contract in `nbnet.kernels.resample`."""

import numpy as np


def gather(x, row_index, row_weight, column_index, column_weight, y):
    total = np.zeros(y.shape)
    for a, b in np.ndindex(row_index.shape[1], column_index.shape[1]):
        oh, ow = np.nonzero((row_index[:, a, None] >= 0) & (column_index[:, b] >= 0))
        weight = (row_weight[oh, a] * column_weight[ow, b])[:, None]
        terms = weight * x[:, row_index[oh, a], column_index[ow, b]]
        total[:, oh, ow] = terms if a + b == 0 else total[:, oh, ow] + terms
    y[:] = total
