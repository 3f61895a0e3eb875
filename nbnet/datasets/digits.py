"""The handwritten digits that come with nbnet (digits-attribution.txt next to this file has their source and licence)."""

from __future__ import annotations

from importlib import resources

import numpy as np

from nbnet.datasets.files import Dataset

LEVELS = 16  # pixel values in the file go from 0 to 16


def read() -> Dataset:
    """1,438 and 359 images (8, 8, 1): the file's 0 to 16 become uint8, round(v * 255 / 16); its split is fixed."""
    with resources.files("nbnet.datasets").joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels, is_test = arrays["images"], arrays["labels"], arrays["is_test"]
    scale = np.array([round(value * 255 / LEVELS) for value in range(LEVELS + 1)], np.uint8)
    x, y = scale[images][..., None], labels.astype(np.int64)
    return (x[~is_test], y[~is_test]), (x[is_test], y[is_test]), [str(digit) for digit in range(10)]
