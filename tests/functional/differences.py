"""Central differences, for gradients of functional calls."""

import numpy as np

BACKENDS = ["numpy", "serial", "parallel"]


def differences(function, arrays, cotangent, step=1e-5):
    """Central differences of sum(cotangent * function(*arrays)) at every index of every array."""
    grads = []
    for array in arrays:
        grad = np.empty_like(array)
        for index in np.ndindex(array.shape):
            old = array[index]
            array[index] = old + step
            up = np.vdot(cotangent, function(*arrays))
            array[index] = old - step
            down = np.vdot(cotangent, function(*arrays))
            array[index] = old
            grad[index] = (up - down) / (2 * step)
        grads.append(grad)
    return grads
