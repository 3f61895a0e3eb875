"""Arithmetic on whole arrays, outside of layers: branches that join, gradients that are summed or clipped, axes that are swapped.

Flat arrays (n,), C-contiguous, one dtype T (float32 or float64), y may be any of the inputs:

    add(a, b, y)              y = a + b
    multiply(a, b, y)         y = a * b
    scale(a, factor, y)       y = a * factor
    squares(a, total)         total = sum a^2 in float64;  total: (1,) float64

Arrays of four axes, y not x:

    swap(x, y)                y[a, c, b, d] = x[a, b, c, d]

Rows of channels of the branches of a model, y not an input:

    copy_columns(x, first, y, at, count)   y[r, at + c] = x[r, first + c] for c < count;   x: (R, A), y: (R, B); other columns of y stay
    multiply_rows(a, b, y)                 y[n, m, c] = a[n, m, c] * b[n, c];              a, y: (N, M, C), b: (N, C)
    multiply_sum(a, b, y)                  y[n, c] = sum_m a[n, m, c] * b[n, m, c] in float64, rounded at the end;  y: (N, C)

Everything overwrites (=).
"""
