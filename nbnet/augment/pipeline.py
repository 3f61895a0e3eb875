"""A list of transforms as numbers for each image of a batch, and the kernels that apply all of them in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nbnet.augment.base import Shape, Transform
from nbnet.augment.colour import ColorJitter, Normalize, RandomNoise, normal_quantiles, rounded
from nbnet.augment.geometry import Cutout, Moving, Places, RandomAffine, after
from nbnet.augment.mixing import Mixed, Mixing
from nbnet.errors import ArgumentError, unknown
from nbnet.kernels import philox
from nbnet.runtime.backend import Backend

STREAM = 1 << 31  # of the random words of the first transform; dropout's streams count from 0


class Pipeline:
    """Transforms for images of one shape.

    Args:
        transforms: see nbnet.augment. shape: (H, W, C).
    Raises:
        ArgumentError: a transform does not fit the images, or there are too many of a kind.
    """

    def __init__(self, transforms: Sequence[Transform], shape: Shape) -> None:
        self.transforms, self.shape = tuple(transforms), shape
        for transform in self.transforms:
            transform.check(shape)
            kind = type(transform)
            if kind.once and sum(isinstance(each, kind) for each in self.transforms) > 1:
                raise ArgumentError(f"there are two {kind.__name__} in one list, expected at most one")
        self.mixes = any(isinstance(each, Mixing) for each in self.transforms)

    def _one(self, kind: type) -> Any:
        return next((each for each in self.transforms if isinstance(each, kind)), None)

    def words(self, rows: np.ndarray, epoch: int, seed: int) -> list[np.ndarray]:
        """The random words (N, words) of each transform."""
        blocks = [-(-each.words // 4) for each in self.transforms]
        if not sum(blocks):
            return [np.empty((len(rows), 0), np.uint32)] * len(blocks)
        stream = np.repeat(np.arange(len(blocks)) + STREAM, blocks).astype(np.uint32)
        block = np.concatenate([np.arange(count) for count in blocks]).astype(np.uint64)
        fixed = [getattr(each, "alternating", False) for each in self.transforms]
        step = np.repeat(np.where(fixed, 0, epoch & 0xFFFFFFFF), blocks).astype(np.uint32)
        counter = (rows.astype(np.uint64)[:, None] << np.uint64(32)) | block
        words = philox.words_of(counter, seed, stream, step).reshape(len(rows), -1)
        ends = 4 * np.cumsum([0, *blocks])
        return [words[:, start : start + each.words] for start, each in zip(ends, self.transforms)]

    def mixed(self, rows: np.ndarray, epoch: int, seed: int, count: int, first: int = 0) -> Mixed:
        """How the images of these rows are mixed with others, rows `first` to first + count - 1."""
        height, width, _ = self.shape
        ones = np.ones(len(rows))
        found = Mixed(rows - first, ones, np.zeros((len(rows), 4), np.int64), ones)
        for transform, words in zip(self.transforms, self.words(rows, epoch, seed)):
            if isinstance(transform, Mixing):
                found = transform.mixed(words, found, height, width, count)
        return found._replace(partners=found.partners + first)

    def run(
        self, x: Any, rows: np.ndarray, epoch: int, seed: int, be: Backend, dtype: np.dtype, first: int = 0
    ) -> tuple[Any, Mixed | None]:
        """The images of these rows as they are in an epoch, where kernels of the backend read them, and how they are mixed.

        Args:
            x: (R, H, W, C), uint8, float32 or float64: the whole data set, or rows `first` to first + R - 1 of it, of which the partners
                then are. rows: (N,) int64. dtype: of the result, float32 or float64.
        """
        y = self._images(x, rows, self._numbers(rows, epoch, seed, x.dtype, dtype), be, dtype, first)
        if not self.mixes:
            return y, None
        mixed = self.mixed(rows, epoch, seed, len(x), first)
        z = self._images(x, mixed.partners, self._numbers(mixed.partners, epoch, seed, x.dtype, dtype), be, dtype, first)
        be.kernel("augment.mix")(z, be.place(mixed.share), be.place(mixed.box), y)
        return y, mixed

    def plain(self, x: np.ndarray, be: Backend, dtype: np.dtype) -> Any:
        """The images of a batch (N, H, W, C) as evaluation takes them: normalised, and nothing else."""
        normalize = self._one(Normalize)
        rows = np.arange(len(x))
        pipeline = Pipeline([normalize] if normalize else [], self.shape)
        return pipeline._images(x, rows, pipeline._numbers(rows, 0, 0, x.dtype, dtype), be, dtype)

    def _images(self, x: Any, rows: np.ndarray, numbers: tuple[Any, ...], be: Backend, dtype: np.dtype, first: int = 0) -> Any:
        y, places = be.empty((len(rows), *self.shape), dtype), rows - first if first else rows
        if be.name == "cuda" or type(x) is not np.ndarray or not x.flags.carray:  # a batch alone, and where kernels read it
            x, places = be.place(x[places]), np.arange(len(rows))
        *placed, counter, shift, divisor, top, boxes = numbers
        arrays = [be.place(each) if isinstance(each, np.ndarray) else each for each in (places, rows, *placed)]
        last = be.place(shift), be.place(divisor), top, be.place(boxes)
        be.kernel("augment.apply")(x, *arrays, counter, *last, y)
        return y

    def _numbers(self, rows: np.ndarray, epoch: int, seed: int, source: np.dtype, dtype: np.dtype) -> tuple[Any, ...]:
        """What the kernel takes from `places` to `boxes`, on the host."""
        (height, width, channels), count = self.shape, len(rows)
        one = 255.0 if source == np.uint8 else 1.0  # white
        tables: list[Places] = [(None, None)]
        affine, border = np.empty((0, 6), np.int64), 0
        colour, boxes, noise = None, [], (0, np.empty(0, dtype))
        for place, (transform, words) in enumerate(zip(self.transforms, self.words(rows, epoch, seed))):
            if isinstance(transform, Moving):
                moved = transform.places(words, epoch, height, width)
                tables[-1] = after(moved[0], tables[-1][0]), after(moved[1], tables[-1][1])
            elif isinstance(transform, RandomAffine):
                affine, border = transform.maps(words, height, width), transform.border
                tables.append((None, None))
            elif isinstance(transform, ColorJitter):
                colour = _then(colour, transform.matrices(words, channels))
            elif isinstance(transform, RandomNoise):
                noise = STREAM + place, (one * transform.deviation * normal_quantiles()).astype(dtype)
            elif isinstance(transform, Cutout):
                boxes.append(transform.boxes(words, height, width))
        places = np.empty((len(tables), count, height + width), np.int64)
        for table, (rows_of, columns_of) in zip(places, tables[::-1]):
            table[:, :height] = np.arange(height) if rows_of is None else rows_of
            table[:, height:] = np.arange(width) if columns_of is None else columns_of
        matrices = np.empty((0, channels, channels + 1), dtype)
        if colour is not None:
            colour[:, :, channels] *= one
            matrices = rounded(colour).astype(dtype)
        normalize = self._one(Normalize)
        mean, std = (normalize.mean, normalize.std) if normalize else (0.0, 1.0)
        shift, divisor = (np.full(channels, one * np.asarray(values)).astype(dtype) for values in (mean, std))
        counter = np.array([seed, noise[0], epoch & 0xFFFFFFFF], np.uint64)
        held = np.stack(boxes) if boxes else np.empty((0, count, 4), np.int64)
        return places, affine, border, matrices, noise[1], counter, shift, divisor, one, held


def _then(first: np.ndarray | None, second: np.ndarray) -> np.ndarray:
    """One colour matrix after another."""
    if first is None:
        return second
    found = second[:, :, :-1] @ first
    found[:, :, -1] += second[:, :, -1]
    return found


def get_all(transforms: Any, names: dict[str, type[Transform]], shape: Any) -> tuple[Transform, ...]:
    """The transforms of a list, in which there may be names. See nbnet.augment.get."""
    if isinstance(transforms, (str, Transform)) or not isinstance(transforms, Iterable):
        raise ArgumentError(f"augment={transforms!r}: expected a list, such as augment=['flip', 'crop'] or [nb.augment.RandomFlip()]")
    given = list(transforms)
    if given and not (isinstance(shape, tuple) and len(shape) == 3 and all(isinstance(size, int) for size in shape)):
        raise ArgumentError(f"augment is for images of one shape (height, width, channels), got inputs of shape {shape}")
    found: list[Transform] = []
    for each in given:
        if isinstance(each, type):
            raise ArgumentError(f"augment has the class {each.__name__}, expected an object: use {each.__name__}()")
        if isinstance(each, str) and each in names:
            each = names[each].default(shape)
        if not isinstance(each, Transform):
            raise ArgumentError(unknown("transform", each, names))
        found.append(each)
    return tuple(found)
