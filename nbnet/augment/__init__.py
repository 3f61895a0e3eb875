"""Augmentation: images that differ in each epoch, from bytes to normalised floats in one pass.

    transforms = [nb.augment.RandomFlip(), nb.augment.RandomCrop(4), nb.augment.Normalize(0.5, 0.25)]
    trainer = nb.Trainer(model, optimizer=nb.Adam(1e-3), augment=transforms)

Order: transforms that move pixels (RandomFlip, RandomCrop, RandomTranslate, RandomAffine) are applied in the order of the list. The
others come after them, wherever they are in the list: ColorJitter, RandomNoise, Normalize, Cutout, and last MixUp and CutMix.

Every random choice is a function of (seed, epoch, row in the data set, place in the list): see nbnet.kernels.philox. It depends neither on
the backend nor on threads, batch size or rank, and nothing is stored: a run that is stopped anywhere and resumed sees the same images.
From bytes, the images have the same bits on every backend; from floats, those of "cuda" may differ in the last digits.

Evaluation applies Normalize and nothing else. `model.predict` knows nothing of it: give it `nb.augment.apply(transforms, x, train=False)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet.augment.base import Transform
from nbnet.augment.colour import ColorJitter, Normalize, RandomNoise
from nbnet.augment.geometry import Cutout, RandomAffine, RandomCrop, RandomFlip, RandomTranslate
from nbnet.augment.mixing import CutMix, MixUp, targets
from nbnet.augment.pipeline import Pipeline, get_all
from nbnet.errors import ArgumentError, DTypeError, ShapeError
from nbnet.functional import checks
from nbnet.runtime.arrays import X_DTYPES, float_dtype
from nbnet.runtime.backend import Backend, get_backend
from nbnet.runtime.lazy import Lazy

NAMES: dict[str, type[Transform]] = {
    "flip": RandomFlip,
    "crop": RandomCrop,
    "translate": RandomTranslate,
    "affine": RandomAffine,
    "color": ColorJitter,
    "noise": RandomNoise,
    "cutout": Cutout,
    "mixup": MixUp,
    "cutmix": CutMix,
}
MOST = 1 << 32  # rows of a data set, which random words distinguish

__all__ = [
    "NAMES",
    "ColorJitter",
    "CutMix",
    "Cutout",
    "MixUp",
    "Normalize",
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "RandomNoise",
    "RandomTranslate",
    "Transform",
    "apply",
    "get",
    "mixed_targets",
]


def get(transforms: Any, shape: Any) -> tuple[Transform, ...]:
    """The transforms of a list for images of a shape.

    Args:
        transforms: a list of transforms, and of names in NAMES, which stand for transforms with options that fit the images.
        shape: (H, W, C).
    Raises:
        ArgumentError: one is unknown, does not fit the images, or there are too many of a kind.
    """
    found = get_all(transforms, NAMES, shape)
    Pipeline(found, shape)
    return found


def apply(
    transforms: Any,
    x: Any,
    rows: Any = None,
    *,
    epoch: int = 0,
    seed: int = 0,
    train: bool = True,
    backend: str | Backend = "parallel",
    dtype: Any = "float32",
) -> np.ndarray:
    """Images as the Trainer sees them in an epoch.

    Args:
        transforms: as `get` takes them. x: the data set (R, H, W, C), uint8 (divided by 255), float32 or float64.
        rows: (N,) which of them; None for all, in order. epoch: 0, 1, ... seed: that of the Trainer.
        train: False for evaluation, which is normalised only. dtype: of the result.
    Returns:
        (N, H, W, C) on the host.
    Raises:
        ArgumentError, ShapeError, DTypeError, BackendError: an argument does not fit.
    """
    be, dtype = get_backend(backend), float_dtype(dtype)
    x = x if isinstance(x, Lazy) else checks.as_array(x, "x")
    if x.ndim != 4 or 0 in x.shape:
        raise ShapeError(f"x has shape {x.shape}, expected images (rows, height, width, channels), at least one")
    if x.dtype not in X_DTYPES:
        raise DTypeError(f"x has dtype {x.dtype}, expected uint8, float32 or float64{checks.dtype_hint(x, 'x')}")
    pipeline = Pipeline(get(transforms, x.shape[1:]), x.shape[1:])
    rows, epoch, seed = _numbers(rows, len(x), epoch, seed)
    y = pipeline.run(x, rows, epoch, seed, be, dtype)[0] if train else pipeline.plain(x[rows], be, dtype)
    return np.array(be.host(y)[0])


def mixed_targets(transforms: Any, y: Any, classes: int, shape: Any, rows: Any = None, *, epoch: int = 0, seed: int = 0) -> np.ndarray:
    """The targets of what `apply` returns: probabilities, since MixUp and CutMix mix two classes.

    Args:
        transforms, rows, epoch, seed: as in `apply`. y: (R,) labels of the whole data set. classes: how many. shape: (H, W, C).
    Returns:
        (N, classes) float64, whose rows sum to 1.
    Raises:
        ArgumentError, ShapeError, DTypeError, DataError: an argument does not fit.
    """
    from nbnet.preprocessing import check_labels

    labels = check_labels(y, checks.whole(classes, "classes"))
    pipeline = Pipeline(get(transforms, shape), shape)
    rows, epoch, seed = _numbers(rows, len(labels), epoch, seed)
    mixed = pipeline.mixed(rows, epoch, seed, len(labels))
    return targets(mixed, labels[rows], labels[mixed.partners], classes, np.dtype(np.float64))


def _numbers(rows: Any, count: int, epoch: int, seed: int) -> tuple[np.ndarray, int, int]:
    """The checked rows, epoch and seed of a call."""
    if count > MOST:
        raise ArgumentError(f"got {count:,} rows, expected at most {MOST:,} in an augmented data set")
    rows = np.arange(count) if rows is None else checks.as_array(rows, "rows")
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ArgumentError(f"rows are {rows.dtype} of shape {rows.shape}, expected whole numbers (N,)")
    if rows.size and not 0 <= rows.min() <= rows.max() < count:
        raise ArgumentError(f"rows are from {rows.min()} to {rows.max()}, expected 0 to {count - 1}, since x has {count} rows")
    return rows.astype(np.int64), checks.whole(epoch, "epoch", 0), checks.whole(seed, "seed", 0, (1 << 64) - 1)
