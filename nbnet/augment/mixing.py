"""Transforms that mix two images of the data set, and their targets."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from nbnet.augment.base import Transform, below, chance, uniform
from nbnet.augment.geometry import boxes_at
from nbnet.functional import checks

POINTS = 4096  # of a table of quantiles
SHARE = 1 << 16  # the unit of a share: products with float32 are then exact in float64 (see nbnet.kernels.augment)


class Mixed(NamedTuple):
    """How N images are mixed with others."""

    partners: np.ndarray  # (N,) int64: rows of the data set
    share: np.ndarray  # (N,) float64: of the image itself, outside of the box
    box: np.ndarray  # (N, 4) int64: where it is the partner
    own: np.ndarray  # (N,) float64: the weight of its own target


class Mixing(Transform):
    """Base of MixUp and CutMix. Of several in a list, the last one that applies to an image counts."""

    words = 5
    alpha: float
    probability: float

    def __init__(self, alpha: float, probability: float) -> None:
        self.alpha = checks.number(alpha, "alpha", "a number above 0, at most 1000", lambda alpha: 0 < alpha <= 1000)
        self.probability = chance(probability)

    def shares(self, words: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """share, box and own of Mixed. words: (N, 5), of which the first two are used by `mixed`."""
        raise NotImplementedError

    def mixed(self, words: np.ndarray, before: Mixed, height: int, width: int, count: int) -> Mixed:
        """What is mixed, after what earlier transforms of the list mix. count: rows of the data set."""
        applies = uniform(words[:, 0]) < self.probability
        found = Mixed(below(words[:, 1], count), *self.shares(words, height, width))
        return Mixed(*(np.where(applies if new.ndim == 1 else applies[:, None], new, old) for new, old in zip(found, before)))


class MixUp(Mixing):
    """share * image + (1 - share) * partner, and their targets likewise (Zhang, Cisse, Dauphin and Lopez-Paz 2018).

    The partner is a random image of the data set, augmented as in this epoch. A sample weight is that of the image itself.

    Args:
        alpha: the share has the distribution Beta(alpha, alpha); above 0.
        probability: the probability that an image is mixed.
    """

    def __init__(self, alpha: float = 0.2, probability: float = 1.0) -> None:
        super().__init__(alpha, probability)

    def shares(self, words: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        share = np.rint(beta_quantile(uniform(words[:, 2]), self.alpha) * SHARE) / SHARE
        return share, np.zeros((len(words), 4), np.int64), share


class CutMix(Mixing):
    """A box of the partner in the image; the weights of their targets are their areas (Yun et al. 2019).

    Args: as MixUp; the box has 1 - share of the area, before it is cut off at the edges.
    """

    def __init__(self, alpha: float = 1.0, probability: float = 1.0) -> None:
        super().__init__(alpha, probability)

    def shares(self, words: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        side = np.sqrt(1 - beta_quantile(uniform(words[:, 2]), self.alpha))
        box = boxes_at(words[:, 3:], (side[:, None] * [height, width]).astype(np.int64), height, width)
        area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
        return np.ones(len(words)), box, 1 - area / (height * width)


def beta_quantile(u: np.ndarray, alpha: float) -> np.ndarray:
    """The quantiles of Beta(alpha, alpha) at u, from 0 to 1: by a table, within about 1e-6 in u."""
    below_half, at = _beta_table(alpha)
    lower = np.interp(np.minimum(u, 1 - u), below_half, at) ** (1 / min(alpha, 1.0))
    return np.where(u < 0.5, lower, 1 - lower)


@functools.lru_cache(8)
def _beta_table(alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The distribution function of Beta(alpha, alpha) from 0 to 1/2, at points s = x^e with e = min(alpha, 1), where its density in s is
    bounded: x^(alpha - e) (1 - x)^(alpha - 1), up to a factor. The sum is Simpson's."""
    e = min(alpha, 1.0)
    s = np.linspace(0, 0.5**e, 2 * POINTS + 1)
    x = s ** (1 / e)
    with np.errstate(divide="ignore"):
        logarithm = (alpha - 1) * np.log1p(-x) + ((alpha - e) * np.log(x) if alpha > e else 0)
    density = np.exp(logarithm - logarithm.max())
    parts = density[:-2:2] + 4 * density[1::2] + density[2::2]
    total = np.concatenate([[0.0], np.cumsum(parts)])
    return 0.5 * total / total[-1], s[::2]


def targets(mixed: Mixed, own: np.ndarray, partner: np.ndarray, classes: int, dtype: np.dtype) -> np.ndarray:
    """Probabilities (N, classes) of labels (N,), or of probabilities (N, classes)."""
    weight = mixed.own[:, None]
    return (weight * _shares(own, classes) + (1 - weight) * _shares(partner, classes)).astype(dtype)


def _shares(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[labels] if labels.ndim == 1 else labels.astype(np.float64)
