"""Optimisers on the CPU: one pass over parameter, gradient and state.

The chunk is sliced first, so that the loop runs from 0 (see `activation.cpu`) and becomes vector code.
"""

import math

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for

# -------------------------------------------------------------------------------------------------------- sgd


@body
def _sgd(part, parts, param, grad, velocity, lr, momentum, nesterov, weight_decay):
    start, stop = chunks.bounds(part, parts, param.size)
    param, grad, velocity = param[start:stop], grad[start:stop], velocity[start:stop]
    T = param.dtype.type
    lr, momentum, weight_decay = T(lr), T(momentum), T(weight_decay)
    for i in range(param.size):
        g = grad[i] + weight_decay * param[i]
        v = momentum * velocity[i] + g
        velocity[i] = v
        param[i] -= lr * (g + momentum * v if nesterov else v)


@serial
def sgd_serial(param, grad, velocity, lr, momentum, nesterov, weight_decay):
    n = chunks.count(param.size, 1)
    for k in range(n):
        _sgd(k, n, param, grad, velocity, lr, momentum, nesterov, weight_decay)


@parallel
def sgd_parallel(param, grad, velocity, lr, momentum, nesterov, weight_decay):
    n = chunks.count(param.size, 1)
    parallel_for(n, _sgd, (n, param, grad, velocity, lr, momentum, nesterov, weight_decay))


# ---------------------------------------------------------------------------------------------------- rmsprop


@body
def _rmsprop(part, parts, param, grad, square, velocity, lr, rho, eps, momentum, weight_decay):
    start, stop = chunks.bounds(part, parts, param.size)
    param, grad, square, velocity = param[start:stop], grad[start:stop], square[start:stop], velocity[start:stop]
    T = param.dtype.type
    fresh = T(1 - rho)
    lr, rho, eps, momentum, weight_decay = T(lr), T(rho), T(eps), T(momentum), T(weight_decay)
    for i in range(param.size):
        g = grad[i] + weight_decay * param[i]
        s = rho * square[i] + fresh * (g * g)
        v = momentum * velocity[i] + g / (math.sqrt(s) + eps)
        square[i] = s
        velocity[i] = v
        param[i] -= lr * v


@serial
def rmsprop_serial(param, grad, square, velocity, lr, rho, eps, momentum, weight_decay):
    n = chunks.count(param.size, 2)
    for k in range(n):
        _rmsprop(k, n, param, grad, square, velocity, lr, rho, eps, momentum, weight_decay)


@parallel
def rmsprop_parallel(param, grad, square, velocity, lr, rho, eps, momentum, weight_decay):
    n = chunks.count(param.size, 2)
    parallel_for(n, _rmsprop, (n, param, grad, square, velocity, lr, rho, eps, momentum, weight_decay))


# ------------------------------------------------------------------------------------------------------- adam


@body
def _adam(part, parts, param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2):
    start, stop = chunks.bounds(part, parts, param.size)
    param, grad, m, v = param[start:stop], grad[start:stop], m[start:stop], v[start:stop]
    T = param.dtype.type
    fresh1, fresh2 = T(1 - beta1), T(1 - beta2)
    kept = T(1 - lr * weight_decay if decoupled else 1.0)
    added = T(0.0 if decoupled else weight_decay)
    step, root = T(lr / correction1), T(1 / math.sqrt(correction2))
    beta1, beta2, eps = T(beta1), T(beta2), T(eps)
    for i in range(param.size):
        g = grad[i] + added * param[i]
        first = beta1 * m[i] + fresh1 * g
        second = beta2 * v[i] + fresh2 * (g * g)
        m[i] = first
        v[i] = second
        param[i] = kept * param[i] - step * first / (math.sqrt(second) * root + eps)


@serial
def adam_serial(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2):
    n = chunks.count(param.size, 2)
    for k in range(n):
        _adam(k, n, param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2)


@parallel
def adam_parallel(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2):
    n = chunks.count(param.size, 2)
    parallel_for(n, _adam, (n, param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2))
