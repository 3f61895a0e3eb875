"""Activations. Each backward needs only dy and y, the output of forward.

Element by element over flat arrays (n,), C-contiguous, one dtype T (float32 or float64); y may be x, and dx may be dy:

    relu_forward(x, y)                        y = x where x > 0, else 0
    relu_backward(dy, y, dx)                  dx = dy where y > 0, else 0
    leaky_relu_forward(x, slope, y)           y = x where x > 0, else slope * x;  slope > 0, so that y has the sign of x
    leaky_relu_backward(dy, y, slope, dx)     dx = dy where y > 0, else slope * dy
    tanh_forward(x, y)                        y = tanh(x)
    tanh_backward(dy, y, dx)                  dx = dy * (1 - y^2)
    sigmoid_forward(x, y)                     y = 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow
    sigmoid_backward(dy, y, dx)               dx = dy * y * (1 - y)

Over M rows of C classes, (M, C):

    softmax_forward(x, y)                     y_mc = exp(x_mc - max_m) / sum_c exp(x_mc - max_m);  y may be x
    softmax_backward(dy, y, dx)               dx_mc = y_mc * (dy_mc - sum_c dy_mc * y_mc);  dx may be dy

Everything overwrites (=). A NaN in x is a NaN in y (in the whole row, for softmax); the sums of softmax run in float64.
"""
