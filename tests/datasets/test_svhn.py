"""SVHN: files of MATLAB 5."""

import io
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from nbnet import datasets
from nbnet.datasets import svhn
from nbnet.errors import DataError

from .samples import CIFAR_X, CIFAR_Y, MAT_HEADER, SVHN, mat, packed, variable, write

TRAIN = "train_32x32.mat"
X, Y = CIFAR_X[:10], np.where(CIFAR_Y[:10] == 0, 10, CIFAR_Y[:10])


def check(data):
    (x, y), (x_test, y_test), names = data
    assert x.dtype == x_test.dtype == np.uint8
    assert y.dtype == y_test.dtype == np.int64
    assert np.array_equal(x, CIFAR_X[:10])
    assert np.array_equal(x_test, CIFAR_X[10:])
    assert (y.tolist(), y_test.tolist()) == (CIFAR_Y[:10].tolist(), CIFAR_Y[10:].tolist())
    assert x.flags.c_contiguous
    assert names == list("0123456789")


def test_svhn_from_a_folder(tmp_path):
    check(datasets.load("svhn", write(tmp_path, SVHN)))


def test_svhn_without_compression_and_with_labels_of_other_types(tmp_path):
    check(datasets.load("svhn", write(tmp_path, SVHN | {TRAIN: mat(X, Y.astype(np.uint8), pack=lambda element: element)})))
    doubles = MAT_HEADER + packed(variable("y", Y.astype(float)[:, None], 6, 9)) + packed(variable("X", X.transpose(1, 2, 3, 0)))
    check(datasets.load("svhn", write(tmp_path, SVHN | {TRAIN: doubles})))


@pytest.mark.parametrize("compressed", [True, False])
def test_what_scipy_writes(tmp_path, compressed):
    scipy_io = pytest.importorskip("scipy.io")
    buffer = io.BytesIO()
    extra = {"note": "hello", "cells": np.array([1, "a"], object)}
    scipy_io.savemat(buffer, {"X": X.transpose(1, 2, 3, 0), "y": Y[:, None], **extra}, do_compression=compressed)
    check(datasets.load("svhn", write(tmp_path, SVHN | {TRAIN: buffer.getvalue()})))


GOOD = SVHN[TRAIN]
IMAGES, LABELS = packed(variable("X", X.transpose(1, 2, 3, 0))), packed(variable("y", Y.astype(np.uint8)[:, None]))
LONG = variable("X", X.transpose(1, 2, 3, 0))


def changed(element, at, value):
    return element[:at] + struct.pack("<I", value) + element[at + 4 :]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a file of MATLAB 5: it starts with nothing; download it again"),
        (b"\x89HDF\r\n" + bytes(200), "is not a file of MATLAB 5: it starts with 89 48 44 46; download it again"),
        (GOOD[:100], "is not a file of MATLAB 5"),
        (GOOD[124:128], "is not a file of MATLAB 5"),
        (GOOD[:-1], "is truncated: it ends in the middle of a variable; download it again"),
        (GOOD[:131], "is truncated: it ends in the middle of a variable"),
        (GOOD[:128], "X is missing, expected uint8 of 32x32x3xN"),
        (MAT_HEADER + IMAGES, "y is missing, expected 10 labels, as many as images"),
        (MAT_HEADER + LABELS, "X is missing"),
        (MAT_HEADER + IMAGES + packed(variable("y", Y.astype(np.uint8)[1:, None])), "y is uint8 of 9x1, expected 10 labels"),
        (
            MAT_HEADER + packed(variable("X", X.transpose(1, 2, 3, 0)[:31])) + LABELS,
            "X is uint8 of 31x32x3x10, expected uint8 of 32x32x3xN",
        ),
        (MAT_HEADER + packed(variable("X", X[0])) + LABELS, "X is uint8 of 32x32x3, expected"),
        (MAT_HEADER + packed(variable("X", X[:0].transpose(1, 2, 3, 0))) + LABELS, "X is uint8 of 32x32x3x0, expected"),
        (MAT_HEADER + packed(variable("X", X.transpose(1, 2, 3, 0).astype(float), 6, 9)) + LABELS, "X is float64 of 32x32x3x10, expected"),
        (mat(X, np.array([1, 2, 0, 4, 5, 6, 7, 8, 9, 10], np.uint8)), "label 2 is 0, expected 1 to 10, where 10 is the digit 0"),
        (mat(X, np.array([1, 2, 3, 4, 11, 6, 7, 8, 9, 10], np.uint8)), "label 4 is 11, expected 1 to 10"),
        (MAT_HEADER + IMAGES + packed(variable("y", np.full((10, 1), 1.5), 6, 9)), "label 0 is 1.5, expected 1 to 10"),
        (MAT_HEADER + IMAGES + packed(variable("y", np.full((10, 1), np.nan), 6, 9)), "label 0 is nan, expected 1 to 10"),
        (GOOD[:200] + bytes([GOOD[200] ^ 255]) + GOOD[201:], "is damaged: "),
        (MAT_HEADER + changed(LONG, 4, 100) + LABELS, "is truncated|is damaged"),
        (MAT_HEADER + packed(changed(LONG, 4, 1 << 30)), "is damaged: a variable has another size than it says; download it again"),
        (MAT_HEADER + packed(changed(LONG, 36, 1 << 30)) + LABELS, "is damaged: .*; download it again"),
        (MAT_HEADER + packed(changed(LONG, 68, 1 << 31)) + LABELS, "is damaged: .*; download it again"),
        (MAT_HEADER + packed(b"short"), "is damaged: a variable has another size"),
        (MAT_HEADER + struct.pack("<II", 15, len(IMAGES) - 18) + IMAGES[8:-10], "is damaged: a variable ends early; download it again"),
    ],
)
def test_bad_svhn_files(tmp_path, data, words):
    with pytest.raises(DataError, match=words) as error:
        datasets.load("svhn", write(tmp_path, SVHN | {TRAIN: data}))
    assert str(tmp_path / TRAIN) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path):
    url = "http://ufldl.stanford.edu/housenumbers/test_32x32.mat"
    with pytest.raises(DataError, match=rf"has no test_32x32.mat: expected it next to the files there \({TRAIN}\); it comes from {url}$"):
        datasets.load("svhn", write(tmp_path, {TRAIN: GOOD}))


def test_a_file_that_is_a_bomb(tmp_path, monkeypatch):
    """At most that many bytes are unpacked of all variables together, also of those that are not used."""
    monkeypatch.setattr(svhn, "MAX_UNPACKED", 100_000)
    bomb = packed(variable("z", np.zeros((60_000, 1), np.uint8)))
    for data in (MAT_HEADER + packed(variable("z", np.zeros((1 << 24, 1), np.uint8))), MAT_HEADER + bomb + bomb):
        with pytest.raises(DataError, match=r"train_32x32.mat holds more than 100,000 bytes: expected at most that"):
            datasets.load("svhn", write(tmp_path, SVHN | {TRAIN: data}))


def test_nested_cells_are_left_out(tmp_path):
    """Cells in cells in cells, where a reader that calls itself for each would end the process."""
    element = variable("X", np.zeros((1, 1), np.uint8))
    for _ in range(100):
        head = variable("X", np.zeros((1, 1), np.uint8), kind=1)[8:-16]
        element = struct.pack("<II", 14, len(head) + len(element)) + head + element
    with pytest.raises(DataError, match=r"is damaged: a variable of 1x1 has [\d,]+ bytes of type 14; download it again"):
        datasets.load("svhn", write(tmp_path, SVHN | {TRAIN: MAT_HEADER + packed(element)}))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([], "a variable of no size has 0 bytes of type 2"),
        ([1] * 99, "a variable of 1x1x1x1x1x1x1x1 has 1 bytes of type 2"),
        ([0] + [2**31 - 1] * 5, "a variable of 0x2147483647x.* has 0 bytes|X is uint8 of 0x2147483647x"),
        ([-1, -1], "a variable of -1x-1 has 1 bytes of type 2"),
        ([3], "a variable of 3 has 1 bytes of type 2"),
    ],
)
def test_impossible_shapes(tmp_path, shape, words):
    array = SimpleNamespace(ndim=len(shape), shape=shape, tobytes=lambda order: b"" if 0 in shape or not shape else b"1")
    with pytest.raises(DataError, match=f"is damaged: {words}|{words}"):
        datasets.load("svhn", write(tmp_path, SVHN | {TRAIN: MAT_HEADER + packed(variable("X", array)) + LABELS}))


def test_small_elements(tmp_path):
    """Up to four bytes may stand in place of an element's size, as MATLAB writes names and short arrays."""
    x = CIFAR_X[:4]
    names = [struct.pack("<HH", 1, 1) + name + bytes(3) for name in (b"X", b"y")]
    images = variable("X", x.transpose(1, 2, 3, 0))
    images = images[:48] + names[0] + images[64:]
    labels = variable("y", Y[:4].astype(np.uint8)[:, None])
    labels = labels[:40] + names[1] + struct.pack("<HH", 2, 4) + labels[64:68]
    files = {TRAIN: MAT_HEADER + b"".join(packed(each[:4] + struct.pack("<I", len(each) - 8) + each[8:]) for each in (images, labels))}
    (found, y), _, _ = datasets.load("svhn", write(tmp_path, SVHN | files))
    assert np.array_equal(found, x)
    assert y.tolist() == CIFAR_Y[:4].tolist()
