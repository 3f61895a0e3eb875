"""Batch normalisation: four heavy kernels, combined for each dialect by arithmetic on C numbers; some are fused with what follows.

Letters: M rows (N*H*W for images), C channels, K chunks. x, dy, y, dx are (M, C), C-contiguous, float32 or float64 (T).

    moments(x, weights, partials, mean, m2)
        mean_c = sum_m w_mc x_mc / W_c,   m2_c = sum_m w_mc (x_mc - mean_c)^2,   W_c = sum_m w_mc > 0
        weights: (M, 1) T for the same in every channel, (M, C) T, or None for w = 1.  mean, m2: (C,) float64, overwritten.
        Where w is 0, x is not looked at: it may be NaN or infinity.
    apply(x, center, scale, shift, slope, y)
        y = act((x - center_c) * scale_c + shift_c)
    backward_reduce(dy, x, weights, center, scale, shift, slope, partials, sum_g, sum_gx)
        g = dy * act'(...),   sum_g_c = sum_m g_mc,   sum_gx_c = sum_m g_mc * (x_mc - center_c)
        weights only mask: where w is 0, a g or a g * (x - center) that is not finite counts as 0.
        sum_g, sum_gx: (C,) float64, overwritten.
    backward_apply(dy, x, weights, center, scale, shift, slope, a, b, c, dx)
        dx = a_c * g + w_mc * (b_c + c_c * (x - center_c)), where a term that is not finite is 0 if w is 0

    apply_max_pool(x, center, scale, shift, slope, y)
    backward_reduce_max_pool(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx)
    backward_apply_max_pool(dy, x, center, scale, shift, slope, a, b, c, dx)
        the same, followed by a max-pool over windows of 2 x 2 pixels, stride 2: x, dx are (N, H, W, C), and y, dy are
        (N, H // 2, W // 2, C). g is dy * act'(...) at the winner of a window, the first of equals, and 0 elsewhere, as in
        nbnet.kernels.pool.

    apply_NAME(x, center, scale, shift, OPTIONS, y)
        y = f((x - center_c) * scale_c + shift_c), where f is the activation NAME of nbnet.kernels.activations (all but RECTIFIERS)
    backward_reduce_NAME(dy, y, x, center, scale, shift, OPTIONS, partials, g, sum_g, sum_gx)
        g = dy * f'(...), from y where f saves y and else from x (y is then not looked at), and its sums as above; continue with
        backward_apply with g as dy and slope 1.  g: (M, C) T, overwritten.

act(z) = z where z > 0, else slope * z: slope 1 is no activation, 0 is ReLU, values between are leaky ReLU. The backward
kernels recompute z from x, so neither y nor the normalised x is stored.

center, scale, shift, a, b, c: (C,) T. partials: (K, 3, C) float64 scratch for the kernels that reduce, with
K = chunks.count(M, C), or chunks.count(N * (H // 2), 2 * W * C) with a fused max-pool. Everything overwrites (=);
nothing accumulates. Without a pool y may be x, and dx or g may be dy.

Why a center: x * scale + shift with shift = -mean * scale loses precision if the mean is large against the deviation.
With mean 1e4 and deviation 1 in float32 its error is 5e-4. x - center is exact there (Sterbenz), and the part of the
mean that float32 cannot represent goes into shift.

Sums are accumulated in float64 from a shifted origin (the first row of a chunk whose weight is above 0), and chunks are merged in order by
Chan's formula (Chan, Golub, LeVeque 1979): delta = mean_b - mean_a, M2 = M2_a + M2_b + delta^2 n_a n_b / (n_a + n_b).
Forward formula: Ioffe and Szegedy 2015, algorithm 1.
"""
