"""A list of transforms: the same pictures on every backend, whatever the batch; and bad input."""

import copy
import pickle
import re

import numba
import numpy as np
import pytest
from cuda_machine import GPU, SIMULATED
from tolerances import assert_close

import nbnet as nb
from nbnet.augment.pipeline import Pipeline
from nbnet.errors import ArgumentError, BackendError, DataError, DTypeError, ShapeError

A = nb.augment
BACKENDS = ["cuda"] if SIMULATED else ["serial", "parallel", *(["cuda"] if GPU else [])]
LISTS = {
    "usual": [A.RandomFlip(alternating=True), A.RandomCrop(2), A.Normalize((0.4, 0.5, 0.6), 0.2)],
    "everything": [
        A.RandomCrop((2, 1), "edge"),
        A.RandomAffine(30, (0.7, 1.4), 10, "reflect"),
        A.RandomFlip(vertical=True),
        A.RandomTranslate(0.3),
        A.ColorJitter(0.4, 0.3, 0.2, 0.1),
        A.ColorJitter(0.1),
        A.RandomNoise(0.1),
        A.Cutout(3),
        A.Cutout((2, 4)),
        A.Normalize(0.5, 0.25),
        A.MixUp(),
        A.CutMix(probability=0.5),
    ],
}
lists = pytest.mark.parametrize("transforms", LISTS.values(), ids=LISTS)


@pytest.fixture
def x(rng):
    return rng.integers(0, 256, (5, 6, 5, 3) if SIMULATED else (40, 17, 16, 3), dtype=np.uint8)


@lists
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_on_every_backend(x, transforms, backend, dtype):
    """Of float32. A mixture in float64 is rounded once more on CPUs than on cuda."""
    options = {"epoch": 3, "seed": 1 << 50, "dtype": dtype}
    expected, found = (A.apply(transforms, x, backend=name, **options) for name in ("numpy", backend))
    assert_close(found, expected, "exact" if dtype == "float32" or backend != "cuda" else "elementwise")


@pytest.mark.skipif(SIMULATED, reason="is about the CPU's threads")
@lists
def test_neither_batches_nor_threads_matter(x, transforms):
    whole = A.apply(transforms, x, epoch=2, seed=9)
    order = np.random.default_rng(0).permutation(len(x))
    parts = [A.apply(transforms, x, rows, epoch=2, seed=9) for rows in np.array_split(order, 7)]
    assert_close(np.concatenate(parts), whole[order], "exact")
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert_close(A.apply(transforms, x, epoch=2, seed=9), whole, "exact")
    finally:
        numba.set_num_threads(before)


@lists
def test_seed_epoch_and_row_matter(x, transforms):
    x[:] = x[0]  # one image everywhere
    first = A.apply(transforms, x)
    for other in (A.apply(transforms, x, seed=1), A.apply(transforms, x, epoch=1), np.roll(first, 1, axis=0)):
        same = (other == first).all(axis=(1, 2, 3))
        assert same.mean() < 0.25
    assert_close(A.apply(transforms, x), first, "exact")


def test_two_transforms_of_a_kind_draw_on_their_own(x):
    drawn = Pipeline([A.RandomCrop(2), A.RandomCrop(2)], x.shape[1:]).words(np.arange(len(x)), 0, 0)
    assert (drawn[0] != drawn[1]).all()


def test_words_are_those_of_the_contract():
    """The counter is the row and the block, the stream the place in the list: files and other implementations rely on it."""
    from nbnet.kernels import philox

    rows = np.array([0, 7, (1 << 32) - 1])
    _, mixing = Pipeline([A.RandomFlip(), A.MixUp()], (4, 4, 1)).words(rows, 6, 5)
    for row, found in zip(rows, mixing):
        start = int(row) << 34
        np.testing.assert_array_equal(found, philox.words(start, start + 5, 5, (1 << 31) + 1, 6))


@pytest.mark.skipif(SIMULATED, reason="is about arrays on the host")
@pytest.mark.parametrize("data", ["float32", "float64", "uint8"])
def test_any_data_set(x, data):
    """Floats, and arrays that kernels cannot read directly: strided, read-only, memory-mapped."""
    x = x if data == "uint8" else (x / 255).astype(data)
    expected = A.apply(LISTS["usual"], x, backend="numpy")
    frozen = x.copy()
    frozen.flags.writeable = False
    for other in (x, np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], frozen, x.tolist() if data == "float64" else x):
        assert_close(A.apply(LISTS["usual"], other), expected, "exact")
        assert_close(A.apply(LISTS["usual"], other, [3, 1]), expected[[3, 1]], "exact")


def test_what_is_given_stays(x):
    before = x.copy()
    A.apply(LISTS["everything"], x)
    np.testing.assert_array_equal(x, before)


def test_copies_are_code():
    for transform in LISTS["everything"]:
        for twin in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform)), eval(repr(transform), {"nb": nb})):
            assert repr(twin) == repr(transform)
            assert type(twin) is type(transform)


def test_names_have_defaults_for_the_image():
    small, large = (A.get(A.NAMES, (side, side, 3)) for side in (2, 64))
    assert [type(each) for each in small] == list(A.NAMES.values())
    assert repr(large[1]) == "nb.augment.RandomCrop(padding=(8, 8))"
    assert repr(small[1]) == "nb.augment.RandomCrop(padding=(0, 0))"


IMAGES = np.zeros((4, 8, 8, 3), np.uint8)
NAN = float("nan")
BAD = {
    "probability=1.5: expected a number from 0 to 1": lambda: A.RandomFlip(1.5),
    "probability=nan": lambda: A.RandomFlip(NAN),
    "padding=-1: expected a whole number of pixels, or two (height, width)": lambda: A.RandomCrop(-1),
    "padding=1.5: expected a whole number": lambda: A.RandomCrop(1.5),
    "unknown mode 'reflekt': did you mean 'reflect'? choose one of zeros, edge, reflect": lambda: A.RandomCrop(2, "reflekt"),
    "RandomCrop has padding=(8, 8) for images of 8x8: expected at most (7, 7)": lambda: A.apply([A.RandomCrop(8)], IMAGES),
    "fraction=1: expected a number from 0 to below 1": lambda: A.RandomTranslate(1),
    "size=0: expected a positive whole number": lambda: A.Cutout(0),
    "Cutout has size=(9, 9) for images of 8x8": lambda: A.apply([A.Cutout(9)], IMAGES),
    "degrees=nan: expected numbers (low, high) from -360 to 360, or one for both signs": lambda: A.RandomAffine(NAN),
    "degrees=(20, 10): expected": lambda: A.RandomAffine((20, 10)),
    "scale=1.5: expected numbers (low, high) from 0.01 to 100": lambda: A.RandomAffine(scale=1.5),
    "scale=(0, 1): expected": lambda: A.RandomAffine(scale=(0, 1)),
    "shear=90: expected": lambda: A.RandomAffine(shear=90),
    "brightness=2: expected a number from 0 to 1": lambda: A.ColorJitter(2),
    "hue=0.6: expected a number from 0 to 0.5": lambda: A.ColorJitter(hue=0.6),
    "ColorJitter got images with 2 channels, expected 1 or 3": lambda: A.apply(["color"], IMAGES[..., :2]),
    "deviation=inf: expected a finite number that is at least 0": lambda: A.RandomNoise(float("inf")),
    "mean=nan: expected finite numbers": lambda: A.Normalize(NAN, 1),
    "std=(1, 0): expected finite numbers above 0": lambda: A.Normalize(0, (1, 0)),
    "Normalize has 2 numbers in std, expected 3": lambda: A.apply([A.Normalize(0, (1, 2))], IMAGES),
    "alpha=0: expected a number above 0, at most 1000": lambda: A.MixUp(0),
    "there are two RandomAffine in one list, expected at most one": lambda: A.apply(["affine", "affine"], IMAGES),
    "there are two Normalize in one list": lambda: A.apply([A.Normalize(0, 1)] * 2, IMAGES),
    "unknown transform 'flipp': did you mean 'flip'?": lambda: A.apply(["flipp"], IMAGES),
    "unknown transform 3: choose one of flip, crop": lambda: A.apply([3], IMAGES),
    "augment='flip': expected a list, such as augment=['flip', 'crop']": lambda: A.apply("flip", IMAGES),
    "augment has the class RandomFlip, expected an object: use RandomFlip()": lambda: A.apply([A.RandomFlip], IMAGES),
    "augment is for images of one shape (height, width, channels), got inputs of shape (8,)": lambda: A.get(["flip"], (8,)),
    "RandomFlip got an unexpected keyword argument 'p'": lambda: A.RandomFlip(p=0.5),
    "x has shape (8, 8, 3), expected images (rows, height, width, channels)": lambda: A.apply([], IMAGES[0]),
    "x has dtype int64, expected uint8, float32 or float64": lambda: A.apply([], IMAGES.astype(np.int64)),
    "rows are from 1 to 4, expected 0 to 3, since x has 4 rows": lambda: A.apply([], IMAGES, [1, 4]),
    "rows are float64 of shape (1,), expected whole numbers (N,)": lambda: A.apply([], IMAGES, [0.5]),
    "epoch=-1: expected a whole number, at least 0": lambda: A.apply([], IMAGES, epoch=-1),
    "dtype 'int8': nbnet computes in": lambda: A.apply([], IMAGES, dtype="int8"),
    "unknown backend 'gpuu'": lambda: A.apply([], IMAGES, backend="gpuu"),
    "label 4 of row 3 is not a class": lambda: A.mixed_targets(["mixup"], [0, 1, 2, 4], 3, (8, 8, 3)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message):
    with pytest.raises((ArgumentError, ShapeError, DTypeError, BackendError, DataError, TypeError), match=re.escape(message)) as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, nb.NbnetError)
