"""The table of element-wise optimisers, from which their kernels are made: on the CPU and on CUDA, from the same formulas.

A row is a name, the state arrays and the options of its kernel. Two functions have its name:

    NAME_numbers(*options)                    what the update needs of the options, once for a call
    NAME_update(param, grad, *slots, *numbers)    the new (param, *slots) of one element; numbers are rounded to its dtype

The definition of each is in nbnet.kernels.optimizer.reference. A kernel is made when it is first asked for.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

DECAY = ("weight_decay", "decoupled")
TRUTHS = ("nesterov", "decoupled", "rectified")  # names of options and numbers that are true or false


class Row(NamedTuple):
    """slots: the state arrays. options: in the order in which kernels take them."""

    name: str
    slots: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def numbers(self) -> Callable[..., Any]:
        return globals()[f"{self.name}_numbers"]

    @property
    def update(self) -> Callable[..., Any]:
        return globals()[f"{self.name}_update"]


_MOMENTS = ("lr", "beta1", "beta2", "eps", *DECAY)
TABLE = {
    row.name: row
    for row in (
        Row("sgd", ("velocity",), ("lr", "momentum", "dampening", "nesterov", *DECAY)),
        Row("rmsprop", ("square", "velocity"), ("lr", "rho", "eps", "momentum", *DECAY)),
        Row("rmsprop_centered", ("square", "velocity", "mean"), ("lr", "rho", "eps", "momentum", *DECAY)),
        Row("adagrad", ("square",), ("lr", "initial", "eps", *DECAY)),
        Row("adam", ("m", "v"), (*_MOMENTS, "correction1", "correction2")),
        Row("amsgrad", ("m", "v", "largest"), (*_MOMENTS, "correction1", "correction2")),
        Row("nadam", ("m", "v"), (*_MOMENTS, "share_grad", "share_m", "correction2")),
        Row("radam", ("m", "v"), (*_MOMENTS, "correction1", "correction2", "rectification")),
        Row("lion", ("m",), ("lr", "beta1", "beta2", "weight_decay")),
    )
}


def numbers_of(row):
    """The names of the numbers that a row's update takes."""
    return [*inspect.signature(row.update).parameters][2 + len(row.slots) :]


def filled(template, row):
    """The source of a row's kernel, from a template with NAME, SLOTS, OPTIONS, NUMBERS, TYPED (the numbers in dtype T) and WORK."""
    numbers = numbers_of(row)
    typed = ", ".join(name if name in TRUTHS else f"T({name})" for name in numbers)
    words = {"NAME": row.name, "SLOTS": ", ".join(row.slots), "OPTIONS": ", ".join(row.options), "NUMBERS": ", ".join(numbers)}
    words |= {"TYPED": typed, "WORK": str(len(row.slots))}
    for word, text in words.items():
        template = template.replace(word, text)
    return template


# ------------------------------------------------------------------------------------------------------------ momentum


def sgd_numbers(lr, momentum, dampening, nesterov, weight_decay, decoupled):
    added, taken = (0.0, lr * weight_decay) if decoupled else (weight_decay, 0.0)
    return lr, momentum, dampening, nesterov, decoupled, added, taken


def sgd_update(param, grad, velocity, lr, momentum, dampening, nesterov, decoupled, added, taken):
    g = grad + added * param
    v = momentum * velocity + (g - dampening * g)
    kept = param - taken * param if decoupled else param
    return kept - lr * (g + momentum * v if nesterov else v), v


def lion_numbers(lr, beta1, beta2, weight_decay):
    return lr, beta1, 1 - beta1, beta2, 1 - beta2, 1 - lr * weight_decay, 0.0


def lion_update(param, grad, m, lr, beta1, fresh1, beta2, fresh2, kept, zero):
    mixed = beta1 * m + fresh1 * grad
    step = lr if mixed > zero else -lr if mixed < zero else mixed  # NaN stays NaN
    return kept * param - step, beta2 * m + fresh2 * grad


# ------------------------------------------------------------------------------------------------ divided by the gradient's size


def rmsprop_numbers(lr, rho, eps, momentum, weight_decay, decoupled):
    added, taken = (0.0, lr * weight_decay) if decoupled else (weight_decay, 0.0)
    return lr, rho, 1 - rho, eps, momentum, decoupled, added, taken


def rmsprop_update(param, grad, square, velocity, lr, rho, fresh, eps, momentum, decoupled, added, taken):
    g = grad + added * param
    s = rho * square + fresh * (g * g)
    v = momentum * velocity + g / (math.sqrt(s) + eps)
    kept = param - taken * param if decoupled else param
    return kept - lr * v, s, v


def rmsprop_centered_numbers(lr, rho, eps, momentum, weight_decay, decoupled):
    added, taken = (0.0, lr * weight_decay) if decoupled else (weight_decay, 0.0)
    return lr, rho, 1 - rho, eps, momentum, decoupled, added, taken, 0.0


def rmsprop_centered_update(param, grad, square, velocity, mean, lr, rho, fresh, eps, momentum, decoupled, added, taken, zero):
    g = grad + added * param
    s = rho * square + fresh * (g * g)
    a = rho * mean + fresh * g
    variance = s - a * a
    v = momentum * velocity + g / (math.sqrt(variance if variance > zero else zero) + eps)
    kept = param - taken * param if decoupled else param
    return kept - lr * v, s, v, a


def adagrad_numbers(lr, initial, eps, weight_decay, decoupled):
    added, taken = (0.0, lr * weight_decay) if decoupled else (weight_decay, 0.0)
    return lr, initial, eps, added, taken


def adagrad_update(param, grad, square, lr, initial, eps, added, taken):
    g = grad + added * param
    s = square + g * g
    return param - taken * param - lr * (g / (math.sqrt(s + initial) + eps)), s


# -------------------------------------------------------------------------------------------------------------- two moments


def adam_numbers(lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2):
    kept, added = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    return beta1, 1 - beta1, beta2, 1 - beta2, eps, kept, added, lr / correction1, 1 / math.sqrt(correction2)


def adam_update(param, grad, m, v, beta1, fresh1, beta2, fresh2, eps, kept, added, step, root):
    g = grad + added * param
    first = beta1 * m + fresh1 * g
    second = beta2 * v + fresh2 * (g * g)
    return kept * param - step * first / (math.sqrt(second) * root + eps), first, second


amsgrad_numbers = adam_numbers


def amsgrad_update(param, grad, m, v, largest, beta1, fresh1, beta2, fresh2, eps, kept, added, step, root):
    g = grad + added * param
    first = beta1 * m + fresh1 * g
    second = beta2 * v + fresh2 * (g * g)
    top = largest if largest > second else second
    return kept * param - step * first / (math.sqrt(top) * root + eps), first, second, top


def nadam_numbers(lr, beta1, beta2, eps, weight_decay, decoupled, share_grad, share_m, correction2):
    kept, added = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    return beta1, 1 - beta1, beta2, 1 - beta2, eps, kept, added, lr * share_grad, lr * share_m, 1 / math.sqrt(correction2)


def nadam_update(param, grad, m, v, beta1, fresh1, beta2, fresh2, eps, kept, added, step_grad, step_m, root):
    g = grad + added * param
    first = beta1 * m + fresh1 * g
    second = beta2 * v + fresh2 * (g * g)
    return kept * param - (step_grad * g + step_m * first) / (math.sqrt(second) * root + eps), first, second


def radam_numbers(lr, beta1, beta2, eps, weight_decay, decoupled, correction1, correction2, rectification):
    kept, added = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    rectified = rectification > 0
    step = lr / correction1 * (rectification * math.sqrt(correction2) if rectified else 1.0)
    return beta1, 1 - beta1, beta2, 1 - beta2, eps, kept, added, step, rectified


def radam_update(param, grad, m, v, beta1, fresh1, beta2, fresh2, eps, kept, added, step, rectified):
    g = grad + added * param
    first = beta1 * m + fresh1 * g
    second = beta2 * v + fresh2 * (g * g)
    return kept * param - (step * first / (math.sqrt(second) + eps) if rectified else step * first), first, second
