"""Optimisers: one update of a parameter and its state, in place.

All arrays flat (n,), C-contiguous, one dtype T (float32 or float64). grad is only read; param and the state arrays are
updated in place and start at zero. Options are Python floats, rounded to T once. With g = grad + weight_decay * param:

    sgd(param, grad, velocity, lr, momentum, nesterov, weight_decay)
        v = momentum * v + g;   param -= lr * (g + momentum * v  if nesterov else  v)
        Momentum and Nesterov's form of it as in Sutskever, Martens, Dahl, Hinton 2013, in PyTorch's arrangement: lr
        multiplies the velocity when it is used, so a change of lr takes effect at once; dampening 0.
    rmsprop(param, grad, square, velocity, lr, rho, eps, momentum, weight_decay)
        s = rho * s + (1 - rho) * g^2;   v = momentum * v + g / (sqrt(s) + eps);   param -= lr * v
        Tieleman and Hinton 2012 (lecture 6.5), with PyTorch's place for eps and momentum.
    adam(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2)
        m = beta1 * m + (1 - beta1) * g;   v = beta2 * v + (1 - beta2) * g^2
        param -= lr / correction1 * m / (sqrt(v / correction2) + eps)
        correction1 = 1 - beta1^t and correction2 = 1 - beta2^t at step t = 1, 2, ... come from the caller.
        Kingma and Ba 2015, algorithm 1. decoupled: g = grad, and param *= 1 - lr * weight_decay comes first: AdamW,
        Loshchilov and Hutter 2019, algorithm 2, with the decay scaled by lr as in PyTorch.
"""
