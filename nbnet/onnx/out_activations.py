"""Activations as nodes, by the name of their kernel: layers, and `activation=` of other layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbnet.functional.activations import Activation, leaky_relu, named
from nbnet.layers import BatchNorm, PReLU
from nbnet.layers.activations import Elementwise
from nbnet.onnx.writer import Value, Writer, channel_wise

ALMOST_LINEAR = 17.0  # above it, log(1 + exp(x)) is x in float32


def activated(w: Writer, layer: Any, x: Value) -> Value:
    """The value after the `activation=` of a layer."""
    activation = named(layer.activation)
    if activation is None:
        return x
    if isinstance(layer, BatchNorm) and layer.activation == "leaky_relu":
        activation = leaky_relu(layer.slope)
    return _written(w, activation, x)


def elementwise(w: Writer, layer: Elementwise, x: Value) -> Value:
    return _written(w, layer.of_kernel, x)


def _written(w: Writer, activation: Activation, x: Value) -> Value:
    return x._replace(name=KERNELS[activation.kernel](w, x.name, *activation.options))


def _plain(op: str, **attributes: Any) -> Callable[..., str]:
    """One node without options."""
    return lambda w, x: w.node(op, x, **attributes)


def _silu(w: Writer, x: str) -> str:
    return w.node("Mul", x, w.node("Sigmoid", x))


def _elu(w: Writer, x: str, alpha: float, scale: float, inner: float) -> str:
    """scale * (x where x > 0, else alpha * (exp(inner * x) - 1))."""
    if inner != 1:
        return w.node("Celu", x, alpha=alpha)
    if scale != 1:
        return w.node("Selu", x, alpha=alpha, gamma=scale)
    return w.node("Elu", x, alpha=alpha)


def _softplus(w: Writer, x: str, beta: float, threshold: float) -> str:
    scaled = x if beta == 1 else w.node("Mul", x, w.own("beta", beta))
    y = w.node("Softplus", scaled)
    y = y if beta == 1 else w.node("Div", y, w.own("beta", beta))
    if threshold >= ALMOST_LINEAR:
        return y
    return w.node("Where", w.node("Greater", scaled, w.own("threshold", threshold)), x, y)


def _logsigmoid(w: Writer, x: str) -> str:
    return w.node("Neg", w.node("Softplus", w.node("Neg", x)))


KERNELS: dict[str, Callable[..., str]] = {
    "relu": _plain("Relu"),
    "leaky_relu": lambda w, x, slope: w.node("LeakyRelu", x, alpha=slope),
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "gelu": _plain("Gelu"),
    "gelu_tanh": _plain("Gelu", approximate="tanh"),
    "silu": _silu,
    "mish": _plain("Mish"),
    "elu": _elu,
    "softplus": _softplus,
    "softsign": _plain("Softsign"),
    "logsigmoid": _logsigmoid,
    "hardswish": _plain("HardSwish"),
    "hardsigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardtanh": lambda w, x, low, high: w.node("Clip", x, w.own("low", low), w.own("high", high)),
}


def prelu(w: Writer, layer: PReLU, x: Value) -> Value:
    x = w.first(x)
    slopes = channel_wise(layer.params["weight"].value, x.shape)
    return x._replace(name=w.node("PRelu", x.name, w.param(layer, "weight", slopes)))
