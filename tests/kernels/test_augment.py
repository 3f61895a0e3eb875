import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks, philox
from nbnet.kernels.augment.cpu import BLOCK, COPY

from .harness import COMPILED, CPU, DTYPES, SIMULATED, Out, check, large, not_simulated, run, same_bits, simulated

# R, N, H, W, C
SHAPES = {
    "one": (1, 1, 1, 1, 1),
    "two": (3, 2, 5, 4, 3),
    "grey": (2, 3, 4, 7, 1),
    **dict(simulated(("several blocks", (3, 2, 4, 5, 3)))),
    **dict(large(("chunks", (20, 33, 32, 31, 3)), ("words", (4, 5, 6, BLOCK + 1, 1)))),
}
PARTS = ["moved", "affine", "colour", "noise", "boxes"]  # what is in a call: the first alone, the first two, ...
dtypes = pytest.mark.parametrize("dtype", DTYPES)
names = pytest.mark.parametrize("name", SHAPES)
BYTES, TOP = 256, 255.0


def runs(rng, count, size):
    """Places along an axis: in order or reversed, moved, with some black."""
    places = np.arange(size) + rng.integers(-2, 3, (count, 1))
    places = np.where(rng.random((count, 1)) < 0.5, places[:, ::-1], places)
    places[rng.random(places.shape) < 0.1] = 0
    return np.where((places < 0) | (places >= size), -1, places)


def places_of(rng, count, height, width):
    return np.concatenate([runs(rng, count, height), runs(rng, count, width)], axis=1)


def arguments(rng, name, parts, x=None, **changed):
    """Of a call of `apply` with the first `parts` of PARTS."""
    total, count, height, width, channels = SHAPES[name]
    uses = dict(zip(PARTS, [True] * parts + [False] * len(PARTS)))
    affine = np.round(rng.normal([1, 0, 0, 0, 1, 0], [0.3, 0.3, 2, 0.3, 0.3, 2], (count, 6)) * 2**24).astype(np.int64)
    colour = rng.integers(-1500, 3000, (count, channels, channels + 1)) / 1024
    colour[..., -1] = rng.integers(-99, 99, colour.shape[:2])
    first = rng.integers(0, [height, width], (2, count, 2))
    boxes = np.stack([first[..., 0], first[..., 0] + 2, first[..., 1], first[..., 1] + 3], axis=-1)
    args = {
        "x": rng.integers(0, BYTES, (total, height, width, channels), dtype=np.uint8) if x is None else x,
        "rows": rng.integers(0, total, count),
        "ids": rng.integers(0, 1 << 32, count),
        "places": np.stack([places_of(rng, count, height, width) for _ in range(1 + uses["affine"])]),
        "affine": affine[: count * uses["affine"]],
        "border": 2,
        "colour": colour[: count * uses["colour"]],
        "noise": rng.normal(0, 9, 4096)[: 4096 * uses["noise"]],
        "counter": np.array([1 << 40, 3, 5], np.uint64),
        "shift": rng.normal(100, 20, channels),
        "divisor": rng.normal(50, 5, channels),
        "top": TOP,
        "boxes": np.minimum(boxes, [height, height, width, width])[: 2 * uses["boxes"]],
        "y": Out((count, height, width, channels)),
    }
    return list((args | changed).values())


@not_simulated
def test_cases_make_several_chunks():
    for name, (_, count, height, width, channels) in SHAPES.items():
        assert (chunks.count(count * height, width * channels * COPY) > 1) == (name == "chunks")


@pytest.mark.parametrize("parts", range(1, 6), ids=PARTS)
@names
def test_pictures_of_bytes_have_the_same_bits_everywhere(rng, name, parts):
    args = arguments(rng, name, parts)
    for dtype in DTYPES:
        check("augment.apply", dtype, "elementwise", args)
        (expected,) = run("augment.apply", "numpy", dtype, args)
        for backend in COMPILED:
            same_bits(run("augment.apply", backend, dtype, args)[0], expected, f"{backend} and numpy")


@pytest.mark.parametrize("parts", range(1, 6), ids=PARTS)
@pytest.mark.parametrize("data", ["float32", "float64"])
@dtypes
def test_floats(rng, dtype, data, parts):
    """Of the batch's dtype or of the other one. The bits of CPUs are the same."""
    x = rng.random(SHAPES["two"][:1] + SHAPES["two"][2:])
    args = arguments(rng, "two", parts, Out(start=x.astype(data), dtype=data), top=1.0)
    expected, *_ = check("augment.apply", dtype, "reduction", [*args[:-1], args[-1]])[-1:]
    assert np.isfinite(expected).all()
    wanted = run("augment.apply", "numpy", dtype, args)[-1]
    for backend in CPU:
        same_bits(run("augment.apply", backend, dtype, args)[-1], wanted, f"{backend} and numpy")


@pytest.mark.parametrize("border", [0, 1, 2])
@names
def test_borders(rng, name, border):
    """Far outside too."""
    count = SHAPES[name][1]
    far, channels = rng.integers(-(1 << 28), 1 << 28, (count, 6)), SHAPES[name][-1]
    plain = {"shift": np.zeros(channels), "divisor": np.ones(channels)}
    check("augment.apply", "float32", "exact", arguments(rng, name, 2, border=border, affine=far, **plain))


def moved(places, picture):
    """Places of rows or columns applied to a picture along its first axis."""
    return np.where((places >= 0).reshape(-1, *[1] * (picture.ndim - 1)), picture[places], 0)


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_by_hand(rng, backend):
    """The places, a shift of half a pixel, the colour, the words and the boxes, one after the other."""
    _, count, height, width, _ = SHAPES["two"]
    args = arguments(rng, "two", 5, shift=np.zeros(3), divisor=np.ones(3))
    x, rows, ids, places, noise, boxes = (args[i] for i in (0, 1, 2, 3, 7, 12))
    args[4] = np.tile(np.array([1 << 24, 0, 1 << 23, 0, 1 << 24, 0]), (count, 1))  # half a pixel to the right
    args[5] = 1
    (y,) = run("augment.apply", backend, "float64", args)
    for n in range(count):
        picture = moved(places[1, n, :height], x[rows[n]]).swapaxes(0, 1)
        picture = moved(places[1, n, height:], picture).astype(np.float64)
        picture = (picture + picture[[*range(1, width), width - 1]]) / 2
        picture = moved(places[0, n, :height], moved(places[0, n, height:], picture).swapaxes(0, 1))
        picture = picture @ args[6][n, :, :3].T + args[6][n, :, 3]
        words = philox.words(int(ids[n]) << 34, (int(ids[n]) << 34) + picture.size, 1 << 40, 3, 5)
        picture = np.clip(picture, 0, 255) + noise[words >> 20].reshape(picture.shape)
        for a, b, c, d in boxes[:, n]:
            picture[a:b, c:d] = 0
        assert_close(y[n], picture, "elementwise")


def mixed(rng, name):
    _, count, height, width, channels = SHAPES[name]
    share = rng.integers(0, 1 << 16, count) / (1 << 16)
    share[::2] = 1
    first = rng.integers(0, [height, width], (count, 2))
    box = np.stack([first[:, 0], np.minimum(first[:, 0] + 2, height), first[:, 1], np.minimum(first[:, 1] + 3, width)], axis=1)
    box[::3] = 0
    shape = count, height, width, channels
    return [rng.normal(size=shape), Out(start=share, dtype=np.float64), box, Out(start=rng.normal(size=shape))]


@dtypes
@names
def test_mix(rng, dtype, name):
    args = mixed(rng, name)
    check("augment.mix", dtype, "elementwise", args)
    expected = run("augment.mix", "numpy", dtype, args)[-1]
    for backend in COMPILED if dtype == "float32" else CPU:
        same_bits(run("augment.mix", backend, dtype, args)[-1], expected, f"{backend} and numpy")


@pytest.mark.skipif(SIMULATED, reason="is about rounding")
def test_a_share_of_one_is_the_same_bits(rng):
    y = rng.normal(size=(1, 2, 2, 1))
    y[0, 0, 0] = -0.0
    args = [np.full(y.shape, np.inf), Out(start=np.ones(1), dtype=np.float64), np.zeros((1, 4), np.int64), Out(start=y)]
    for backend in ("numpy", *COMPILED):
        same_bits(run("augment.mix", backend, "float64", args)[-1], y, backend)
