"""Initial values of parameters. An initializer is a function `f(rng, shape) -> float64 array`: give its name, or your own function.
`whitening` and `lsuv` set the weights of a built layer or model from data.

Fans follow the weight layouts of nbnet: Dense (in, out), Conv2D (kh, kw, in, out); fan_in = kh * kw * in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nbnet.code_repr import Made, shown
from nbnet.errors import ArgumentError, BuildError, DTypeError, NonFiniteError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.runtime.arrays import X_DTYPES, in_dtype, take
from nbnet.runtime.commit import Call, assignment, commit

if TYPE_CHECKING:
    from nbnet.layers import Layer, Sequential

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def generator(seed: int, stream: int) -> np.random.Generator:
    """A random generator that depends only on the seed and the layer's stream."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, stream])))


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All 0."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All 1."""
    return np.ones(shape)


@shown("nb.initializers")
def normal(std: float = 0.05) -> Initializer:
    """Normal with mean 0 and the given standard deviation."""
    return lambda rng, shape: rng.normal(0.0, std, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Orthonormal columns, of the weight as a matrix (fan_in, out), or rows where these are fewer   (Saxe, McClelland and Ganguli 2014)."""
    rows, columns = _fans(shape)[0], shape[-1]
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.where(np.diag(r) < 0, -1, 1)  # so that all such matrices are equally likely
    return (q if rows >= columns else q.T).reshape(shape)


@shown("nb.initializers")
def passing(rest: Any = "torch_uniform") -> Initializer:
    """For convolutions: the first filters pass their input channel on, in the middle of the kernel; all others are as `rest` makes them
    (the partial identity of Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.3)."""

    def initialize(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        weight = get(rest)(rng, shape)
        *kernel, channels, filters = shape
        count = min(channels, filters)
        weight[..., :count] = 0
        middle = weight[tuple([size // 2 for size in kernel])]
        np.fill_diagonal(middle[:, :count], 1)
        return weight

    return initialize


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) < 2:
        raise ArgumentError(f"got shape {shape}: this initializer expected a weight of at least 2 axes; use 'zeros' or 'ones'")
    receptive = math.prod(shape[:-2])
    return shape[-2] * receptive, shape[-1] * receptive


def _scaled(name: str, gain: float, mode: str, uniform: bool) -> Initializer:
    """The initializer of this name: variance gain / fan, drawn from a normal or a uniform distribution."""

    def initialize(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        fan_in, fan_out = _fans(shape)
        std = math.sqrt(gain / (fan_in if mode == "in" else (fan_in + fan_out) / 2))
        return rng.uniform(-math.sqrt(3) * std, math.sqrt(3) * std, shape) if uniform else rng.normal(0.0, std, shape)

    return Made(initialize, "nb.initializers", get, name)


def get(initializer: Any) -> Initializer:
    """The initializer of this name, or the function itself."""
    if callable(initializer):
        return initializer
    if not isinstance(initializer, str) or initializer not in INITIALIZERS:
        raise ArgumentError(unknown("initializer", initializer, INITIALIZERS))
    return INITIALIZERS[initializer]


_SCALED = {
    "he_normal": (2, "in", False),  # He, Zhang, Ren and Sun 2015: for ReLU
    "he_uniform": (2, "in", True),
    "glorot_normal": (1, "average", False),  # Glorot and Bengio 2010: for tanh
    "glorot_uniform": (1, "average", True),
    "lecun_normal": (1, "in", False),  # LeCun, Bottou, Orr and Mueller 1998: for SELU
    "lecun_uniform": (1, "in", True),
    "torch_uniform": (1 / 3, "in", True),  # the default of PyTorch's dense layers and convolutions
}
INITIALIZERS: dict[str, Initializer] = {
    "zeros": zeros,
    "ones": ones,
    "orthogonal": orthogonal,
    **{name: _scaled(name, *options) for name, options in _SCALED.items()},
}


# ------------------------------------------------------------------------------------------------------- from data

IMAGES = 256  # whose patches are in memory at once
TRIES = 10  # of one layer, by lsuv


def whitening(layer: Layer, images: Any, eps: float = 5e-4) -> None:
    """Set the weight of a first convolution so that its outputs are uncorrelated   (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds").

    The filters are the eigenvectors of the second moments of all patches, each divided by sqrt(eigenvalue + eps), the largest eigenvalue
    first, and then their negatives. As there, the weight is not trainable any more (nb.unfreeze undoes that), and a bias is 0 and is
    trained. For whitening, the images should have mean 0.

    Args:
        layer: a built Conv2D with 2 * kh * kw * C filters, such as nb.Conv2D(24, 2, padding="valid") for RGB.
        images: (N, H, W, C) as for the layer, float32, float64 or uint8, which is divided by 255; some thousands are enough.
        eps: above 0; it limits how much rare patterns are enlarged.
    Raises:
        BuildError, ArgumentError, ShapeError, DTypeError, NonFiniteError: the layer or the images do not fit; nothing has changed.
    """
    _check_built(layer, "whitening", "params")
    weight = layer.params.get("weight")
    if weight is None or weight.value.ndim != 4 or getattr(layer, "groups", 0) != 1 or getattr(layer, "dilation", 0) != (1, 1):
        raise ArgumentError(f"whitening got {layer!r}, expected a Conv2D without groups and dilation")
    *kernel, channels, filters = weight.value.shape
    size = math.prod(kernel) * channels
    if filters != 2 * size:
        raise ArgumentError(f"whitening got {filters} filters, expected {2 * size}: use nb.Conv2D({2 * size}, {tuple(kernel)})")
    eps = checks.number(eps, "eps", "a finite number above 0", lambda eps: 0 < eps < math.inf)
    images = checks.as_array(images, "images")
    if images.shape[1:] != layer.input_shape or not len(images):
        expected = ", ".join(map(str, layer.input_shape or ()))
        raise ShapeError(f"whitening got images of shape {images.shape}, expected (N, {expected}) with N at least 1")
    if images.dtype not in X_DTYPES:
        raise DTypeError(f"whitening got images of dtype {images.dtype}, expected uint8, float32 or float64")
    moments, count = np.zeros((size, size)), 0
    for start in range(0, len(images), IMAGES):
        part = images[start : start + IMAGES].astype(np.float64) / (255 if images.dtype == np.uint8 else 1)
        patches = np.lib.stride_tricks.sliding_window_view(part, kernel, axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3).reshape(-1, size)
        moments, count = moments + patches.T @ patches, count + len(patches)
    if not np.isfinite(moments).all():
        raise NonFiniteError("whitening got images with NaN or infinity, or too large: expected numbers of about -1 to 1")
    values, vectors = np.linalg.eigh(moments / count)
    scaled = (vectors / np.sqrt(np.maximum(values, 0) + eps))[:, ::-1]
    scaled *= np.sign(scaled[np.abs(scaled).argmax(axis=0), np.arange(size)])  # LAPACK may give either sign
    calls: list[Call] = [assignment(weight.value, np.concatenate((scaled, -scaled), axis=1).reshape(weight.value.shape))]
    if "bias" in layer.params:
        calls.append(assignment(layer.params["bias"].value, 0))
    commit([*calls, partial(setattr, weight, "trainable", False)])


def lsuv(model: Sequential, x: Any, tolerance: float = 0.1) -> None:
    """Orthonormal weights, scaled layer by layer until the outputs have variance 1   (Mishkin and Matas 2015: LSUV).

    It sets the weight of each dense and convolution layer, trainable or not, in the order of the model. The variance is that of all outputs
    for x, before an activation, in evaluation: without dropout, and with moving statistics. To leave out the first layer, call
    lsuv(model[1:], model[:1].predict(x)).

    Args:
        model: built; random numbers follow from its seed.
        x: a batch of its inputs as in training, for example 256 rows.
        tolerance: how far from 1 a variance may be, above 0.
    Raises:
        BuildError, ArgumentError, ShapeError, DTypeError: the model, x or the tolerance does not fit.
        NonFiniteError: the outputs of a layer are all the same, or not finite. Nothing has changed then.
    """
    _check_built(model, "lsuv", "check_rows")
    tolerance = checks.number(tolerance, "tolerance", "a finite number above 0", lambda tolerance: 0 < tolerance < math.inf)
    x = in_dtype(take(model.check_rows(x), slice(None)), model.dtype)
    layers = [layer for layer in model.walk() if "weight_initializer" in vars(layer)]
    before = [assignment(layer.params["weight"].value, layer.params["weight"].value.copy()) for layer in layers]
    try:
        for layer in layers:
            _unit_variance(layer, _input_of(layer, model, x), tolerance)
    except BaseException:
        commit(before)
        raise


def _unit_variance(layer: Any, x: Any, tolerance: float) -> None:
    """Give a layer an orthonormal weight, scaled so that its outputs for x have variance 1."""
    value = layer.params["weight"].value
    form = getattr(layer, "in_form", np.asarray)(value).shape  # that of a depthwise convolution is one in groups
    value[...] = orthogonal(generator(layer.seed, layer.stream), form).reshape(value.shape)
    activation = vars(layer).get("activation")
    try:
        if activation is not None:
            layer.activation = None
        for _ in range(TRIES):
            variance = float(np.asarray(layer.forward(x)[0]).var(dtype=np.float64))
            if not 0 < variance < math.inf:
                raise NonFiniteError(f"lsuv: the outputs of layer {layer.name} have variance {variance}: expected x with different rows")
            if abs(variance - 1) <= tolerance:
                return
            value[...] = np.asarray(value) / math.sqrt(variance)
    finally:
        if activation is not None:
            layer.activation = activation


class _Reached(Exception):
    """The input of a layer that is to run next."""


def _input_of(layer: Layer, model: Sequential, x: Any) -> Any:
    """What reaches a layer, in the first of its places."""
    own = vars(layer).get("forward")

    def reached(x: Any, train: bool = False) -> Any:
        raise _Reached(x)

    layer.forward = reached  # type: ignore[method-assign]
    try:
        model.forward(x)
    except _Reached as found:
        return found.args[0]
    finally:
        del layer.forward
        if own is not None:
            layer.forward = own  # type: ignore[method-assign]


def _check_built(layer: Any, function: str, needs: str) -> None:
    if not hasattr(layer, needs):
        raise ArgumentError(f"{function} got {type(layer).__name__}, expected a built {'layer' if needs == 'params' else 'model'}")
    if layer.input_shape is None:
        raise BuildError(f"{function} expects a built layer or model: call build(input_shape) first")
