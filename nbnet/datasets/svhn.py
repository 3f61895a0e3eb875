"""The cropped digits of SVHN (Netzer et al. 2011, "Reading Digits in Natural Images with Unsupervised Feature Learning").

Two files of MATLAB 5: X (32, 32, 3, N) uint8, and y (N, 1), 1 to 10, where 10 is the digit 0.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nbnet.datasets.files import MAX_UNPACKED, Dataset, Split, listing, missing, opened
from nbnet.errors import DataError, ExtraError, first_line

FILES = ("train_32x32.mat", "test_32x32.mat")
SHAPE = (32, 32, 3)
HEADER, SIGNATURE = 128, b"\0\x01IM"  # bytes, and the last of them: version 1, little-endian
MATRIX, COMPRESSED = 14, 15  # types of the elements of a file: an array, and one that is packed by zlib
CLASS, NUMBERS = 16, bytes(range(6, 16))  # where an array has its class, and those of numbers: others may nest without end
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
    found = _load(path)
    x, y = found.get("X"), found.get("y")
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.shape[:3] != SHAPE or x.ndim != 4 or x.shape[3] == 0:
        raise DataError(f"{path}: X is {_describe(x)}, expected uint8 of 32x32x3xN; download it again")
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "uif" or y.size != x.shape[3]:
        raise DataError(f"{path}: y is {_describe(y)}, expected {x.shape[3]:,} labels, as many as images; download it again")
    y = y.reshape(-1)
    bad = ~np.isin(y, np.arange(1, ZERO + 1))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{path}: label {row} is {y[row]}, expected 1 to {ZERO}, where {ZERO} is the digit 0")
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)), y.astype(np.int64) % ZERO


def _load(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ExtraError(f"svhn needs scipy, which reads files of MATLAB ({error}): pip install 'nbnet[svhn]'") from error
    with opened(path) as stream:
        unpacked = _unpack(path, stream)
    try:
        return loadmat(unpacked, variable_names=("X", "y"))
    except Exception as error:  # whatever a damaged file leads to
        raise DataError(f"{path} is damaged: {first_line(error)}; download it again") from error


def _unpack(path: Path, stream: BinaryIO) -> io.BytesIO:
    """The arrays of numbers in the file, without compression: scipy would unpack any number of bytes."""
    header = stream.read(HEADER)
    if header[-len(SIGNATURE) :] != SIGNATURE or len(header) < HEADER:
        raise DataError(f"{path} is not a file of MATLAB 5: it starts with {header[:4].hex(' ') or 'nothing'}; download it again")
    unpacked = io.BytesIO()
    unpacked.write(header)
    left = MAX_UNPACKED
    while tag := stream.read(8):
        kind, size = struct.unpack("<II", tag.ljust(8, b"\0"))
        data = stream.read(min(size, left + 1))
        if len(data) < min(size, left + 1) or len(tag) < 8:
            raise DataError(f"{path} is truncated: it ends in the middle of a variable; download it again")
        data = _inflate(path, data, left + 1) if kind == COMPRESSED else tag + data
        if len(data) > left:
            raise DataError(f"{path} holds more than {MAX_UNPACKED:,} bytes: expected at most that; download it again")
        left -= len(data)
        if len(data) <= CLASS or data[:8] != struct.pack("<II", MATRIX, len(data) - 8):
            raise DataError(f"{path} is damaged: a variable has another size than it says; download it again")
        if data[CLASS : CLASS + 1] in NUMBERS:
            unpacked.write(data)
    unpacked.seek(0)
    return unpacked


def _inflate(path: Path, data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(data, most)
    except zlib.error as error:
        raise DataError(f"{path} is damaged: {error}; download it again") from error
    if len(unpacked) < most and not stream.eof:
        raise DataError(f"{path} is damaged: a variable ends early; download it again")
    return unpacked


def _describe(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return "missing" if value is None else type(value).__name__
    return f"{value.dtype.name} of {'x'.join(map(str, value.shape))}"
