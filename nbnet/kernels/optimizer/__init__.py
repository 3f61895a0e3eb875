"""Optimisers: one update of a parameter and its state, in place.

All arrays flat (n,), C-contiguous, one dtype T (float32 or float64). grad is only read; param and the state arrays are
updated in place and start at zero. Options are Python floats, rounded to T once. With g = grad + weight_decay * param, or, if
decoupled, g = grad and param *= 1 - lr * weight_decay first (Loshchilov and Hutter 2019, with the decay scaled by lr as in PyTorch):

    sgd(param, grad, velocity, lr, momentum, dampening, nesterov, weight_decay, decoupled)
        v = momentum * v + (1 - dampening) * g;   param -= lr * (g + momentum * v  if nesterov else  v)
        Momentum and Nesterov's form of it as in Sutskever, Martens, Dahl, Hinton 2013, in PyTorch's arrangement: lr
        multiplies the velocity when it is used, so a change of lr takes effect at once.
    rmsprop(param, grad, square, velocity, lr, rho, eps, momentum, weight_decay, decoupled)
        s = rho * s + (1 - rho) * g^2;   v = momentum * v + g / (sqrt(s) + eps);   param -= lr * v
        Tieleman and Hinton 2012 (lecture 6.5), with PyTorch's place for eps and momentum.
    rmsprop_centered(param, grad, square, velocity, mean, lr, rho, eps, momentum, weight_decay, decoupled)
        a = rho * a + (1 - rho) * g;   as rmsprop with s - a^2, at least 0, under the root   (Graves 2013, equation 40)
    adagrad(param, grad, square, lr, initial, eps, weight_decay, decoupled)
        s = s + g^2;   param -= lr * g / (sqrt(s + initial) + eps)   (Duchi, Hazan and Singer 2011)
    adam(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2)
        m = beta1 * m + (1 - beta1) * g;   v = beta2 * v + (1 - beta2) * g^2
        param -= lr / correction1 * m / (sqrt(v / correction2) + eps)
        correction1 = 1 - beta1^t and correction2 = 1 - beta2^t at step t = 1, 2, ... come from the caller.
        Kingma and Ba 2015, algorithm 1; decoupled: AdamW, Loshchilov and Hutter 2019, algorithm 2.
    amsgrad(param, grad, m, v, largest, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2)
        as adam, with the largest v so far under the root   (Reddi, Kale and Kumar 2018)
    nadam(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, share_grad, share_m, correction2)
        m and v as in adam;   param -= lr * (share_grad * g + share_m * m) / (sqrt(v / correction2) + eps)   (Dozat 2016)
    radam(param, grad, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2, rectification)
        m and v as in adam;   param -= lr / correction1 * m * (rectification * sqrt(correction2) / (sqrt(v) + eps)), without the
        factor in parentheses where rectification is 0   (Liu et al. 2020, algorithm 2)
    lion(param, grad, m, lr, beta1, beta2, weight_decay)
        param *= 1 - lr * weight_decay;   param -= lr * sign(beta1 * m + (1 - beta1) * grad);   m = beta2 * m + (1 - beta2) * grad
        Chen et al. 2023, algorithm 2.
"""
