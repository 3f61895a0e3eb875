"""Optimisers on CUDA: four elements per thread, one pass over parameter, gradient and state."""

import math

from numba import cuda

from nbnet.kernels.gpu.compile import formula, kernel
from nbnet.kernels.gpu.launch import elementwise, load, store

# -------------------------------------------------------------------------------------------------------- sgd


@formula
def _sgd1(param, grad, velocity, lr, momentum, nesterov, weight_decay):
    g = grad + weight_decay * param
    v = momentum * velocity + g
    return param - lr * (g + momentum * v if nesterov else v), v


@kernel
def _sgd(param, grad, velocity, size, lr, momentum, nesterov, weight_decay):
    at = 4 * cuda.grid(1)
    p, g, v = load(param, at, size), load(grad, at, size), load(velocity, at, size)
    a = _sgd1(p[0], g[0], v[0], lr, momentum, nesterov, weight_decay)
    b = _sgd1(p[1], g[1], v[1], lr, momentum, nesterov, weight_decay)
    c = _sgd1(p[2], g[2], v[2], lr, momentum, nesterov, weight_decay)
    d = _sgd1(p[3], g[3], v[3], lr, momentum, nesterov, weight_decay)
    store(param, at, size, (a[0], b[0], c[0], d[0]))
    store(velocity, at, size, (a[1], b[1], c[1], d[1]))


def sgd(param, grad, velocity, lr, momentum, nesterov, weight_decay):
    T = param.dtype.type
    elementwise(_sgd, param.size, param, grad, velocity, param.size, T(lr), T(momentum), nesterov, T(weight_decay))


# ---------------------------------------------------------------------------------------------------- rmsprop


@formula
def _rmsprop1(param, grad, square, velocity, lr, rho, fresh, eps, momentum, weight_decay):
    g = grad + weight_decay * param
    s = rho * square + fresh * (g * g)
    v = momentum * velocity + g / (math.sqrt(s) + eps)
    return param - lr * v, s, v


@kernel
def _rmsprop(param, grad, square, velocity, size, lr, rho, fresh, eps, momentum, weight_decay):
    at = 4 * cuda.grid(1)
    p, g, s, v = load(param, at, size), load(grad, at, size), load(square, at, size), load(velocity, at, size)
    a = _rmsprop1(p[0], g[0], s[0], v[0], lr, rho, fresh, eps, momentum, weight_decay)
    b = _rmsprop1(p[1], g[1], s[1], v[1], lr, rho, fresh, eps, momentum, weight_decay)
    c = _rmsprop1(p[2], g[2], s[2], v[2], lr, rho, fresh, eps, momentum, weight_decay)
    d = _rmsprop1(p[3], g[3], s[3], v[3], lr, rho, fresh, eps, momentum, weight_decay)
    store(param, at, size, (a[0], b[0], c[0], d[0]))
    store(square, at, size, (a[1], b[1], c[1], d[1]))
    store(velocity, at, size, (a[2], b[2], c[2], d[2]))


def rmsprop(param, grad, square, velocity, lr, rho, eps, momentum, weight_decay):
    T = param.dtype.type
    options = T(lr), T(rho), T(1 - rho), T(eps), T(momentum), T(weight_decay)
    elementwise(_rmsprop, param.size, param, grad, square, velocity, param.size, *options)


# ------------------------------------------------------------------------------------------------------- adam


@formula
def _adam1(param, grad, m, v, beta1, fresh1, beta2, fresh2, eps, kept, added, step, root):
    g = grad + added * param
    m = beta1 * m + fresh1 * g
    v = beta2 * v + fresh2 * (g * g)
    return kept * param - step * m / (math.sqrt(v) * root + eps), m, v


@kernel
def _adam(param, grad, m, v, size, beta1, fresh1, beta2, fresh2, eps, kept, added, step, root):
    at = 4 * cuda.grid(1)
    p, g, f, s = load(param, at, size), load(grad, at, size), load(m, at, size), load(v, at, size)
    a = _adam1(p[0], g[0], f[0], s[0], beta1, fresh1, beta2, fresh2, eps, kept, added, step, root)
    b = _adam1(p[1], g[1], f[1], s[1], beta1, fresh1, beta2, fresh2, eps, kept, added, step, root)
    c = _adam1(p[2], g[2], f[2], s[2], beta1, fresh1, beta2, fresh2, eps, kept, added, step, root)
    d = _adam1(p[3], g[3], f[3], s[3], beta1, fresh1, beta2, fresh2, eps, kept, added, step, root)
    store(param, at, size, (a[0], b[0], c[0], d[0]))
    store(m, at, size, (a[1], b[1], c[1], d[1]))
    store(v, at, size, (a[2], b[2], c[2], d[2]))


def adam(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2):
    T = param.dtype.type
    kept, added = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    rates = T(beta1), T(1 - beta1), T(beta2), T(1 - beta2), T(eps)
    step, root = T(lr / correction1), T(1 / math.sqrt(correction2))
    elementwise(_adam, param.size, param, grad, m, v, param.size, *rates, T(kept), T(added), step, root)
