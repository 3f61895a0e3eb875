"""Activations on plain arrays. Defaults and formulas are PyTorch's; in exact arithmetic, infinity gives the limit, and NaN stays NaN.

`gelu(approximate="tanh")` is an `Activation`: a row of the table in nbnet.kernels.activations with its options. `gelu_forward` and
`gelu_backward` are made from it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.functional.moments import partials
from nbnet.kernels.activations import TABLE
from nbnet.runtime.backend import Backend, get_backend


class Activation(NamedTuple):
    """An element-wise activation: a row of nbnet.kernels.activations.TABLE, and its options."""

    kernel: str
    options: tuple[float, ...] = ()


class ActivationSaved(NamedTuple):
    value: np.ndarray  # x, or y where the derivative follows from it
    activation: Activation
    backend: Backend


def activate(x: Any, activation: Activation, be: Backend, overwrite: bool = False) -> tuple[Any, ActivationSaved]:
    """y, and what `through` needs; overwrite: y may replace x in memory if backward does not need x."""
    kernel, options = activation
    from_y = TABLE[kernel].saves == "y"
    y = x if overwrite and from_y else be.empty(x.shape, x.dtype)
    be.kernel(f"activation.{kernel}_forward")(x.reshape(-1), *options, y.reshape(-1))
    return y, ActivationSaved(y if from_y else x, activation, be)


def through(dy: Any, saved: ActivationSaved) -> Any:
    """dx."""
    checks.from_training(saved)
    value, (kernel, options), be = saved
    dy = checks.shaped(dy, "dy", value.shape, value.dtype, be=be)
    dx = be.empty(value.shape, value.dtype)
    be.kernel(f"activation.{kernel}_backward")(dy.reshape(-1), value.reshape(-1), *options, dx.reshape(-1))
    return dx


# ---------------------------------------------------------------------------------------------------- the activations


def relu() -> Activation:
    """y = x where x > 0, else 0   (torch.nn.functional.relu)."""
    return Activation("relu")


def leaky_relu(slope: float = 0.01) -> Activation:
    """y = x where x > 0, else slope * x   (Maas, Hannun and Ng 2013).

    slope: above 0; for 0 use relu.
    """
    return Activation("leaky_relu", (_positive(slope, "slope", "; for slope 0 use ReLU()"),))


def tanh() -> Activation:
    """y = tanh(x)."""
    return Activation("tanh")


def sigmoid() -> Activation:
    """y = 1 / (1 + exp(-x))."""
    return Activation("sigmoid")


def gelu(approximate: str = "none") -> Activation:
    """y = x Phi(x), where Phi(x) is the probability that a standard normal number is below x   (Hendrycks and Gimpel 2016).

    approximate: "none", or "tanh": y = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(unknown("approximate", approximate, ("none", "tanh")))
    return Activation("gelu" if approximate == "none" else "gelu_tanh")


def silu() -> Activation:
    """y = x / (1 + exp(-x)), also called swish   (Elfwing, Uchibe and Doya 2017)."""
    return Activation("silu")


def mish() -> Activation:
    """y = x tanh(log(1 + exp(x)))   (Misra 2019)."""
    return Activation("mish")


def elu(alpha: float = 1.0) -> Activation:
    """y = x where x > 0, else alpha * (exp(x) - 1)   (Clevert, Unterthiner and Hochreiter 2015).

    alpha: at least 0.
    """
    return Activation("elu", (_at_least_0(alpha, "alpha"), 1.0, 1.0))


def selu() -> Activation:
    """y = 1.0507 * (x where x > 0, else 1.6733 * (exp(x) - 1)): keeps mean 0 and variance 1   (Klambauer and others 2017)."""
    return Activation("elu", (1.6732632423543772, 1.0507009873554805, 1.0))


def celu(alpha: float = 1.0) -> Activation:
    """y = x where x > 0, else alpha * (exp(x / alpha) - 1)   (Barron 2017).

    alpha: above 0.
    """
    alpha = _positive(alpha, "alpha")
    return Activation("elu", (alpha, 1.0, 1.0 / alpha))


def softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation:
    """y = log(1 + exp(beta * x)) / beta, a smooth ReLU   (torch.nn.functional.softplus).

    beta: above 0. threshold: where beta * x is above it, y is x.
    """
    return Activation("softplus", (_positive(beta, "beta"), _finite(threshold, "threshold")))


def softsign() -> Activation:
    """y = x / (1 + |x|)   (torch.nn.functional.softsign)."""
    return Activation("softsign")


def logsigmoid() -> Activation:
    """y = -log(1 + exp(-x))   (torch.nn.functional.logsigmoid)."""
    return Activation("logsigmoid")


def hardswish() -> Activation:
    """y = x * relu6(x + 3) / 6   (Howard and others 2019)."""
    return Activation("hardswish")


def hardsigmoid() -> Activation:
    """y = relu6(x + 3) / 6   (torch.nn.functional.hardsigmoid)."""
    return Activation("hardsigmoid")


def hardtanh(low: float = -1.0, high: float = 1.0) -> Activation:
    """y = x, but at least low and at most high   (torch.nn.functional.hardtanh).

    low, high: low below high.
    """
    low, high = _finite(low, "low"), _finite(high, "high")
    if not low < high:
        raise ArgumentError(f"low={low!r} and high={high!r}: expected low below high")
    return Activation("hardtanh", (low, high))


def relu6() -> Activation:
    """y = x, but at least 0 and at most 6   (torch.nn.functional.relu6)."""
    return Activation("hardtanh", (0.0, 6.0))


def _positive(value: Any, name: str, instead: str = "") -> float:
    return checks.number(value, name, f"a finite number above 0{instead}", lambda value: 0 < value < math.inf)


def _at_least_0(value: Any, name: str) -> float:
    return checks.number(value, name, "a finite number that is at least 0", lambda value: 0 <= value < math.inf)


def _finite(value: Any, name: str) -> float:
    return checks.number(value, name, "a finite number", math.isfinite)


_ALL: list[Callable[..., Activation]] = [relu, leaky_relu, tanh, sigmoid, gelu, silu, mish, elu, selu, celu, softplus, softsign, logsigmoid]
_ALL += [hardswish, hardsigmoid, hardtanh, relu6]
NAMED: dict[str, Activation] = {make.__name__: make() for make in _ALL} | {"gelu_tanh": gelu("tanh")}  # what layers take by name


def named(name: str | None) -> Activation | None:
    """The activation of this name, with its default options; None for None.

    Raises:
        ArgumentError: there is no such activation.
    """
    if name is None:
        return None
    if not isinstance(name, str) or name not in NAMED:
        raise ArgumentError(unknown("activation", name, ("None", *NAMED)))
    return NAMED[name]


# ---------------------------------------------------------------------------------------------------------- the pairs


def _pair(make: Callable[..., Activation]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The forward and the backward function of an activation."""

    def forward(x: Any, *args: Any, backend: str | Backend = "parallel", **options: Any) -> tuple[np.ndarray, ActivationSaved]:
        be = get_backend(backend)
        return activate(checks.floats(x, "x", be=be), make(*args, **options), be)

    def backward(dy: Any, saved: ActivationSaved) -> np.ndarray:
        dx: np.ndarray = through(dy, saved)
        return dx

    name, (formula, _, rest) = make.__name__, inspect.getdoc(make).partition("\n\n")  # type: ignore[union-attr]
    kept = TABLE[NAMED[name].kernel].saves
    forward.__doc__ = (
        f"{formula}\n\nArgs:\n    x: float32 or float64, of any shape.{f' {rest}' if rest else ''}\n"
        f"Returns:\n    y, and what {name}_backward needs: {kept} itself.\n"
        f"Raises:\n    ShapeError, DTypeError, ArgumentError: an argument does not fit.\n"
    )
    backward.__doc__ = f"dx = dy times the derivative of {name}_forward at x."
    for function, direction in ((forward, "forward"), (backward, "backward")):
        function.__name__ = function.__qualname__ = f"{name}_{direction}"
    (x, _, last, _), options = inspect.signature(forward).parameters.values(), inspect.signature(make).parameters.values()
    forward.__signature__ = inspect.Signature([x, *options, last])  # type: ignore[attr-defined]
    return forward, backward


relu_forward, relu_backward = _pair(relu)
leaky_relu_forward, leaky_relu_backward = _pair(leaky_relu)
tanh_forward, tanh_backward = _pair(tanh)
sigmoid_forward, sigmoid_backward = _pair(sigmoid)
gelu_forward, gelu_backward = _pair(gelu)
silu_forward, silu_backward = _pair(silu)
mish_forward, mish_backward = _pair(mish)
elu_forward, elu_backward = _pair(elu)
selu_forward, selu_backward = _pair(selu)
celu_forward, celu_backward = _pair(celu)
softplus_forward, softplus_backward = _pair(softplus)
softsign_forward, softsign_backward = _pair(softsign)
logsigmoid_forward, logsigmoid_backward = _pair(logsigmoid)
hardswish_forward, hardswish_backward = _pair(hardswish)
hardsigmoid_forward, hardsigmoid_backward = _pair(hardsigmoid)
hardtanh_forward, hardtanh_backward = _pair(hardtanh)
relu6_forward, relu6_backward = _pair(relu6)


# -------------------------------------------------------------------------------------------------------------- prelu


class PReLUSaved(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    backend: Backend


def prelu_forward(x: Any, weight: Any, *, backend: str | Backend = "parallel") -> tuple[np.ndarray, PReLUSaved]:
    """y = x where x > 0, else weight * x   (He, Zhang, Ren and Sun 2015).

    Args:
        x: (..., C) float32 or float64. weight: (C,), a slope for each channel, or (1,), one for all.
    Returns:
        y, and what prelu_backward needs: x and weight themselves.
    Raises:
        ShapeError, DTypeError: an argument does not fit.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", be=be)
    weight = checks.floats(weight, "weight", 1, x.dtype, be=be)
    if weight.size not in (1, x.shape[-1]):
        raise ShapeError(f"weight has shape {weight.shape} for x of shape {x.shape}: expected (1,), or one number for each channel")
    y = be.empty(x.shape, x.dtype)
    be.kernel("activation.prelu_forward")(_rows(x), weight, _rows(y))
    return y, PReLUSaved(x, weight, be)


def prelu_backward(dy: Any, saved: PReLUSaved, *, dweight: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """dx = dy where x > 0, else weight * dy; dweight = the sum of dy * x where x <= 0.

    Args:
        dy: the shape of y. dweight: an array to write the gradient of weight into.
    Returns:
        dx, dweight.
    """
    checks.from_training(saved)
    x, weight, be = saved
    dy = checks.shaped(dy, "dy", x.shape, x.dtype, be=be)
    dweight = checks.output(dweight, "dweight", weight.shape, x.dtype, be=be)
    dx, rows = be.empty(x.shape, x.dtype), _rows(x)
    be.kernel("activation.prelu_backward")(_rows(dy), rows, weight, partials(be, *rows.shape), _rows(dx), dweight)
    return dx, dweight


# ------------------------------------------------------------------------------------------------- softmax, log_softmax


class SoftmaxSaved(NamedTuple):
    y: np.ndarray
    kernel: str
    backend: Backend


def softmax_forward(x: Any, *, backend: str | Backend = "parallel") -> tuple[np.ndarray, SoftmaxSaved]:
    """y = exp(x) / sum exp(x) over the last axis.

    Args:
        x: (..., C) float32 or float64.
    Returns:
        y, and what softmax_backward needs: y itself.
    """
    return _softmax(x, "softmax", backend)


def softmax_backward(dy: Any, saved: SoftmaxSaved) -> np.ndarray:
    """dx = y * (dy - sum dy * y), sums over the last axis."""
    return _through_softmax(dy, saved)


def log_softmax_forward(x: Any, *, backend: str | Backend = "parallel") -> tuple[np.ndarray, SoftmaxSaved]:
    """y = x - log sum exp(x) over the last axis.

    Args:
        x: (..., C) float32 or float64.
    Returns:
        y, and what log_softmax_backward needs: y itself.
    """
    return _softmax(x, "log_softmax", backend)


def log_softmax_backward(dy: Any, saved: SoftmaxSaved) -> np.ndarray:
    """dx = dy - exp(y) * sum dy, the sum over the last axis."""
    return _through_softmax(dy, saved)


def _softmax(x: Any, kernel: str, backend: str | Backend) -> tuple[np.ndarray, SoftmaxSaved]:
    be = get_backend(backend)
    x = checks.floats(x, "x", be=be)
    y = be.empty(x.shape, x.dtype)
    be.kernel(f"activation.{kernel}_forward")(_rows(x), _rows(y))
    return y, SoftmaxSaved(y, kernel, be)


def _through_softmax(dy: Any, saved: SoftmaxSaved) -> np.ndarray:
    checks.from_training(saved)
    y, kernel, be = saved
    dy = checks.shaped(dy, "dy", y.shape, y.dtype, be=be)
    dx: np.ndarray = be.empty(y.shape, y.dtype)
    be.kernel(f"activation.{kernel}_backward")(_rows(dy), _rows(y), _rows(dx))
    return dx


def _rows(x: Any) -> Any:
    return x.reshape(-1, x.shape[-1])
