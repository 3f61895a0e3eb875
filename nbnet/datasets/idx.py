"""The IDX format of MNIST, Fashion-MNIST, KMNIST and EMNIST.

Big-endian: two zero bytes, a type byte (8 = unsigned byte), the number of axes, a uint32 per axis, then the data in C order
(LeCun, Cortes and Burges 1998, "The MNIST database of handwritten digits"). Images have 3 axes, labels 1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from nbnet.datasets.files import MAX_UNPACKED, Dataset, Split, listing, missing, opened, opened_member, opened_zip, read_into, some
from nbnet.errors import DataError

UNSIGNED_BYTE = 8
MAX_RATIO = 1100  # deflate compresses at most 1032 to 1: a header that announces more is wrong, and nothing is allocated
Read = Callable[[str, int], tuple[Path, np.ndarray]]  # of a stem of a name and a number of axes: where the file is, and what is in it


class Layout(NamedTuple):
    """The names of a data set's files, and what is special in them."""

    class_names: list[str]
    splits: tuple[str, str] = ("train", "t10k")
    first: int = 0  # the label of the first class
    by_columns: bool = False  # images are stored by columns
    archive: str = ""  # a .zip that has the files as .gz, if there is one
    subfolder: str = ""  # their folder in it


def read_folder(folder: Path, layout: Layout, url: str) -> Dataset:
    """The four files SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte, each with or without .gz, or the archive that has them.

    Args:
        url: where the files come from, for messages.
    """
    train, test = layout.splits
    archive = f", or with {layout.archive}" if layout.archive else ""
    expected = f"a folder with {train}-images-idx3-ubyte, {train}-labels-idx1-ubyte and the same for {test}, each plain or .gz{archive}"
    names = listing(folder, f"{expected}, from {url}")
    if layout.archive and not any(name.startswith(layout.splits) for name in names):
        if layout.subfolder in names:
            return read_folder(folder / layout.subfolder, layout, url)
        if layout.archive in names:
            return _from_zip(folder / layout.archive, layout)

    def read(stem: str, axes: int) -> tuple[Path, np.ndarray]:
        path = _find(folder, names, stem, axes, url + layout.archive)
        return path, read_file(path, axes)

    return _assemble(read, layout)


def _find(folder: Path, names: list[str], stem: str, axes: int, url: str) -> Path:
    stems = [f"{stem}-idx{axes}-ubyte", f"{stem}.idx{axes}-ubyte"]  # some sites use a dot
    for name in [stems[0], stems[0] + ".gz", stems[1], stems[1] + ".gz"]:
        if name in names:
            return folder / name
    raise missing(folder, f"{stems[0]} or {stems[0]}.gz", names, f"{url}{stems[0]}.gz" if url.endswith("/") else url)


def _from_zip(path: Path, layout: Layout) -> Dataset:
    with opened_zip(path) as archive:
        members = {name: member for member in archive.infolist() if (name := member.filename.rpartition("/")[2])}  # folders have none

        def read(stem: str, axes: int) -> tuple[Path, np.ndarray]:
            name = f"{stem}-idx{axes}-ubyte.gz"
            if name not in members:
                raise DataError(f"{path} has no {name}: expected it next to the files there ({some(sorted(members))}); download it again")
            with opened_member(archive, members[name], path / name) as stream:
                return path / name, _read(stream, path / name, axes, members[name].file_size)

        return _assemble(read, layout)


def _assemble(read: Read, layout: Layout) -> Dataset:
    found = [(read(f"{split}-images", 3), read(f"{split}-labels", 1)) for split in layout.splits]
    train, test = (_split(*images, *labels, layout) for images, labels in found)
    if train[0].shape[1:] != test[0].shape[1:]:
        (a, b), (c, d) = train[0].shape[1:3], test[0].shape[1:3]
        paths = [images[0] for images, _ in found]
        raise DataError(f"{paths[0]} has images of {a}x{b} but {paths[1]} of {c}x{d}: expected two files of the same data set")
    return train, test, list(layout.class_names)


def _split(images: Path, x: np.ndarray, labels: Path, y: np.ndarray, layout: Layout) -> Split:
    if len(x) != len(y):
        raise DataError(
            f"{images} has {len(x):,} images but {labels} has {len(y):,} labels: expected equal counts, two files of the same data set"
        )
    last = layout.first + len(layout.class_names) - 1
    bad = (y < layout.first) | (y > last)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{labels}: label {row} is {y[row]}, expected {layout.first} to {last}")
    x = np.ascontiguousarray(x.transpose(0, 2, 1)) if layout.by_columns else x
    return x[..., None], y.astype(np.int64) - layout.first


def read_file(path: Path, axes: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes: a uint8 array with this number of axes.

    Raises:
        DataError: it is another kind of file, truncated or damaged, or has bytes after its data.
    """
    with opened(path) as stream:
        return _read(stream, path, axes, path.stat().st_size)


def _read(stream: BinaryIO, path: Path, axes: int, file_size: int) -> np.ndarray:
    kind = {1: "labels", 3: "images"}[axes]
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
    if size > file_size * (MAX_RATIO if packed else 1):
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
        raise DataError(f"{path} has more bytes than the {size:,} of {kind} that its header announces: expected no more; download it again")
    return data


def _describe(magic: bytes) -> str:
    """The first bytes of a file, for a message."""
    known = {
        b"\0\0\x08\x01": ": a file of labels",
        b"\0\0\x08\x03": ": a file of images",
        b"\x1f\x8b": ": gzip, so its name must end in .gz",
    }
    return (magic.hex(" ") or "nothing") + known.get(magic, known.get(magic[:2], ""))
