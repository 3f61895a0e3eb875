"""The binary versions of CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images").

A record is the labels, one byte each, then 32x32 red, 32x32 green and 32x32 blue values, each by rows. CIFAR-10 has one label, five files
to train and one to test; CIFAR-100 has two, of which the second, the fine one, is used, and one file for each. Another file has one class
name per line.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from nbnet import schema
from nbnet.datasets.files import Dataset, Split, listing, missing, opened
from nbnet.errors import DataError

SIDE, CHANNELS = 32, 3
PIXELS = CHANNELS * SIDE * SIDE
BLOCK = 1000  # records converted at a time, so that little memory is needed twice
MAX_META = 1 << 16  # bytes that are read of the class names

# the fine classes of CIFAR-100
FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar
cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose
sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class Layout(NamedTuple):
    """The names of a data set's files, and what is in a record."""

    title: str
    archive: str
    subfolder: str
    meta: str  # the file of the class names
    train: list[str]
    test: list[str]
    labels: int  # bytes of a record, of which the last is used
    python: tuple[str, str]  # what the Python version has
    class_names: list[str]

    @property
    def files(self) -> list[str]:
        return self.train + self.test


CIFAR10 = Layout(
    title="CIFAR-10",
    archive="cifar-10-binary.tar.gz",
    subfolder="cifar-10-batches-bin",
    meta="batches.meta.txt",
    train=[f"data_batch_{i}.bin" for i in range(1, 6)],
    test=["test_batch.bin"],
    labels=1,
    python=("data_batch_1", "cifar-10-batches-py"),
    class_names=["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
)
CIFAR100 = Layout(
    title="CIFAR-100",
    archive="cifar-100-binary.tar.gz",
    subfolder="cifar-100-binary",
    meta="fine_label_names.txt",
    train=["train.bin"],
    test=["test.bin"],
    labels=2,
    python=("meta", "cifar-100-python"),
    class_names=FINE.split(),
)


class File(NamedTuple):
    name: str
    path: Path
    parts: list[Split]  # blocks of images and labels, uint8
    class_names: list[str]


def read_folder(folder: Path, layout: Layout, url: str) -> Dataset:
    """A data set from a folder with its .bin files (or .bin.gz), with the folder of its archive, or with the archive.

    Args:
        url: where the archive comes from, for messages.
    """
    names = listing(folder, f"a folder with {', '.join(layout.files)}, or with {layout.archive}, from {url}")
    if not any(_candidates(folder, names, name) for name in layout.files):
        if layout.subfolder in names:
            return read_folder(folder / layout.subfolder, layout, url)
        if layout.archive in names:
            return _assemble(folder / layout.archive, layout, _from_archive(folder / layout.archive, layout))
        if any(name in names for name in layout.python):
            raise DataError(
                f"{folder} has the Python (pickle) version of {layout.title}: expected the binary version, {layout.archive}; "
                f"it comes from {url}{layout.archive}"
            )
    return _assemble(folder, layout, _from_files(folder, names, layout, url))


def _candidates(folder: Path, names: list[str], name: str) -> list[Path]:
    return [folder / found for found in (name, name + ".gz") if found in names]


def _from_files(folder: Path, names: list[str], layout: Layout, url: str) -> Iterator[File]:
    """Each expected file of a folder."""
    for name in [layout.meta, *layout.files]:
        found = _candidates(folder, names, name)
        if found:
            with opened(found[0]) as stream:
                yield _parse(name, found[0], stream, layout)
        elif name != layout.meta:
            raise missing(folder, name, names, url + layout.archive)


def _from_archive(archive: Path, layout: Layout) -> Iterator[File]:
    """The same from the .tar.gz, in the archive's order, without unpacking it to disk."""
    with opened(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                *folders, name = member.name.split("/")
                if ".." in folders or member.name.startswith("/"):
                    raise DataError(f"{archive} has the member {member.name!r}, which leaves the archive: download it again")
                if member.isfile() and name in [layout.meta, *layout.files]:
                    yield _parse(name, archive / member.name, cast(BinaryIO, tar.extractfile(member)), layout)
        while stream.read(1 << 16):  # to the end, where gzip checks its checksum
            pass


def _parse(name: str, path: Path, stream: BinaryIO, layout: Layout) -> File:
    if name == layout.meta:
        return File(name, path, [], _read_names(path, stream.read(MAX_META)))
    return File(name, path, list(_read_records(path, stream, layout.labels)), [])


def _assemble(source: Path, layout: Layout, found: Iterator[File]) -> Dataset:
    files = {file.name: file for file in found}
    class_names = files[layout.meta].class_names if layout.meta in files else list(layout.class_names)
    for name in layout.files:
        if name not in files:
            raise DataError(f"{source} has no {name}: expected {', '.join(layout.files)}; download it again")
        _check_labels(files[name], len(class_names))
    train, test = (_join([part for name in names for part in files.pop(name).parts]) for names in (layout.train, layout.test))
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


def _read_records(path: Path, stream: BinaryIO, labels: int) -> Iterator[Split]:
    """Blocks of (n, 32, 32, 3) images and (n,) labels, uint8."""
    record, size = labels + PIXELS, 0
    while block := stream.read(record * BLOCK):
        size += len(block)
        if len(block) % record:
            break
        records = np.frombuffer(block, np.uint8).reshape(-1, record)
        planes = records[:, labels:].reshape(-1, CHANNELS, SIDE, SIDE)
        yield np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, labels - 1].copy()
    if size == 0 or size % record:
        raise DataError(f"{path} is truncated or of another kind: it has {size:,} bytes, expected records of {record:,}; download it again")


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
