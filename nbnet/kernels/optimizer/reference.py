"""Optimisers in NumPy: the definition. See the contract in `nbnet.kernels.optimizer`."""

import numpy as np


def sgd(param, grad, velocity, lr, momentum, nesterov, weight_decay):
    g = grad + weight_decay * param
    velocity[:] = momentum * velocity + g
    param -= lr * (g + momentum * velocity if nesterov else velocity)


def rmsprop(param, grad, square, velocity, lr, rho, eps, momentum, weight_decay):
    g = grad + weight_decay * param
    square[:] = rho * square + (1 - rho) * g * g
    velocity[:] = momentum * velocity + g / (np.sqrt(square) + eps)
    param -= lr * velocity


def adam(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2):
    if decoupled:
        param *= 1 - lr * weight_decay
        g = grad
    else:
        g = grad + weight_decay * param
    m[:] = beta1 * m + (1 - beta1) * g
    v[:] = beta2 * v + (1 - beta2) * g * g
    param -= lr / correction1 * m / (np.sqrt(v / correction2) + eps)
