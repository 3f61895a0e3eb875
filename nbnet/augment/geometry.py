"""Transforms that move pixels. Those that move whole pixels are tables of rows and columns, which compose without loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet.augment.base import MODES, Shape, Transform, below, chance, mode_of, span, uniform
from nbnet.errors import ArgumentError
from nbnet.functional import checks

Places = tuple[np.ndarray | None, np.ndarray | None]
FIXED = 1 << 24  # the unit of a map's numbers (see nbnet.kernels.augment)


class Moving(Transform):
    """A transform that moves whole rows and columns."""

    def places(self, words: np.ndarray, epoch: int, height: int, width: int) -> Places:
        """Where the rows (N, H) and the columns (N, W) of the result come from; -1 is black, and None is no change. words: (N,
        self.words)."""
        raise NotImplementedError


class RandomFlip(Moving):
    """Mirror images horizontally.

    Args:
        probability: of each image in each epoch.
        alternating: the first epoch flips each image with this probability; from then on, every epoch flips all images that the epoch
            before it did not (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.6). So two epochs show each image in both forms.
        vertical: mirror them vertically instead.
    """

    words = 1

    def __init__(self, probability: float = 0.5, alternating: bool = False, vertical: bool = False) -> None:
        self.probability = chance(probability)
        self.alternating, self.vertical = bool(alternating), bool(vertical)

    def places(self, words: np.ndarray, epoch: int, height: int, width: int) -> Places:
        flips = (uniform(words[:, :1]) < self.probability) ^ (self.alternating and epoch % 2 == 1)
        along = np.arange(height if self.vertical else width)
        flipped = np.where(flips, along[::-1], along)
        return (flipped, None) if self.vertical else (None, flipped)


class _Shift(Moving):
    """Base of transforms that move an image by whole pixels along both axes."""

    words = 2
    mode: str

    def most(self, height: int, width: int) -> tuple[int, int]:
        """The largest distances down and across."""
        raise NotImplementedError

    def places(self, words: np.ndarray, epoch: int, height: int, width: int) -> Places:
        found = []
        for axis, (most, size) in enumerate(zip(self.most(height, width), (height, width))):
            first = below(words[:, axis : axis + 1], 2 * most + 1) - most
            found.append(outside(first + np.arange(size), size, self.mode))
        return found[0], found[1]


class RandomCrop(_Shift):
    """Pad images on all sides and cut out their size again at a random place   (as in He et al. 2016, section 4.2).

    Args:
        padding: pixels, or (height, width), less than the image has.
        mode: what the padding is: "reflect" (without the edge itself), "edge" or "zeros" (black).
    """

    def __init__(self, padding: int | tuple[int, int] = 4, mode: str = "reflect") -> None:
        sizes = padding if isinstance(padding, (tuple, list)) and len(padding) == 2 else (padding, padding)
        try:
            self.padding = checks.whole(sizes[0], "padding", 0), checks.whole(sizes[1], "padding", 0)
        except ArgumentError:
            raise ArgumentError(f"padding={padding!r}: expected a whole number of pixels, or two (height, width)") from None
        self.mode = mode_of(mode)

    @classmethod
    def default(cls, shape: Shape) -> RandomCrop:
        return cls((shape[0] // 8, shape[1] // 8))

    def check(self, shape: Shape) -> None:
        if self.padding[0] >= shape[0] or self.padding[1] >= shape[1]:
            most = shape[0] - 1, shape[1] - 1
            raise ArgumentError(f"RandomCrop has padding={self.padding} for images of {shape[0]}x{shape[1]}: expected at most {most}")

    def most(self, height: int, width: int) -> tuple[int, int]:
        return self.padding


class RandomTranslate(_Shift):
    """Move images by whole pixels.

    Args:
        fraction: of the size, that they move at most along each axis: below 1.
        mode: what comes in from outside: "zeros" (black), "edge" or "reflect".
    """

    def __init__(self, fraction: float = 0.125, mode: str = "zeros") -> None:
        self.fraction = checks.number(fraction, "fraction", "a number from 0 to below 1", lambda part: 0 <= part < 1)
        self.mode = mode_of(mode)

    def most(self, height: int, width: int) -> tuple[int, int]:
        return int(self.fraction * height + 1e-9), int(self.fraction * width + 1e-9)  # 2 / 49 of 49 pixels are 2


class RandomAffine(Transform):
    """Rotate, scale and shear images about their centre, with bilinear interpolation. A list may have one.

    Args:
        degrees: of the rotation: (low, high), or one number for both directions; positive is counter-clockwise.
        scale: (low, high), from 0.01 to 100; above 1 is larger.
        shear: degrees, (low, high) or one number: how far vertical lines lean, below 90.
        mode: what is outside of the image: "zeros" (black), "edge" or "reflect".
    """

    words = 3
    once = True

    def __init__(self, degrees: Any = 15.0, scale: Any = (1.0, 1.0), shear: Any = 0.0, mode: str = "zeros") -> None:
        self.degrees = span(degrees, "degrees", -360, 360)
        self.scale = span(scale, "scale", 0.01, 100)
        self.shear = span(shear, "shear", -89, 89)
        self.mode = mode_of(mode)

    @property
    def border(self) -> int:
        return MODES.index(self.mode)

    def maps(self, words: np.ndarray, height: int, width: int) -> np.ndarray:
        """(N, 6) int64: from pixels of the result to points of the image (see nbnet.kernels.augment). words: (N, 3)."""
        angle, scale, lean = (uniform(words[:, i], *limits) for i, limits in enumerate((self.degrees, self.scale, self.shear)))
        angle, lean = np.radians(angle), np.tan(np.radians(lean))
        # The result's point is scale * rotation * shear of the image's; here is the inverse. y points down.
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        a, b, c, d = cos - lean * sin, -sin - lean * cos, sin, cos
        x, y = (width - 1) / 2, (height - 1) / 2
        exact = np.stack([a, b, x - a * x - b * y, c, d, y - c * x - d * y], axis=1)
        maps = np.rint(exact * FIXED).astype(np.int64)
        maps[:, 2::3] += FIXED >> 9  # kernels cut off what is below 1/256
        return maps


class Cutout(Transform):
    """Set a square at a random place to 0 in the normalised image, which is the mean colour after Normalize (DeVries and Taylor 2017).

    Args:
        size: pixels, or (height, width). The centre is any pixel: squares at the edge are partly outside.
    """

    words = 2

    def __init__(self, size: int | tuple[int, int] = 8) -> None:
        self.size = checks.pair(size, "size")

    @classmethod
    def default(cls, shape: Shape) -> Cutout:
        return cls((max(1, shape[0] // 4), max(1, shape[1] // 4)))

    def check(self, shape: Shape) -> None:
        if self.size[0] > shape[0] or self.size[1] > shape[1]:
            raise ArgumentError(f"Cutout has size={self.size} for images of {shape[0]}x{shape[1]}: expected at most that size")

    def boxes(self, words: np.ndarray, height: int, width: int) -> np.ndarray:
        """(N, 4) int64: first row, end row, first column, end column. words: (N, 2)."""
        return boxes_at(words, np.full((len(words), 2), self.size), height, width)


def boxes_at(words: np.ndarray, sizes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes (N, 4) of these sizes (N, 2), around random pixels, cut off at the edges of the image."""
    edges = []
    for axis, size in enumerate((height, width)):
        first = below(words[:, axis], size) - sizes[:, axis] // 2
        edges += [np.maximum(first, 0), np.minimum(first + sizes[:, axis], size)]
    return np.stack(edges, axis=1)


def outside(places: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Places along an axis that may be outside of it, as pixels; -1 is black."""
    if mode == "edge":
        return np.clip(places, 0, size - 1)
    if mode == "zeros" or size == 1:
        return np.where((places >= 0) & (places < size), places, -1 if mode == "zeros" else 0)
    places = np.abs(places) % (2 * size - 2)
    return np.where(places < size, places, 2 * size - 2 - places)


def after(places: np.ndarray | None, before: np.ndarray | None) -> np.ndarray | None:
    """The table (N, size) of two transforms: places in a picture whose own places are before. None is no change."""
    if places is None or before is None:
        return before if places is None else places
    return np.where(places < 0, -1, before[np.arange(len(before))[:, None], places])
