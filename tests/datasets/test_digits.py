"""The embedded digits."""

import hashlib
from pathlib import Path

import numpy as np

from nbnet import datasets
from nbnet.datasets import digits


def test_digits():
    (x, y), (x_test, y_test), names = datasets.load("digits")
    assert x.shape == (1438, 8, 8, 1)
    assert x_test.shape == (359, 8, 8, 1)
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert (y.shape, y_test.shape) == ((1438,), (359,))
    assert names == list("0123456789")
    assert np.bincount(np.concatenate([y, y_test])).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's page
    assert np.bincount(y_test).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


def test_digits_are_the_published_images():
    with np.load(Path(digits.__file__).parent / "digits.npz", allow_pickle=False) as arrays:
        first, label = arrays["images"][0], arrays["labels"][0]
        is_test = arrays["is_test"]
    assert label == 0  # the first line of optdigits.tes
    assert first.reshape(-1)[:24].tolist() == [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0]
    (x, _), (x_test, _), _ = datasets.load("digits")
    image = x_test[0] if is_test[0] else x[0]
    assert image[0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # round(v * 255 / 16)
    assert x.max() == 255
    assert len(np.unique(x)) == 17


def test_digits_do_not_change():
    (x, y), (x_test, y_test), _ = datasets.load("digits")
    digest = hashlib.sha256(b"".join(array.tobytes() for array in (x, y.astype("<i8"), x_test, y_test.astype("<i8")))).hexdigest()
    assert digest == DIGITS_SHA256


DIGITS_SHA256 = "caab4143e6900256409822b15abad7aab7130cae21b876b2b7366c6397b03e10"


def test_digits_name_their_makers():
    text = (Path(digits.__file__).parent / "digits-attribution.txt").read_text(encoding="utf-8")
    for word in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0", "Changes:"):
        assert word in text
