"""Image files as arrays: read with Pillow, by several threads, all at once or when they are needed."""

from __future__ import annotations

import io
import operator
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, DataError, NbnetError
from nbnet.functional import checks
from nbnet.progress import Bar
from nbnet.runtime.lazy import Lazy
from nbnet.runtime.processors import processors

Size = int | tuple[int, int] | None


class Encoded(NamedTuple):
    """An image file that is in memory, and what errors call it."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


File = Path | Encoded

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow's names; PPM reads .pgm too
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ORIENTATION = 0x0112  # the EXIF tag
# its values, and the Image.Transpose that makes them upright; ImageOps.exif_transpose also writes the other tags, which may fail
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
GREY_MODES = ("1", "L", "LA", "La")
MEMORY = 4 << 30  # bytes of decoded images
BLOCK = 256  # files whose decoding is begun at once


class Images:
    """Image files as an array (N, H, W, C) uint8, whose rows are decoded when they are asked for.

    Args:
        files: N of them, all of which have been decoded before. kept: (K, H, W, C) the first K images.
        depth: the channels that are decoded, of which the first C are used. size: see read_images.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: Sequence[File], kept: np.ndarray, depth: int, size: tuple[int, int] | None) -> None:
        self.files, self.kept, self.depth, self.size = files, kept, depth, size
        self.shape = (len(files), *kept.shape[1:])

    @property
    def of_paths(self) -> bool:
        """Whether the files are on a disk, and not in memory."""
        return all(isinstance(file, Path) for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        numbers = np.arange(len(self))[rows]
        found = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        in_memory = numbers < len(self.kept)
        found[in_memory] = self.kept[numbers[in_memory]]
        places = np.flatnonzero(~in_memory)
        files = [self.files[number] for number in numbers[places]]
        expected = self.files[0], (*self.shape[1:3], self.depth)
        for place, pixels in zip(places, _decoded(files, self.depth, self.size, expected)):
            found[place] = pixels[..., : self.shape[3]]
        return found


def take_rows(x: Any, rows: np.ndarray | slice) -> Any:
    """Rows of what read_or_keep returned, not read yet where it is Images."""
    return x[rows] if isinstance(x, np.ndarray) else Lazy(x, rows=np.arange(len(x))[rows])


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
    return read_or_keep([Path(path) for path in paths], size, channels, None, False)


def read_or_keep(files: Sequence[File], size: Size, channels: int | None, memory_limit: int | None, progress: bool | None) -> Any:
    """The images of files as an array, or, if they need more bytes than memory_limit, as Images. All are decoded once.

    Args:
        size, channels, progress: as in from_folder.
    Raises:
        as read_images.
    """
    shape = _check_size(size)
    if channels not in (None, 1, 3):
        raise ArgumentError(f"channels={channels!r}: expected 1 (grey), 3 (RGB) or None (decided by the images)")
    limit = None if memory_limit is None else checks.whole(memory_limit, "memory_limit", 0)
    if not files:
        raise DataError("no image given: expected at least one file")
    depth = channels or (1 if all(_is_grey_file(file) for file in files) else 3)
    first = _pixels(files[0], depth, shape)
    count = len(files) if limit is None else min(len(files), limit // first.size)
    try:
        x = np.empty((count, *first.shape), np.uint8)
    except MemoryError:
        raise DataError(f"{len(files):,} images like {files[0]}, {first.shape}, do not fit into memory: give a smaller size") from None
    grey = channels is None and depth == 3
    with Bar(len(files), "name bar count remaining", "images", show=progress) as bar:
        for i, pixels in enumerate(_decoded(files, depth, shape, (files[0], first.shape))):
            grey = grey and _is_grey(pixels)
            if i < count:
                x[i] = pixels
            bar.update(i + 1)
    if grey:
        x = np.ascontiguousarray(x[..., :1])
    return x if count == len(files) else Images(files, x, depth, shape)


def _decoded(
    files: Sequence[File], depth: int, size: tuple[int, int] | None, expected: tuple[File, tuple[int, ...]]
) -> Iterator[np.ndarray]:
    """The pixels of each file, in order. expected: a file, and its shape, which all have."""
    if len(files) > 1:
        with ThreadPoolExecutor(min(processors(), len(files)), "nbnet-images") as threads:
            for start in range(0, len(files), BLOCK):
                block = files[start : start + BLOCK]
                found = threads.map(lambda file: _pixels(file, depth, size), block)
                yield from (_of_size(pixels, file, *expected) for file, pixels in zip(block, found))
    else:
        yield from (_of_size(_pixels(file, depth, size), file, *expected) for file in files)


def _of_size(pixels: np.ndarray, file: File, first: File, shape: tuple[int, ...]) -> np.ndarray:
    if pixels.shape != shape:
        (h, w), (a, b) = pixels.shape[:2], shape[:2]
        raise DataError(
            f"{file} has {h}x{w} pixels but {first} has {a}x{b}: expected one size; give size=(height, width), as in size=({a}, {b})"
        )
    return pixels


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
def _opened(path: File) -> Iterator[Any]:
    """Open an image with Pillow; any error of Pillow becomes a DataError that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(path, Path) and path.exists() and not (path.is_file() or path.is_dir()):  # a pipe may never end
            raise DataError(f"{path} is not a file: expected an image; remove it")
        with Image.open(path if isinstance(path, Path) else io.BytesIO(path.data), formats=FORMATS) as image:
            yield image
    except NbnetError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that nbnet reads: expected {', '.join(FORMATS)}; replace or remove it") from error
    except Exception as error:  # whatever a decoder raises: Pillow gives no list
        raise DataError(f"cannot read the image {path}: {getattr(error, 'strerror', None) or error}; replace or remove it") from error


def _is_grey_file(path: File) -> bool:
    """Whether the file's header says that it is grey; no pixel is read."""
    with _opened(path) as image:
        return image.mode in GREY_MODES


def _pixels(path: File, channels: int, shape: tuple[int, int] | None) -> np.ndarray:
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
