"""What every transform is, and how its random numbers come from words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError, unknown
from nbnet.functional import checks

MODES = ("zeros", "edge", "reflect")  # what is outside of a picture; their places are the numbers that kernels take
Shape = tuple[int, int, int]  # of an image: height, width, channels


class Transform(CodeRepr):
    """Base of all transforms. Its numbers for an image are a function of random words, which belong to the image and the epoch."""

    _package = "nbnet.augment"
    words = 0  # how many random words an image takes
    once = False  # whether a list may have one of these only

    @classmethod
    def default(cls, shape: Shape) -> Transform:
        """The transform with the options that its name stands for, for images of this shape."""
        return cls()

    def check(self, shape: Shape) -> None:
        """Raise an ArgumentError if it does not fit images of this shape."""


def uniform(words: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Numbers between low and high, never either, one for each word: float64."""
    return low + (high - low) * ((words.astype(np.float64) + 0.5) / (1 << 32))


def below(words: np.ndarray, count: int) -> np.ndarray:
    """Whole numbers from 0 to count - 1, one for each word: int64. count is at most 2^32."""
    return ((words.astype(np.uint64) * np.uint64(count)) >> np.uint64(32)).astype(np.int64)


def chance(value: Any) -> float:
    return checks.number(value, "probability", "a number from 0 to 1", lambda p: 0 <= p <= 1)


def amount(value: Any, name: str, most: float = math.inf) -> float:
    """A number from 0 to `most`."""
    expected = "a finite number that is at least 0" if most == math.inf else f"a number from 0 to {most:g}"
    return checks.number(value, name, expected, lambda number: 0 <= number <= most and number < math.inf)


def span(value: Any, name: str, least: float, most: float) -> tuple[float, float]:
    """(low, high) from two numbers, or -value to value from one, within least to most."""
    low, high = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)
    expected = f"numbers (low, high) from {least:g} to {most:g}" + (", or one for both signs" if least < 0 else "")
    try:
        found = [checks.number(number, name, expected, lambda number: least <= number <= most) for number in (low, high)]
    except ArgumentError:
        found = []
    single = not isinstance(value, (tuple, list))
    if not found or found[0] > found[1] or (single and (least >= 0 or found[0] < 0)):
        raise ArgumentError(f"{name}={value!r}: expected {expected}")
    return (-found[0], found[0]) if single else (found[0], found[1])


def mode_of(mode: Any) -> str:
    if mode not in MODES:
        raise ArgumentError(unknown("mode", mode, MODES))
    return str(mode)
