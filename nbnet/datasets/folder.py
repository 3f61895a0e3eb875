"""A user's own images: one sub-folder per class, read with Pillow."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import schema
from nbnet.datasets.files import Dataset, listing, some
from nbnet.errors import ArgumentError, DataError, NbnetError, unknown
from nbnet.preprocessing import stratified_split

Size = int | tuple[int, int] | None

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow's names; PPM reads .pgm too
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ORIENTATION = 0x0112  # the EXIF tag
# its values, and the Image.Transpose that makes them upright; ImageOps.exif_transpose also writes the other tags, which may fail
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
GREY_MODES = ("1", "L", "LA", "La")
LAYOUT = "a folder with one sub-folder of images per class, or with train and test (or val) that contain them"
PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}  # in any case


def from_folder(
    path: str | os.PathLike[str],
    size: Size = None,
    channels: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    held_out: str = "test",
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
    _check_links(train_files + test_files, root.resolve())
    x = read_images(train_files + test_files, size, channels)
    return (x[: len(y)], y), (x[len(y) :], y_test), class_names


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


def _check_links(files: list[Path], root: Path) -> None:
    """Check that neither the files nor their folders are links to something outside `root`."""
    for path in [*{file.parent for file in files}, *(file for file in files if file.is_symlink())]:
        target = Path(os.path.realpath(path))
        if root not in target.parents:
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
        marks = {"images-idx3-ubyte": "mnist", "data_batch_1.bin": "cifar10"}
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


def read_images(paths: Sequence[str | os.PathLike[str]], size: Size = None, channels: int | None = None) -> np.ndarray:
    """Image files as one array, (N, H, W, C) uint8. Formats: PNG, JPEG, BMP, GIF, WebP, TIFF, PPM and PGM.

    The EXIF rotation is applied, transparency becomes white, colour becomes grey by ITU-R 601 luma if channels is 1, and the first
    frame of an animation is used.

    Args:
        size, channels: as in from_folder.
    Raises:
        DataError: there is no file, one cannot be read, has more than 8 bits per channel, or differs in size from the first.
        ArgumentError: an option is out of range.
    """
    shape = _check_size(size)
    if channels not in (None, 1, 3):
        raise ArgumentError(f"channels={channels!r}: expected 1 (grey), 3 (RGB) or None (decided by the images)")
    files = [Path(path) for path in paths]
    if not files:
        raise DataError("no image given: expected at least one file")
    depth = channels or (1 if all(_is_grey_file(file) for file in files) else 3)
    first = _pixels(files[0], depth, shape)
    try:
        x = np.empty((len(files), *first.shape), np.uint8)
    except MemoryError:
        raise DataError(f"{len(files):,} images like {files[0]}, {first.shape}, do not fit into memory: give a smaller size") from None
    for i, file in enumerate(files):
        pixels = _pixels(file, depth, shape)
        if pixels.shape != first.shape:
            (h, w), (a, b) = pixels.shape[:2], first.shape[:2]
            raise DataError(
                f"{file} has {h}x{w} pixels but {files[0]} has {a}x{b}: expected one size; give size=(height, width), as in size=({a}, {b})"
            )
        x[i] = pixels
    if channels is None and depth == 3 and all(_is_grey(image) for image in x):
        return np.ascontiguousarray(x[..., :1])
    return x


def _check_size(size: Size) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        height, width = (operator.index(n) for n in (size if isinstance(size, (tuple, list)) else (size, size)))
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise ArgumentError(f"size={size!r}: expected (height, width) in pixels, such as (32, 32), or one number for both")
    return height, width


def _is_grey(image: np.ndarray) -> bool:
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an image with Pillow; any error of Pillow becomes a DataError that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe may never end
            raise DataError(f"{path} is not a file: expected an image; remove it")
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except NbnetError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that nbnet reads: expected {', '.join(FORMATS)}; replace or remove it") from error
    except Exception as error:  # whatever a decoder raises: Pillow gives no list
        raise DataError(f"cannot read the image {path}: {getattr(error, 'strerror', None) or error}; replace or remove it") from error


def _is_grey_file(path: Path) -> bool:
    """Whether the file's header says that it is grey; no pixel is read."""
    with _opened(path) as image:
        return image.mode in GREY_MODES


def _pixels(path: Path, channels: int, shape: tuple[int, int] | None) -> np.ndarray:
    """(H, W, C) uint8 of one file."""
    from PIL import Image

    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError(
                f"{path} has more than 8 bits per channel (Pillow's mode {image.mode}): expected 8; save it as 8-bit grey or RGB"
            )
        image.load()
        turn = TURNS.get(image.getexif().get(ORIENTATION))
        picture = image if turn is None else image.transpose(turn)
        if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture.convert("RGBA"))
        picture = picture.convert("L" if channels == 1 else "RGB")
        if shape is not None:
            picture = picture.resize(shape[::-1], Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(picture.height, picture.width, channels)
