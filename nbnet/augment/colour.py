"""Transforms that change the values of pixels."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbnet.augment.base import Shape, Transform, amount, uniform
from nbnet.errors import ArgumentError
from nbnet.functional import checks

GREY = np.array([0.299, 0.587, 0.114])  # the luma of ITU-R BT.601
TO_YIQ = np.array([GREY, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # luma and two axes of colour (NTSC 1953)
LEVELS = 4096  # of the noise
BITS = 12  # of a colour matrix: products with interpolated bytes are then exact in float32


class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue, in this order; then values are cut off at black and white.

    Args:
        brightness: b: values are multiplied by a factor from 1 - b to 1 + b.
        contrast: likewise, their distance from mid-grey (0.5, not the mean of the image).
        saturation: likewise, their distance from the grey of the pixel.
        hue: turns, at most 0.5: colours are rotated about the grey axis of YIQ by up to so much in both directions.
    b is from 0 to 1, also of contrast and saturation. Images have one channel (where the last two do nothing) or three; floats are from
    0 (black) to 1 (white).
    """

    words = 4

    def __init__(self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2, hue: float = 0.0) -> None:
        self.brightness, self.contrast = amount(brightness, "brightness", 1), amount(contrast, "contrast", 1)
        self.saturation, self.hue = amount(saturation, "saturation", 1), amount(hue, "hue", 0.5)

    def check(self, shape: Shape) -> None:
        if shape[2] not in (1, 3):
            raise ArgumentError(f"ColorJitter got images with {shape[2]} channels, expected 1 or 3: grey or red, green, blue")

    def matrices(self, words: np.ndarray, channels: int) -> np.ndarray:
        """(N, C, C + 1) float64, for values from 0 to 1: the last column is added. words: (N, 4)."""
        limits = (self.brightness, self.contrast, self.saturation)
        bright, contrast, saturation = (uniform(words[:, i], 1 - most, 1 + most)[:, None, None] for i, most in enumerate(limits))
        found = np.empty((len(words), channels, channels + 1))
        found[:, :, :channels] = bright * contrast * np.eye(channels)
        found[:, :, channels] = (0.5 - 0.5 * contrast)[:, :, 0]
        if channels == 1:
            return found
        turn = 2 * math.pi * uniform(words[:, 3], -self.hue, self.hue)
        rotation = np.tile(np.eye(3), (len(words), 1, 1))
        rotation[:, 1, 1], rotation[:, 2, 2] = np.cos(turn), np.cos(turn)
        rotation[:, 1, 2], rotation[:, 2, 1] = -np.sin(turn), np.sin(turn)
        hue = np.linalg.inv(TO_YIQ) @ rotation @ TO_YIQ
        grey = np.broadcast_to(GREY, (3, 3))
        return hue @ (grey + saturation * (np.eye(3) - grey)) @ found


class RandomNoise(Transform):
    """Add normal noise to each value. A list may have one. Its numbers are 4,096 quantiles of the normal distribution.

    Args:
        deviation: the standard deviation, where 1 is from black to white.
    """

    once = True

    def __init__(self, deviation: float = 0.05) -> None:
        self.deviation = amount(deviation, "deviation")


class Normalize(Transform):
    """(value - mean) / std of each channel, in the evaluation too. A list may have one.

    Args:
        mean, std: one number, or one for each channel, of values from 0 to 1 (bytes are divided by 255). std is above 0.
    """

    once = True

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean = _per_channel(mean, "mean", "finite numbers", lambda value: math.isfinite(value))
        self.std = _per_channel(std, "std", "finite numbers above 0", lambda value: 0 < value < math.inf)

    def check(self, shape: Shape) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if isinstance(values, tuple) and len(values) != shape[2]:
                raise ArgumentError(f"Normalize has {len(values)} numbers in {name}, expected {shape[2]}, one for each channel, or one")


def _per_channel(value: Any, name: str, expected: str, fits: Any) -> float | tuple[float, ...]:
    values = value.tolist() if isinstance(value, np.ndarray) else value
    try:
        if isinstance(values, (tuple, list)) and values:
            return tuple([checks.number(each, name, "", fits) for each in values])
        return checks.number(values, name, "", fits)
    except ArgumentError:
        raise ArgumentError(f"{name}={value!r}: expected {expected}, one or one for each channel") from None


@functools.lru_cache(1)
def normal_quantiles() -> np.ndarray:
    """The middles of LEVELS equal parts of the standard normal distribution, scaled to a variance of 1: (LEVELS,) float64."""
    normal = statistics.NormalDist()
    values = np.array([normal.inv_cdf((k + 0.5) / LEVELS) for k in range(LEVELS)])
    return values / values.std()


def rounded(matrices: np.ndarray) -> np.ndarray:
    """Colour matrices (N, C, C + 1) whose factors have BITS bits below the largest of their image."""
    factors = matrices[:, :, :-1]
    _, exponent = np.frexp(np.abs(factors).max(axis=(1, 2), keepdims=True))
    found = matrices.copy()
    found[:, :, :-1] = np.ldexp(np.rint(np.ldexp(factors, BITS - exponent)), exponent - BITS)
    return found
