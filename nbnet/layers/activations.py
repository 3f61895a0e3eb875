"""Activation layers. Formulas are those of nbnet.functional.activations, where each names its source."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbnet import functional as F
from nbnet.errors import ShapeError
from nbnet.functional import activations as of
from nbnet.functional import checks
from nbnet.functional.activations import Activation, ActivationSaved
from nbnet.layers.base import Layer, Shape


class Elementwise(Layer):
    """y = f(x) and dx = dy * f'(x), element by element; a subclass gives the activation, from its attributes."""

    replayable = True

    @property
    def of_kernel(self) -> Activation:
        """The kernel and its options."""
        raise NotImplementedError

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        y, saved = of.activate(self.check_input(x), self.of_kernel, self.backend)
        return y, saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return of.through(dy, saved)


def _plain(make: Any) -> Any:
    """The property of an activation without options."""
    return property(lambda self: make())


class ReLU(Elementwise):
    """y = max(x, 0)."""

    replayable = True
    of_kernel = _plain(of.relu)


class LeakyReLU(Elementwise):
    """y = x where x > 0, else slope * x   (Maas, Hannun and Ng 2013).

    Args:
        slope: of the negative part, above 0 (0 is ReLU).
    """

    replayable = True

    def __init__(self, slope: float = 0.01):
        super().__init__()
        (self.slope,) = of.leaky_relu(slope).options

    @property
    def of_kernel(self) -> Activation:
        return of.leaky_relu(self.slope)


class Tanh(Elementwise):
    """y = tanh(x)."""

    replayable = True
    of_kernel = _plain(of.tanh)


class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x))."""

    replayable = True
    of_kernel = _plain(of.sigmoid)


class GELU(Elementwise):
    """y = x Phi(x), where Phi(x) is the probability that a standard normal number is below x   (Hendrycks and Gimpel 2016).

    Args:
        approximate: "none", or "tanh": y = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
    """

    replayable = True

    def __init__(self, approximate: str = "none"):
        super().__init__()
        of.gelu(approximate)
        self.approximate = approximate

    @property
    def of_kernel(self) -> Activation:
        return of.gelu(self.approximate)


class SiLU(Elementwise):
    """y = x / (1 + exp(-x)), also called swish   (Elfwing, Uchibe and Doya 2017)."""

    replayable = True
    of_kernel = _plain(of.silu)


class Mish(Elementwise):
    """y = x tanh(log(1 + exp(x)))   (Misra 2019)."""

    replayable = True
    of_kernel = _plain(of.mish)


class ELU(Elementwise):
    """y = x where x > 0, else alpha * (exp(x) - 1)   (Clevert, Unterthiner and Hochreiter 2015).

    Args:
        alpha: at least 0.
    """

    replayable = True

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = of.elu(alpha).options[0]

    @property
    def of_kernel(self) -> Activation:
        return of.elu(self.alpha)


class SELU(Elementwise):
    """y = 1.0507 * (x where x > 0, else 1.6733 * (exp(x) - 1)): keeps mean 0 and variance 1   (Klambauer and others 2017)."""

    replayable = True
    of_kernel = _plain(of.selu)


class CELU(Elementwise):
    """y = x where x > 0, else alpha * (exp(x / alpha) - 1)   (Barron 2017).

    Args:
        alpha: above 0.
    """

    replayable = True

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = of.celu(alpha).options[0]

    @property
    def of_kernel(self) -> Activation:
        return of.celu(self.alpha)


class Softplus(Elementwise):
    """y = log(1 + exp(beta * x)) / beta, a smooth ReLU.

    Args:
        beta: above 0. threshold: where beta * x is above it, y is x.
    """

    replayable = True

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__()
        self.beta, self.threshold = of.softplus(beta, threshold).options

    @property
    def of_kernel(self) -> Activation:
        return of.softplus(self.beta, self.threshold)


class Softsign(Elementwise):
    """y = x / (1 + |x|)."""

    replayable = True
    of_kernel = _plain(of.softsign)


class LogSigmoid(Elementwise):
    """y = -log(1 + exp(-x))."""

    replayable = True
    of_kernel = _plain(of.logsigmoid)


class Hardswish(Elementwise):
    """y = x * relu6(x + 3) / 6   (Howard and others 2019)."""

    replayable = True
    of_kernel = _plain(of.hardswish)


class Hardsigmoid(Elementwise):
    """y = relu6(x + 3) / 6."""

    replayable = True
    of_kernel = _plain(of.hardsigmoid)


class Hardtanh(Elementwise):
    """y = x, but at least low and at most high.

    Args:
        low, high: low below high.
    """

    replayable = True

    def __init__(self, low: float = -1.0, high: float = 1.0):
        super().__init__()
        self.low, self.high = of.hardtanh(low, high).options

    @property
    def of_kernel(self) -> Activation:
        return of.hardtanh(self.low, self.high)


class ReLU6(Elementwise):
    """y = x, but at least 0 and at most 6."""

    replayable = True
    of_kernel = _plain(of.relu6)


class PReLU(Layer):
    """y = x where x > 0, else weight * x, with a slope that is trained   (He, Zhang, Ren and Sun 2015).

    Args:
        per_channel: a slope for each channel (the last axis); False is one for all, as in PyTorch.
        initial: the slopes before training.
    Params: weight (C,) or (1,).
    """

    replayable = True

    def __init__(self, per_channel: bool = False, initial: float = 0.25):
        super().__init__()
        self.per_channel = per_channel
        self.initial = checks.number(initial, "initial", "a finite number", math.isfinite)

    def create(self, input_shape: Shape) -> Shape:
        shape = input_shape[-1:] if self.per_channel else (1,)
        self.add_param("weight", shape, lambda rng, shape: np.full(shape, self.initial))
        return input_shape

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        y, saved = F.prelu_forward(self.check_input(x), self.params["weight"].value, backend=self.backend)
        return y, saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.prelu_backward(dy, saved, dweight=self.params["weight"].grad)[0]


class _OfRows(Layer):
    """Base of softmax and log_softmax over the last axis of flat features."""

    replayable = True

    def create(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            layer = type(self).__name__
            raise ShapeError(f"{layer} got inputs of shape {input_shape}, expected flat features (C,): put Flatten() before it")
        return input_shape


class Softmax(_OfRows):
    """Probabilities over the last axis. The loss softmax_cross_entropy takes logits: do not end a model for it with this layer."""

    replayable = True

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        y, saved = F.softmax_forward(self.check_input(x), backend=self.backend)
        return y, saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.softmax_backward(dy, saved)


class LogSoftmax(_OfRows):
    """Logarithms of probabilities over the last axis. A model for softmax_cross_entropy may end with it: its softmax is the same."""

    replayable = True

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        y, saved = F.log_softmax_forward(self.check_input(x), backend=self.backend)
        return y, saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.log_softmax_backward(dy, saved)


# ------------------------------------------------------------------------------------ an activation as part of another layer

# the layer that does the same as an `activation=` of this name
BY_NAME: dict[str, Callable[[], Elementwise]] = {"leaky_relu": LeakyReLU, "gelu_tanh": lambda: GELU("tanh")}
BY_NAME |= {layer.__name__.lower(): layer for layer in Elementwise.__subclasses__() if layer is not LeakyReLU}


class Activated(NamedTuple):
    """What a layer with an activation saved."""

    layer: Any
    activation: ActivationSaved


def activated(layer: Any, y: Any, saved: Any, train: bool) -> tuple[Any, Any]:
    """What forward of a layer returns, from what it computed before its `activation`."""
    activation = of.named(layer.activation)
    if activation is None:
        return y, saved if train else None
    y, of_activation = of.activate(y, activation, layer.backend, overwrite=True)
    return y, Activated(saved, of_activation) if train else None


def before_activation(dy: Any, saved: Any) -> tuple[Any, Any]:
    """dy and saved of the layer before its activation."""
    return (of.through(dy, saved.activation), saved.layer) if isinstance(saved, Activated) else (dy, saved)
