"""Activations.

Element by element over flat arrays (n,), C-contiguous, one dtype T (float32 or float64); y may be x, and dx may be dy. Their kernels are
made from the table in nbnet.kernels.activations; formulas are PyTorch's:

    relu_forward(x, y)                                  y = x where x > 0, else 0
    relu_backward(dy, y, dx)                            dx = dy where y > 0, else 0
    leaky_relu_forward(x, slope, y)                     y = x where x > 0, else slope * x;  slope > 0, so that y has the sign of x
    leaky_relu_backward(dy, y, slope, dx)               dx = dy where y > 0, else slope * dy
    tanh_forward(x, y)                                  y = tanh(x)
    tanh_backward(dy, y, dx)                            dx = dy * (1 - y^2)
    sigmoid_forward(x, y)                               y = 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow
    sigmoid_backward(dy, y, dx)                         dx = dy * y * (1 - y)
    gelu_forward(x, y)                                  y = x Phi(x), Phi(x) = erfc(-x / sqrt 2) / 2
    gelu_backward(dy, x, dx)                            dx = dy * (Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi))
    gelu_tanh_forward(x, y)                             y = x / (1 + exp(-z)), z = 2 sqrt(2 / pi) (x + 0.044715 x^3)
    gelu_tanh_backward(dy, x, dx)
    silu_forward(x, y)                                  y = x sigmoid(x)
    silu_backward(dy, x, dx)                            dx = dy * (s + x s (1 - s)), s = sigmoid(x)
    mish_forward(x, y)                                  y = x tanh(log(1 + exp x))
    mish_backward(dy, x, dx)
    elu_forward(x, alpha, outer, inner, y)              y = outer * (x where x > 0, else alpha * (exp(inner * x) - 1))
    elu_backward(dy, x, alpha, outer, inner, dx)        dx = dy * outer * (1 where x > 0, else alpha * inner * exp(inner * x))
    softplus_forward(x, beta, threshold, y)             y = log(1 + exp(beta * x)) / beta, and x where beta * x > threshold;  beta > 0
    softplus_backward(dy, x, beta, threshold, dx)       dx = dy * sigmoid(beta * x), and dy where beta * x > threshold
    logsigmoid_forward(x, y)                            y = -log(1 + exp(-x))
    logsigmoid_backward(dy, x, dx)                      dx = dy * sigmoid(-x)
    softsign_forward(x, y)                              y = x / (1 + |x|)
    softsign_backward(dy, x, dx)                        dx = dy / (1 + |x|)^2
    hardswish_forward(x, y)                             y = x * (x + 3) / 6 for x from -3 to 3; below 0, above x
    hardswish_backward(dy, x, dx)                       dx = dy * (x / 3 + 1/2); 0 for x <= -3, dy for x >= 3
    hardsigmoid_forward(x, y)                           y = (x + 3) / 6 for x from -3 to 3; below 0, above 1
    hardsigmoid_backward(dy, x, dx)                     dx = dy / 6 where -3 < x < 3, else 0
    hardtanh_forward(x, low, high, y)                   y = x, at least low and at most high;  low <= high
    hardtanh_backward(dy, y, low, high, dx)             dx = dy, 0 where y <= low or y >= high

Over M rows of C channels, (M, C), with a weight (C,), or (1,) for all channels:

    prelu_forward(x, weight, y)                         y = x where x > 0, else weight_c * x;  y may be x
    prelu_backward(dy, x, weight, partials, dx, dweight)
        dx = dy where x > 0, else weight_c * dy;  dweight = sum of dy * x where x <= 0, over rows, or over everything;  dx may be dy
        partials: (K, 3, C) float64 scratch, K = chunks.count(M, C); not used on cuda.

Over M rows of C classes, (M, C):

    softmax_forward(x, y)                               y_mc = exp(x_mc - max_m) / sum_c exp(x_mc - max_m);  y may be x
    softmax_backward(dy, y, dx)                         dx_mc = y_mc * (dy_mc - sum_c dy_mc * y_mc);  dx may be dy
    log_softmax_forward(x, y)                           y_mc = x_mc - max_m - log sum_c exp(x_mc - max_m);  y must not be x
    log_softmax_backward(dy, y, dx)                     dx_mc = dy_mc - exp(y_mc) * sum_c dy_mc;  dx may be dy

Everything overwrites (=). A NaN in x is a NaN in y (in the whole row, for softmax), and infinity gives the limit; the sums of softmax run
in float64.
"""
