"""Each transform beside what it should do, written out, and the statistics of its random choices."""

import itertools

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.augment import mixing
from nbnet.augment.colour import normal_quantiles
from nbnet.augment.pipeline import Pipeline

A = nb.augment
MANY = 20_000
SIGMAS = 5  # of the binomial distribution: a wrong share is far beyond, a right one never


def images(rng, count=12, height=9, width=7, channels=3):
    return rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def apply(transform, x, **options):
    return A.apply([transform], x, **({"dtype": "float64", "backend": "serial"} | options))


def words(transform, epoch=0, seed=3, count=MANY):
    """The random words of many rows."""
    return Pipeline([transform], (9, 7, 3)).words(np.arange(count), epoch, seed)[0]


def assert_shares(found, share):
    """Each value occurs as often as expected."""
    values, counts = np.unique(found, return_counts=True)
    assert len(values) == round(1 / share)
    deviation = np.sqrt(MANY * share * (1 - share))
    assert np.abs(counts - MANY * share).max() < SIGMAS * deviation


# ---------------------------------------------------------------------------------------------------------------- geometry


def test_flip(rng):
    x = images(rng)
    assert_close(apply(A.RandomFlip(1.0), x), x[:, :, ::-1] / 255, "exact")
    assert_close(apply(A.RandomFlip(1.0, vertical=True), x), x[:, ::-1] / 255, "exact")
    assert_close(apply(A.RandomFlip(0.0), x), x / 255, "exact")
    some = apply(A.RandomFlip(), x)
    flipped = np.array([not np.array_equal(one, own / 255) for one, own in zip(some, x)])
    assert 0 < flipped.sum() < len(x)
    assert_close(some[flipped], x[flipped][:, :, ::-1] / 255, "exact")


def flips(transform, epoch):
    _, columns = transform.places(words(transform, epoch), epoch, 9, 7)
    return columns[:, 0] == 6


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_flips_are_a_share_of_rows_and_epochs(share):
    first, second = (flips(A.RandomFlip(share), epoch) for epoch in (0, 1))
    both = first & second
    for found, wanted in ((first, share), (second, share), (both, share**2)):
        assert abs(found.mean() - wanted) < SIGMAS * np.sqrt(wanted / MANY)


def test_alternating_flips():
    """Jordan's: each epoch flips what the one before did not, and the first one about a half."""
    transform = A.RandomFlip(alternating=True)
    found = [flips(transform, epoch) for epoch in range(4)]
    assert abs(found[0].mean() - 0.5) < SIGMAS * np.sqrt(0.25 / MANY)
    np.testing.assert_array_equal(found[0], flips(A.RandomFlip(), 0))
    for before, after in itertools.pairwise(found):
        np.testing.assert_array_equal(after, ~before)


PADS = {"reflect": "reflect", "edge": "edge", "zeros": "constant"}


@pytest.mark.parametrize("mode", PADS)
def test_crop(rng, mode):
    """Each image is a piece of np.pad's."""
    x, (down, across) = images(rng, 60), (3, 2)
    padded = np.pad(x, ((0, 0), (down, down), (across, across), (0, 0)), PADS[mode]) / 255
    for one, pieces in zip(apply(A.RandomCrop((down, across), mode), x), padded):
        found = [np.array_equal(one, pieces[i : i + 9, j : j + 7]) for i in range(2 * down + 1) for j in range(2 * across + 1)]
        assert sum(found) >= 1


@pytest.mark.parametrize("mode", PADS)
def test_translate(rng, mode):
    x = images(rng, 60)
    padded = np.pad(x, ((0, 0), (2, 2), (1, 1), (0, 0)), PADS[mode]) / 255
    for one, pieces in zip(apply(A.RandomTranslate(0.25, mode), x), padded):
        assert any(np.array_equal(one, pieces[i : i + 9, j : j + 7]) for i in range(5) for j in range(3))


def test_shifts_are_uniform_and_independent():
    transform = A.RandomCrop((3, 2), "zeros")
    rows, columns = transform.places(words(transform), 0, 9, 7)
    down, across = rows[:, 4] - 4, columns[:, 3] - 3
    assert_shares(down, 1 / 7)
    assert_shares(across, 1 / 5)
    assert_shares(10 * down + across, 1 / 35)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns(rng, quarters):
    """Positive degrees are counter-clockwise, as in np.rot90."""
    x, angle = images(rng, 3, 8, 8), 90 * quarters
    y = apply(A.RandomAffine((angle, angle)), x)
    assert_close(y, np.rot90(x, quarters, axes=(1, 2)) / 255, "exact")


def test_no_rotation_is_no_change(rng):
    x = images(rng)
    assert_close(apply(A.RandomAffine(0), x), x / 255, "exact")


def test_affine_maps_points_as_it_says():
    """The interpolation of a slope is exact, so each pixel shows where it comes from, to 1/512 of a pixel and a tolerance of 2^-24."""
    angle, scale, lean, size = np.radians(25), 1.5, np.tan(np.radians(12)), 21
    # y points down: counter-clockwise is (cos, sin; -sin, cos)
    forward = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ [[1, lean], [0, 1]]
    row, column = np.mgrid[:size, :size].astype(np.float64)
    x = np.stack([column, row], axis=-1)[None]
    y = apply(A.RandomAffine((25, 25), (1.5, 1.5), (12, 12)), x)[0]
    centre = (size - 1) / 2
    wanted = (x[0] - centre) @ np.linalg.inv(forward).T + centre
    inside = ((wanted > 0) & (wanted < size - 1)).all(axis=-1)
    assert inside.sum() > size * size / 2
    assert np.abs(y - wanted)[inside].max() < 1 / 512 + 2**-15
    beyond = ((wanted < -1) | (wanted > size)).any(axis=-1)
    assert (y[beyond] == 0).all()


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_affine_borders(rng, mode):
    """A picture made half as large has 1 outside where all of it is 1."""
    ones = np.full((2, 6, 5, 1), 255, np.uint8)
    assert_close(apply(A.RandomAffine(20, (0.3, 0.5), 10, mode), ones), np.ones(ones.shape), "exact")
    assert apply(A.RandomAffine(20, (0.3, 0.5)), ones).min() == 0


def test_geometry_is_in_the_order_of_the_list(rng):
    """A translation and a flip do not commute, nor do two borders."""
    x = images(rng, 4)
    flip, vertical, turn = A.RandomFlip(1.0), A.RandomFlip(1.0, vertical=True), A.RandomAffine((90, 90))
    square = images(rng, 4, 6, 6)
    options = {"dtype": "float64", "backend": "serial"}
    both = A.apply([flip, turn], square, **options)
    assert_close(both, np.rot90(square[:, :, ::-1], axes=(1, 2)) / 255, "exact")
    assert_close(A.apply([turn, flip], square, **options), np.rot90(square, axes=(1, 2))[:, :, ::-1] / 255, "exact")
    assert_close(A.apply([flip, vertical], x, **options), x[:, ::-1, ::-1] / 255, "exact")
    crop, zeros = A.RandomCrop(3, "zeros"), A.RandomTranslate(0.4, "zeros")
    drawn = Pipeline([crop, zeros], (9, 7, 3)).words(np.arange(4), 0, 0)
    rows = [transform.places(some, 0, 9, 7)[0] for transform, some in zip((crop, zeros), drawn)]
    y = A.apply([crop, zeros], x, **options)
    for n in range(4):
        lost = [rows[1][n, i] < 0 or rows[0][n, rows[1][n, i]] < 0 for i in range(9)]
        assert (y[n, lost] == 0).all()
        assert y[n, ~np.array(lost)].any()


def test_cutout(rng):
    x = np.full((300, 9, 7, 3), 255, np.uint8)
    y = apply(A.Cutout((3, 2)), x)
    rows, columns = (y[..., 0] == 0).any(axis=2), (y[..., 0] == 0).any(axis=1)
    assert (rows.sum(axis=1) <= 3).all()
    assert (columns.sum(axis=1) <= 2).all()
    assert_close(y == 0, (rows[:, :, None] & columns[:, None])[..., None] & np.ones(3, bool), "exact")
    inner = y[rows.sum(axis=1) == 3]
    assert 0 < len(inner) < len(y)  # some are partly outside
    assert rows.any(axis=0).all()  # every row is cut somewhere
    assert columns.any(axis=0).all()
    with_mean = A.apply([A.Cutout(4), A.Normalize(0.3, 0.2)], x)
    assert set(np.unique(with_mean)) == {np.float32(0), np.float32((np.float32(255) - np.float32(76.5)) / np.float32(51))}


# ------------------------------------------------------------------------------------------------------------------ colour


def test_brightness_and_contrast(rng):
    x = rng.random((MANY, 1, 1, 3)) * 0.2 + 0.4
    y = apply(A.ColorJitter(0.5, 0, 0), x)
    factor = np.round(y / x, 12)
    assert_close(factor, np.broadcast_to(factor[..., :1], factor.shape), "differences")  # rounded to 12 bits, alike in all channels
    assert 0.5 <= factor.min() < 0.51
    assert 1.49 < factor.max() <= 1.5
    contrast = (apply(A.ColorJitter(0, 0.5, 0), x) - 0.5) / (x - 0.5)
    middle = np.median(contrast, axis=-1)
    assert np.abs(middle.mean() - 1) < SIGMAS * 0.3 / np.sqrt(MANY)


YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def by_hand(v, bright, contrast, saturation, turn):
    """The steps of ColorJitter, one after the other."""
    v = v * bright
    v = (v - 0.5) * contrast + 0.5
    grey = v @ [0.299, 0.587, 0.114]
    v = grey[..., None] + saturation * (v - grey[..., None])
    yiq = v @ YIQ.T
    i, q = yiq[..., 1] * np.cos(turn) - yiq[..., 2] * np.sin(turn), yiq[..., 1] * np.sin(turn) + yiq[..., 2] * np.cos(turn)
    return np.stack([yiq[..., 0], i, q], axis=-1) @ np.linalg.inv(YIQ).T


def test_color_matrices(rng):
    transform, v = A.ColorJitter(0.4, 0.3, 0.5, 0.25), rng.random((50, 3))
    some = words(transform, count=50)
    matrices = transform.matrices(some, 3)
    u = (some + 0.5) / 2**32
    numbers = 0.6 + 0.8 * u[:, 0], 0.7 + 0.6 * u[:, 1], 0.5 + u[:, 2], 2 * np.pi * (0.5 * u[:, 3] - 0.25)
    for n in range(50):
        assert_close(matrices[n, :, :3] @ v[n] + matrices[n, :, 3], by_hand(v[n], *(each[n] for each in numbers)), "elementwise")


def test_colour_is_cut_off_and_grey_stays_grey(rng):
    x = images(rng, 40)
    y = apply(A.ColorJitter(1, 1, 1, 0.5), x)
    assert y.min() == 0
    assert y.max() == 1
    grey = x[..., :1].repeat(3, axis=-1)
    y = apply(A.ColorJitter(0.2, 0.2, 0.9, 0.5), grey)
    assert np.ptp(y, axis=-1).max() < 3 * 2**-10  # 12 bits of each factor
    assert_close(apply(A.ColorJitter(0, 0, 0), x), x / 255, "exact")
    one = apply(A.ColorJitter(0, 0, 0.9, 0.5), x[..., :1])
    assert_close(one, x[..., :1] / 255, "exact")


def test_noise():
    grey = np.full((200, 9, 7, 3), 0.5)
    y = apply(A.RandomNoise(0.1), grey) - 0.5
    n = y.size
    assert abs(y.mean()) < SIGMAS * 0.1 / np.sqrt(n)
    assert abs(y.var() / 0.01 - 1) < SIGMAS * np.sqrt(2 / n)
    share = (np.abs(y) < 0.1).mean()
    assert abs(share - 0.6827) < SIGMAS * np.sqrt(0.22 / n) + 1 / 4096
    assert len({one.tobytes() for one in y}) == len(y)
    assert abs((y[:, :, :, 0] * y[:, :, :, 1]).mean()) < SIGMAS * 0.01 / np.sqrt(n / 3)
    assert (apply(A.RandomNoise(0.1), grey, epoch=1) != y + 0.5).mean() > 0.99
    assert_close(normal_quantiles(), -normal_quantiles()[::-1], "elementwise")


def test_normalize(rng):
    x, mean, std = images(rng), np.array([0.2, 0.5, 0.7]), np.array([0.1, 0.2, 0.4])
    assert_close(apply(A.Normalize(tuple(mean), list(std)), x), (x / 255 - mean) / std, "elementwise")
    assert_close(apply(A.Normalize(0.5, 0.25), x / 255), (x / 255 - 0.5) / 0.25, "elementwise")
    assert_close(apply(A.Normalize(mean, std), x, train=False), (x / 255 - mean) / std, "elementwise")
    assert_close(A.apply(["flip", "noise", "mixup"], x, train=False), (x / np.float32(255)).astype(np.float32), "exact")


# ------------------------------------------------------------------------------------------------------------------ mixing


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.0, 10.0, 300.0])
def test_beta(alpha):
    u = (np.arange(MANY) + 0.5) / MANY
    found = mixing.beta_quantile(u, alpha)
    assert (np.diff(found) >= 0).all()
    assert_close(found, 1 - found[::-1], "differences")
    assert abs(found.var() * 4 * (2 * alpha + 1) - 1) < 1e-3
    exact = {1.0: lambda x: x, 0.5: lambda x: 2 / np.pi * np.arcsin(np.sqrt(x)), 2.0: lambda x: 3 * x**2 - 2 * x**3}
    if alpha in exact:
        assert np.abs(exact[alpha](found) - u).max() < 1e-5


@pytest.mark.parametrize("transform", [A.MixUp(0.5), A.CutMix(), A.MixUp(1.0, 0.5)], ids=repr)
def test_mixed_images_and_targets(rng, transform):
    x, labels = rng.random((40, 9, 7, 3)), np.arange(40) % 10
    base = [A.RandomFlip(), A.RandomCrop(2), A.Normalize(0.3, 0.4)]
    options = {"epoch": 3, "seed": 8}
    plain, mixed = (A.apply([*base, *more], x, dtype="float64", **options) for more in ([], [transform]))
    targets = A.mixed_targets([*base, transform], labels, 10, x.shape[1:], **options)
    how = Pipeline([*base, transform], x.shape[1:]).mixed(np.arange(40), 3, 8, 40)
    assert_close(targets.sum(axis=1), np.ones(40), "elementwise")
    for n, partner in enumerate(how.partners):
        wanted = how.share[n] * plain[n] + (1 - how.share[n]) * plain[partner]
        top, end, left, right = how.box[n]
        wanted[top:end, left:right] = plain[partner, top:end, left:right]
        assert_close(mixed[n], wanted, "elementwise")
        own = how.share[n] if isinstance(transform, A.MixUp) else 1 - (end - top) * (right - left) / 63
        wanted = np.zeros(10)
        wanted[labels[n]] += own
        wanted[labels[partner]] += 1 - own
        assert_close(targets[n], wanted, "elementwise")
    untouched = (mixed == plain).all(axis=(1, 2, 3))
    assert 0 < untouched.sum() < 40 if transform.probability < 1 else untouched.sum() < 20


def test_mixing_choices():
    transform = A.CutMix(probability=0.25)
    rows = np.arange(MANY)
    how = Pipeline([transform], (9, 7, 3)).mixed(rows, 0, 3, MANY)
    applied = how.partners != rows
    assert abs(applied.mean() - 0.25) < SIGMAS * np.sqrt(0.2 / MANY)
    thirds = how.partners[applied] * 3 // MANY
    assert np.abs(np.bincount(thirds) / applied.sum() - 1 / 3).max() < SIGMAS * np.sqrt(0.25 / applied.sum())
    both = Pipeline([A.MixUp(), transform], (9, 7, 3)).mixed(rows, 0, 3, MANY)
    boxes = (both.box != 0).any(axis=1)
    assert 0.1 < boxes.mean() < 0.26  # CutMix, the last, where it applies
    assert (both.share[boxes] == 1).all()
    assert (both.share[~boxes] < 1).mean() > 0.5
    assert_close(both.share * 2**16 % 1, np.zeros(MANY), "exact")  # so that products with float32 are exact in float64
