"""Arithmetic on whole arrays, outside of layers: branches that join, gradients that are summed or clipped, axes that are swapped.

Flat arrays (n,), C-contiguous, one dtype T (float32 or float64), y may be any of the inputs:

    add(a, b, y)              y = a + b
    multiply(a, b, y)         y = a * b
    scale(a, factor, y)       y = a * factor
    squares(a, total)         total = sum a^2 in float64;  total: (1,) float64

Arrays of four axes, y not x:

    swap(x, y)                y[a, c, b, d] = x[a, b, c, d]

Everything overwrites (=).
"""
