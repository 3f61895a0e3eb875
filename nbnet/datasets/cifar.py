"""The binary version of CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images").

A record is 3,073 bytes: the label, then 32x32 red, 32x32 green and 32x32 blue values, each by rows. Five files to train,
one to test, and batches.meta.txt with one class name per line.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from nbnet import schema
from nbnet.datasets.files import Dataset, Split, listing, opened, some
from nbnet.errors import DataError

SIDE, CHANNELS = 32, 3
RECORD = 1 + CHANNELS * SIDE * SIDE
BLOCK = 1000  # records converted at a time, so that little memory is needed twice
MAX_META = 1 << 16  # bytes that are read of the class names
ARCHIVE, SUBFOLDER, META = "cifar-10-binary.tar.gz", "cifar-10-batches-bin", "batches.meta.txt"
TRAIN, TEST = [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class File(NamedTuple):
    name: str
    path: Path
    parts: list[Split]  # blocks of images and labels, uint8
    class_names: list[str]


def read_folder(folder: Path) -> Dataset:
    """CIFAR-10 from a folder with the .bin files (or .bin.gz), with cifar-10-batches-bin, or with cifar-10-binary.tar.gz."""
    expected = f"a folder with data_batch_1.bin to data_batch_5.bin and test_batch.bin, or with {ARCHIVE}"
    names = listing(folder, expected)
    if not any(_candidates(folder, names, name) for name in TRAIN + TEST):
        if SUBFOLDER in names:
            return read_folder(folder / SUBFOLDER)
        if ARCHIVE in names:
            return _assemble(folder / ARCHIVE, _from_archive(folder / ARCHIVE))
        if "data_batch_1" in names or "cifar-10-batches-py" in names:
            raise DataError(f"{folder} has the Python (pickle) version of CIFAR-10: expected the binary version, {ARCHIVE}")
    return _assemble(folder, _from_files(folder, names))


def _candidates(folder: Path, names: list[str], name: str) -> list[Path]:
    return [folder / found for found in (name, name + ".gz") if found in names]


def _from_files(folder: Path, names: list[str]) -> Iterator[File]:
    """Each expected file of a folder."""
    for name in [META, *TRAIN, *TEST]:
        found = _candidates(folder, names, name)
        if found:
            with opened(found[0]) as stream:
                yield _parse(name, found[0], stream)
        elif name != META:
            raise DataError(f"{folder} has no {name}: expected it next to the files there ({some(names)})")


def _from_archive(archive: Path) -> Iterator[File]:
    """The same from the .tar.gz, in the archive's order, without unpacking it to disk."""
    with opened(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                *folders, name = member.name.split("/")
                if ".." in folders or member.name.startswith("/"):
                    raise DataError(f"{archive} has the member {member.name!r}, which leaves the archive: download it again")
                if member.isfile() and name in [META, *TRAIN, *TEST]:
                    yield _parse(name, archive / member.name, cast(BinaryIO, tar.extractfile(member)))
        while stream.read(1 << 16):  # to the end, where gzip checks its checksum
            pass


def _parse(name: str, path: Path, stream: BinaryIO) -> File:
    if name == META:
        return File(name, path, [], _read_names(path, stream.read(MAX_META)))
    return File(name, path, list(_read_records(path, stream)), [])


def _assemble(source: Path, found: Iterator[File]) -> Dataset:
    files = {file.name: file for file in found}
    class_names = files[META].class_names if META in files else list(CLASSES)
    for name in TRAIN + TEST:
        if name not in files:
            raise DataError(f"{source} has no {name}: expected {', '.join(TRAIN + TEST)}; download it again")
        _check_labels(files[name], len(class_names))
    train, test = (_join([part for name in names for part in files.pop(name).parts]) for names in (TRAIN, TEST))
    return train, test, class_names


def _check_labels(file: File, classes: int) -> None:
    first = 0
    for _, labels in file.parts:
        bad = labels >= classes
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"{file.path}: record {first + row} has label {labels[row]}, expected 0 to {classes - 1}")
        first += len(labels)


def _read_names(path: Path, text: bytes) -> list[str]:
    try:
        names = [line.strip() for line in text.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error.reason} at byte {error.start}; expected one class name per line") from None
    if not names:
        raise DataError(f"{path} is empty: expected one class name per line")
    return schema.fit(names, schema.rows(schema.text(), 1, 256), f"{path} is damaged", DataError)


def _read_records(path: Path, stream: BinaryIO) -> Iterator[Split]:
    """Blocks of (n, 32, 32, 3) images and (n,) labels, uint8."""
    size = 0
    while block := stream.read(RECORD * BLOCK):
        size += len(block)
        if len(block) % RECORD:
            break
        records = np.frombuffer(block, np.uint8).reshape(-1, RECORD)
        planes = records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE)
        yield np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].copy()
    if size == 0 or size % RECORD:
        raise DataError(f"{path} is truncated or of another kind: it has {size:,} bytes, expected records of {RECORD:,}; download it again")


def _join(parts: list[Split]) -> Split:
    """All parts in one array; each part is freed once it is copied."""
    rows = sum(len(y) for _, y in parts)
    x, y = np.empty((rows, SIDE, SIDE, CHANNELS), np.uint8), np.empty(rows, np.int64)
    parts.reverse()
    start = 0
    while parts:
        images, labels = parts.pop()
        x[start : start + len(labels)], y[start : start + len(labels)] = images, labels
        start += len(labels)
    return x, y
