"""Optimisers in NumPy: the definition. See the contract in `nbnet.kernels.optimizer`."""

import numpy as np


def sgd(param, grad, velocity, lr, momentum, dampening, nesterov, weight_decay, decoupled):
    g = _decayed(param, grad, lr, weight_decay, decoupled)
    velocity[:] = momentum * velocity + (1 - dampening) * g
    param -= lr * (g + momentum * velocity if nesterov else velocity)


def rmsprop(param, grad, square, velocity, lr, rho, eps, momentum, weight_decay, decoupled):
    g = _decayed(param, grad, lr, weight_decay, decoupled)
    square[:] = rho * square + (1 - rho) * g * g
    velocity[:] = momentum * velocity + g / (np.sqrt(square) + eps)
    param -= lr * velocity


def rmsprop_centered(param, grad, square, velocity, mean, lr, rho, eps, momentum, weight_decay, decoupled):
    g = _decayed(param, grad, lr, weight_decay, decoupled)
    square[:] = rho * square + (1 - rho) * g * g
    mean[:] = rho * mean + (1 - rho) * g
    velocity[:] = momentum * velocity + g / (np.sqrt(np.maximum(square - mean * mean, 0)) + eps)
    param -= lr * velocity


def adagrad(param, grad, square, lr, initial, eps, weight_decay, decoupled):
    g = _decayed(param, grad, lr, weight_decay, decoupled)
    square += g * g
    param -= lr * g / (np.sqrt(square + initial) + eps)


def adam(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2):
    _average(m, v, _decayed(param, grad, lr, weight_decay, decoupled), beta1, beta2)
    param -= lr / correction1 * m / (np.sqrt(v / correction2) + eps)


def amsgrad(param, grad, m, v, largest, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2):
    _average(m, v, _decayed(param, grad, lr, weight_decay, decoupled), beta1, beta2)
    np.maximum(largest, v, out=largest)
    param -= lr / correction1 * m / (np.sqrt(largest / correction2) + eps)


def nadam(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, share_grad, share_m, correction2):
    g = _decayed(param, grad, lr, weight_decay, decoupled)
    _average(m, v, g, beta1, beta2)
    param -= lr * (share_grad * g + share_m * m) / (np.sqrt(v / correction2) + eps)


def radam(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2, rectification):
    _average(m, v, _decayed(param, grad, lr, weight_decay, decoupled), beta1, beta2)
    size = rectification * np.sqrt(correction2) / (np.sqrt(v) + eps) if rectification > 0 else 1
    param -= lr / correction1 * m * size


def lion(param, grad, m, lr, beta1, beta2, weight_decay):
    direction = np.sign(beta1 * m + (1 - beta1) * grad)
    param *= 1 - lr * weight_decay
    param -= lr * direction
    m[:] = beta2 * m + (1 - beta2) * grad


def _decayed(param, grad, lr, weight_decay, decoupled):
    """The gradient, with the decay in it or taken from param."""
    if not decoupled:
        return grad + weight_decay * param
    param *= 1 - lr * weight_decay
    return grad


def _average(m, v, g, beta1, beta2):
    m[:] = beta1 * m + (1 - beta1) * g
    v[:] = beta2 * v + (1 - beta2) * g * g
