"""Losses: one pass writes the loss of each row and its gradient times `scale`.

Letters: M rows, C classes, D outputs. All matrices C-contiguous, one dtype T (float32 or float64). Losses are
per row, and the caller averages them. scale multiplies the gradient: 1 / M, or 1 / (all rows) if gradients of several
batches are added up.

    softmax_cross_entropy(logits, labels, scale, losses, hits, dlogits)
        losses_m = log(sum_c exp(logits_mc)) - logits_m,label,   dlogits = (softmax(logits) - onehot(labels)) * scale
        logits, dlogits: (M, C) T.  labels: (M,) int64 in [0, C), checked by the caller.
        hits: (M,) uint8, 1 where the first maximum of the row is the label.
    soft_cross_entropy(logits, shares, weights, scale, losses, hits, dlogits)
        losses_m = weights_m sum_c shares_mc (log(sum_k exp(logits_mk)) - logits_mc),
        dlogits_mc = weights_m (S_m softmax(logits)_mc - shares_mc) * scale
        shares: (M, C) T, finite and at least 0; their sum S_m need not be 1: smoothing, weights of classes and rows to ignore are in
        them. weights: (M,) T, finite and at least 0. Where a share is 0, a logit may be minus infinity.
        hits: 1 where the first maximum of the logits is that of the shares, which is above 0.

Element by element, with y, target, dy: (M, D) T and weights: (1 or M, 1 or D) T, at least 0, for all rows or outputs where they are 1;
losses_m = weight * sum_d weights_md L(y_md, target_md),   dy = weight * scale * weights * dL / dy:

    squared_error(y, target, weights, weight, scale, losses, dy)
        L = (y - target)^2
    absolute_error(y, target, weights, weight, scale, losses, dy)
        L = |y - target|, whose derivative at 0 is 0
    huber(y, target, weights, delta, weight, scale, losses, dy)
        L = d^2 / 2 with d = y - target where |d| <= delta, else delta (|d| - delta / 2);  delta > 0
    binary_cross_entropy(y, target, weights, weight, scale, losses, dy)
        L = log(1 + exp y) - target y, for logits y and targets from 0 to 1
    binary_cross_entropy_of_probabilities(y, target, weights, weight, scale, losses, dy)
        L = -target log y - (1 - target) log(1 - y), with logarithms of at least -100;  dL / dy = (y - target) / max(y (1 - y), 1e-12)
    hinge(y, target, weights, weight, scale, losses, dy)
        L = max(0, 1 - s y), where s is 1 for targets above 0, else -1
    focal(y, target, weights, gamma, weight, scale, losses, dy)
        L = -(1 - p)^gamma log p with p = sigmoid(s y), s as above;  gamma >= 0

losses: (M,) float64, summed in float64. Everything overwrites (=). The row's maximum is subtracted before exp, and sigmoids come from
exp(-|y|), so large logits cannot overflow. A NaN in a row makes its loss NaN and its hit 0.
"""

from nbnet.kernels.tables import Row

TABLE = {
    row.name: row
    for row in (
        Row("squared_error"),
        Row("absolute_error"),
        Row("huber", ("delta",)),
        Row("binary_cross_entropy"),
        Row("binary_cross_entropy_of_probabilities"),
        Row("hinge"),
        Row("focal", ("gamma",)),
    )
}
