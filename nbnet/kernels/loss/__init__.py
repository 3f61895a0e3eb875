"""Losses: one pass writes the loss of each row and its gradient times `scale`.

Letters: M rows, C classes, D outputs. All matrices C-contiguous, one dtype T (float32 or float64). Losses are
per row, and the caller averages them. scale multiplies the gradient: 1 / M, or 1 / (all rows) if gradients of several
batches are added up.

    softmax_cross_entropy(logits, labels, scale, losses, hits, dlogits)
        losses_m = log(sum_c exp(logits_mc)) - logits_m,label,   dlogits = (softmax(logits) - onehot(labels)) * scale
        logits, dlogits: (M, C) T.  labels: (M,) int64 in [0, C), checked by the caller.
        hits: (M,) uint8, 1 where the first maximum of the row is the label.
    squared_error(y, target, weight, scale, losses, dy)
        losses_m = weight * sum_d (y_md - target_md)^2,   dy = 2 * weight * scale * (y - target)
        y, target, dy: (M, D) T.  weight: 1 / D for the mean squared error of a row, 1 for the sum.

losses: (M,) float64, summed in float64. Everything overwrites (=). The row's maximum is subtracted before exp, so large
logits cannot overflow. A NaN in a row makes its loss NaN and its hit 0.
"""
