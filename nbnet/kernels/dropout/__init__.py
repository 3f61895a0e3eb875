"""Dropout with counter-based random numbers: the mask is a function of (seed, stream, step, element), never stored.

    apply(x, counter, threshold, scale, shift, dropped, y)
        y_e = x_e * scale + shift  where word_e >= threshold,  else dropped

word_e is the random 32-bit word of element e of the flat array (see `philox`): the element is kept with probability
1 - threshold / 2^32. x, y: (n,) contiguous, float32 or float64. counter: (3,) uint64, on the host: seed, stream, step, the last two
below 2^32; or more: x is then a part of a larger array, and the fourth number is where it begins there, in elements divided by 4.
threshold: 0 to 2^32. y is overwritten and may be x. Backward is the same kernel on dy with the same counter, threshold and scale, and
shift = dropped = 0: it needs no array from forward.

    relu_backward(dy, y, scale, dx)
        dx_e = dy_e * scale  where y_e > 0,  else 0

The gradient through a ReLU followed by dropout with shift = dropped = 0, from their output: y is 0 where either of them made it 0, so
no random words are needed. dy, y, dx: (n,), one dtype. dx is overwritten and may be dy. Where y is NaN, dx is dy * scale.

    inverted  scale = 1 / (1 - p)       (Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, section 10)
    vanilla   scale = 1; evaluation multiplies by 1 - p
"""
