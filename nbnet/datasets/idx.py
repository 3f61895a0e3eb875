"""The IDX format of MNIST and Fashion-MNIST.

Big-endian: two zero bytes, a type byte (8 = unsigned byte), the number of axes, a uint32 per axis, then the data in C order
(LeCun, Cortes and Burges 1998, "The MNIST database of handwritten digits"). Images have 3 axes, labels 1.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from nbnet.datasets.files import MAX_UNPACKED, Dataset, Split, listing, opened, read_into, some
from nbnet.errors import DataError

UNSIGNED_BYTE = 8
MAX_RATIO = 1100  # deflate compresses at most 1032 to 1: a header that announces more is wrong, and nothing is allocated
SPLITS = ("train", "t10k")


def read_folder(folder: Path, class_names: list[str]) -> Dataset:
    """The four files train/t10k-images-idx3-ubyte and -labels-idx1-ubyte of a folder, each with or without .gz."""
    expected = "a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the same for t10k, each plain or .gz"
    names = listing(folder, expected)
    paths = [(_find(folder, names, f"{split}-images", 3), _find(folder, names, f"{split}-labels", 1)) for split in SPLITS]
    train, test = (_read_split(images, labels, len(class_names)) for images, labels in paths)
    if train[0].shape[1:] != test[0].shape[1:]:
        (a, b), (c, d) = train[0].shape[1:3], test[0].shape[1:3]
        raise DataError(f"{paths[0][0]} has images of {a}x{b} but {paths[1][0]} of {c}x{d}: expected two files of the same data set")
    return train, test, class_names


def _find(folder: Path, names: list[str], stem: str, axes: int) -> Path:
    stems = [f"{stem}-idx{axes}-ubyte", f"{stem}.idx{axes}-ubyte"]  # some sites use a dot
    for name in [stems[0], stems[0] + ".gz", stems[1], stems[1] + ".gz"]:
        if name in names:
            return folder / name
    raise DataError(f"{folder} has no {stems[0]} or {stems[0]}.gz: expected it next to the files there ({some(names)})")


def _read_split(images: Path, labels: Path, classes: int) -> Split:
    x, y = read_file(images, 3), read_file(labels, 1)
    if len(x) != len(y):
        raise DataError(
            f"{images} has {len(x):,} images but {labels} has {len(y):,} labels: expected equal counts, two files of the same data set"
        )
    if y.max() >= classes:
        row = int((y >= classes).argmax())
        raise DataError(f"{labels}: label {row} is {y[row]}, expected 0 to {classes - 1}")
    return x[..., None], y.astype(np.int64)


def read_file(path: Path, axes: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes: a uint8 array with this number of axes.

    Raises:
        DataError: it is another kind of file, truncated or damaged, or has bytes after its data.
    """
    kind = {1: "labels", 3: "images"}[axes]
    with opened(path) as stream:
        header = stream.read(4 + 4 * axes)
        magic = header[:4]
        if magic != bytes((0, 0, UNSIGNED_BYTE, axes)):
            raise DataError(f"{path} starts with {_describe(magic)}, expected the magic number 00 00 08 0{axes} of IDX {kind}")
        if len(header) < 4 + 4 * axes:
            raise DataError(f"{path} is truncated: {len(header)} bytes, expected a header of {4 + 4 * axes}; download it again")
        shape = struct.unpack(f">{axes}I", header[4:])
        size = math.prod(shape)
        text = "x".join(map(str, shape))
        if size == 0:
            raise DataError(f"{path} has {text} bytes of {kind}: expected at least one")
        packed = path.suffix == ".gz"
        if size > path.stat().st_size * (MAX_RATIO if packed else 1):
            raise DataError(f"{path} is truncated: its header announces {text} bytes of {kind}, more than it can hold; download it again")
        if packed and size > MAX_UNPACKED:
            raise DataError(
                f"{path}: its header announces {text} bytes of {kind}, expected at most {MAX_UNPACKED:,} in a .gz file; "
                "unpack it yourself with gunzip"
            )
        data = np.empty(shape, np.uint8)
        found = read_into(stream, data)
        if found < size:
            raise DataError(f"{path} is truncated: its header announces {size:,} bytes of {kind}, it has {found:,}; download it again")
        if stream.read(1):
            raise DataError(
                f"{path} has more bytes than the {size:,} of {kind} that its header announces: expected no more; download it again"
            )
    return data


def _describe(magic: bytes) -> str:
    """The first bytes of a file, for a message."""
    known = {
        b"\0\0\x08\x01": ": a file of labels",
        b"\0\0\x08\x03": ": a file of images",
        b"\x1f\x8b": ": gzip, so its name must end in .gz",
    }
    return (magic.hex(" ") or "nothing") + known.get(magic, known.get(magic[:2], ""))
