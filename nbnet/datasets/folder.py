"""A user's own images: one sub-folder per class, read with Pillow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nbnet import schema
from nbnet.datasets.files import Dataset, listing, some
from nbnet.datasets.images import MEMORY, SUFFIXES, Size, read_or_keep, take_rows
from nbnet.errors import ArgumentError, DataError, unknown
from nbnet.preprocessing import stratified_split

LAYOUT = "a folder with one sub-folder of images per class, or with train and test (or val) that contain them"
PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}  # in any case


def from_folder(
    path: str | os.PathLike[str],
    size: Size = None,
    channels: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    held_out: str = "test",
    *,
    memory_limit: int = MEMORY,
    progress: bool | None = None,
) -> Dataset:
    """Your own images: path/CLASS/IMAGE, or path/train/CLASS/IMAGE and path/test/CLASS/IMAGE.

    Classes are the sorted names of the sub-folders. Files without an image suffix are skipped, and so are names that start with
    a dot or two underscores. Links must stay in the folder. The split depends only on the names and the seed, not on the file system.

    The folders may be written Train or TEST, and the second may be val, valid or validation. Where all three are there, train with
    `held_out="validation"`, and read the test when training is done:

        (x, y), validation, names = from_folder("pictures", held_out="validation")
        _, test, _ = from_folder("pictures")

    Args:
        size: (height, width), or one number for both: images are resized bilinearly. None: all must have the same size.
        channels: 1 for grey, 3 for RGB; None: 1 if every pixel of every image is grey, else 3.
        test_fraction: the share of each class used for the test, if the folder has no train and test.
        seed: of that split.
        held_out: "test" or "validation": which of the two the second pair is, if the folder has both; else it is the one there is.
        memory_limit: bytes. All images are decoded once, by several threads. If they need more than this, the first ones are kept, and
            x is no array of NumPy but one that reads the others when it is indexed: fit, evaluate and predict take it.
        progress: whether to draw a progress bar; None draws one on a terminal.
    Returns:
        (x, y), (x_test, y_test), class_names: x (N, H, W, C) uint8, y (N,) int64, class_names a list of str.
    Raises:
        DataError: a folder is missing or empty, an image cannot be read, sizes differ, train and test have different classes,
            a link leaves the folder, or fewer than two classes or no test image remain. ArgumentError: an option is out of range.
    """
    root = Path(path)
    if held_out not in ("test", "validation"):
        raise ArgumentError(unknown("part", held_out, ("test", "validation")))
    parts = split_folders(root)
    if parts:
        train_files, y, class_names = _collect(parts["train"])
        test_root = parts.get(held_out) or next(folder for part, folder in parts.items() if part != "train")
        test_files, y_test, test_names = _collect(test_root, 1)
        strange = sorted(set(test_names) - set(class_names))
        if strange:
            raise DataError(
                f"{test_root} has the class {strange[0]!r}, which {parts['train']} does not have: expected {', '.join(class_names)}"
            )
        y_test = np.array([class_names.index(name) for name in test_names], np.int64)[y_test]
    else:
        files, labels, class_names = _collect(root)
        train, test = stratified_split(labels, test_fraction, seed)
        if len(test) == 0:
            raise DataError(f"{root} has one image per class, so none is left for the test: expected at least two in some class")
        train_files, y, test_files, y_test = [files[i] for i in train], labels[train], [files[i] for i in test], labels[test]
    check_links(train_files + test_files, root.resolve())
    x = read_or_keep(train_files + test_files, size, channels, memory_limit, progress)
    return (take_rows(x, slice(len(y))), y), (take_rows(x, slice(len(y), None)), y_test), class_names


def split_folders(path: str | os.PathLike[str]) -> dict[str, Path]:
    """The folders of a data set that is split already: "train" and "test" or "validation", or all three; empty if it is not.

    Raises:
        DataError: the folder cannot be read, or has two for one part.
    """
    root = Path(path)
    parts: dict[str, Path] = {}
    for name in _folders(root, listing(root, LAYOUT)):
        part = PARTS.get(name.lower())
        if part is not None and _has_folders(root / name):
            if part in parts:
                raise DataError(f"{root} has {parts[part].name} and {name}: expected one folder for the {part} images; rename the other")
            parts[part] = root / name
    return parts if "train" in parts and len(parts) > 1 else {}


def check_links(files: list[Path], root: Path) -> None:
    """Check that neither the files nor their folders are links to something outside `root`."""
    for path in [*{file.parent for file in files}, *(file for file in files if file.is_symlink())]:
        target = Path(os.path.realpath(path))
        if root not in (target, *target.parents):
            raise DataError(f"{path} leads to {target}, which is not in {root}: expected images in the folder; copy them there")


def _folders(root: Path, names: list[str]) -> list[str]:
    return [name for name in names if (root / name).is_dir()]


def _has_folders(root: Path) -> bool:
    return any(path.is_dir() for path in root.iterdir() if not path.name.startswith((".", "__")))


def _collect(root: Path, least: int = 2) -> tuple[list[Path], np.ndarray, list[str]]:
    """Files, labels and class names."""
    names = listing(root, LAYOUT)
    class_names = schema.fit(_folders(root, names), schema.rows(schema.text()), f"{root}: a folder cannot be a class", DataError)
    if len(class_names) < least:
        marks = {
            "emnist-": "emnist",
            "images-idx3-ubyte": "mnist",
            "data_batch_1.bin": "cifar10",
            "train.bin": "cifar100",
            "_32x32.mat": "svhn",
        }
        known = [kind for mark, kind in marks.items() if any(mark in name for name in names)]
        hint = f"; these look like the files of {known[0]}: use load({known[0]!r}, data_dir=...)" if known else ""
        held = f"only the sub-folder {class_names[0]}" if class_names else f"no sub-folder, only {some(names)}"
        raise DataError(f"{root} has {held}: expected a sub-folder of images for each class, at least {least}{hint}")
    files: list[Path] = []
    counts = []
    for name in class_names:
        held_names = listing(root / name, "images")
        images = [root / name / file for file in held_names if file.lower().endswith(SUFFIXES)]
        if not images:
            hint = ""
            if _folders(root / name, held_names):
                hint = f"; images in folders of a class are not read: move them up, or give {root / name} if its folders are the classes"
            raise DataError(f"{root / name} has no image ({', '.join(SUFFIXES)}), only {some(held_names)}{hint}")
        files += images
        counts.append(len(images))
    return files, np.repeat(np.arange(len(counts), dtype=np.int64), counts), class_names
