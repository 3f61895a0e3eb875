"""Initial values of parameters. An initializer is a function `f(rng, shape) -> float64 array`: give its name, or your own function.

Fans follow the weight layouts of nbnet: Dense (in, out), Conv2D (kh, kw, in, out); fan_in = kh * kw * in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.code_repr import Made, shown
from nbnet.errors import ArgumentError, unknown

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def generator(seed: int, stream: int) -> np.random.Generator:
    """A random generator that depends only on the seed and the layer's stream."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, stream])))


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape)


@shown("nb.initializers")
def normal(std: float = 0.05) -> Initializer:
    """Normal with mean 0 and the given standard deviation."""
    return lambda rng, shape: rng.normal(0.0, std, shape)


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
}
INITIALIZERS: dict[str, Initializer] = {
    "zeros": zeros,
    "ones": ones,
    **{name: _scaled(name, *options) for name, options in _SCALED.items()},
}
