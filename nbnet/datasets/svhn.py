"""The cropped digits of SVHN (Netzer et al. 2011, "Reading Digits in Natural Images with Unsupervised Feature Learning").

Two files of MATLAB 5: X (32, 32, 3, N) uint8, and y (N, 1), 1 to 10, where 10 is the digit 0. The format ("MAT-File Format", The
MathWorks): a header, then elements, which are a type and a size, uint32 each, and the data. An array is an element of elements: flags,
sizes of axes, name, numbers in Fortran order; each is filled up to a multiple of 8 bytes. scipy.io.loadmat is not used because some
damaged files end the process there.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nbnet.datasets.files import MAX_UNPACKED, Dataset, Split, listing, missing, opened
from nbnet.errors import DataError

FILES = ("train_32x32.mat", "test_32x32.mat")
SHAPE = (32, 32, 3)
HEADER, SIGNATURE = 128, b"\0\x01IM"  # bytes, and the last of them: version 1, little-endian
MATRIX, PACKED = 14, 15  # types of elements: an array, and one that is packed by zlib
NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}  # types of numbers
ZERO = 10  # the label of the digit 0


def read_folder(folder: Path, url: str) -> Dataset:
    """SVHN from a folder with train_32x32.mat and test_32x32.mat.

    Args:
        url: where the files come from, for messages.
    """
    names = listing(folder, f"a folder with {' and '.join(FILES)}, from {url}")
    for name in FILES:
        if name not in names:
            raise missing(folder, name, names, url + name)
    train, test = (_read(folder / name) for name in FILES)
    return train, test, [str(digit) for digit in range(10)]


def _read(path: Path) -> Split:
    with opened(path) as stream:
        found = dict(_arrays(path, stream))
    x, y = found.get("X"), found.get("y")
    if x is None or x.dtype != np.uint8 or x.shape[:3] != SHAPE or x.ndim != 4 or x.shape[3] == 0:
        raise DataError(f"{path}: X is {_describe(x)}, expected uint8 of 32x32x3xN; download it again")
    if y is None or y.size != x.shape[3]:
        raise DataError(f"{path}: y is {_describe(y)}, expected {x.shape[3]:,} labels, as many as images; download it again")
    y = y.reshape(-1)
    bad = ~np.isin(y, np.arange(1, ZERO + 1))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{path}: label {row} is {y[row]}, expected 1 to {ZERO}, where {ZERO} is the digit 0")
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)), y.astype(np.int64) % ZERO


def _arrays(path: Path, stream: BinaryIO) -> Iterator[tuple[str, np.ndarray]]:
    """The names and values of the arrays X and y; others are left out."""
    header = stream.read(HEADER)
    if header[-len(SIGNATURE) :] != SIGNATURE or len(header) < HEADER:
        raise DataError(f"{path} is not a file of MATLAB 5: it starts with {header[:4].hex(' ') or 'nothing'}; download it again")
    left = MAX_UNPACKED
    while tag := stream.read(8):
        kind, size = struct.unpack("<II", tag.ljust(8, b"\0"))
        data = stream.read(min(size, left + 1))
        if len(data) < min(size, left + 1) or len(tag) < 8:
            raise DataError(f"{path} is truncated: it ends in the middle of a variable; download it again")
        data = _unpack(path, data, left + 1) if kind == PACKED else tag + data
        if len(data) > left:
            raise DataError(f"{path} holds more than {MAX_UNPACKED:,} bytes: expected at most that; download it again")
        left -= len(data)
        if data[:8] != struct.pack("<II", MATRIX, max(0, len(data) - 8)):
            raise DataError(f"{path} is damaged: a variable has another size than it says; download it again")
        parts = _elements(path, memoryview(data)[8:])
        (_, _), (_, sizes), (_, name) = (next(parts, (0, memoryview(b""))) for _ in range(3))
        if bytes(name) in (b"X", b"y"):
            yield bytes(name).decode(), _array(path, sizes, *next(parts, (0, memoryview(b""))))


def _unpack(path: Path, data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(data, most)
    except zlib.error as error:
        raise DataError(f"{path} is damaged: {error}; download it again") from error
    if len(unpacked) < most and not stream.eof:
        raise DataError(f"{path} is damaged: a variable ends early; download it again")
    return unpacked


def _elements(path: Path, data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The type and the data of each element of an array."""
    while len(data) >= 8:
        kind, size = struct.unpack_from("<II", data)
        start = 8
        if kind >> 16:  # up to 4 bytes of data, in place of the size
            kind, size, start = kind & 0xFFFF, kind >> 16, 4
        end = start + size
        if end > (8 if start == 4 else len(data)):
            raise DataError(f"{path} is damaged: an element of a variable is longer than the variable; download it again")
        yield kind, data[start:end]
        data = data[end + -end % 8 :]


def _array(path: Path, sizes: memoryview, kind: int, numbers: memoryview) -> np.ndarray:
    shape = np.frombuffer(sizes[: len(sizes) // 4 * 4], "<i4").tolist()
    try:
        if kind in NUMBERS and min(shape) >= 0 and len(numbers) == math.prod(shape) * np.dtype(NUMBERS[kind]).itemsize:
            return np.frombuffer(numbers, NUMBERS[kind]).reshape(shape, order="F")
    except ValueError:  # it has no axes, or more than an array may have
        pass
    text = "x".join(map(str, shape[:8])) or "no size"
    raise DataError(f"{path} is damaged: a variable of {text} has {len(numbers):,} bytes of type {kind}; download it again")


def _describe(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype.name} of {'x'.join(map(str, array.shape))}"
