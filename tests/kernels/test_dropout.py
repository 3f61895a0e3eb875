import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks, philox
from nbnet.kernels.dropout.cpu import BLOCK, WORK

from .harness import (
    COMPILED,
    DTYPES,
    SIMULATED,
    Out,
    call,
    check,
    check_gradient,
    large,
    not_simulated,
    output_of,
    run,
    same_bits,
    simulated,
)

SIZES = [1, 2, 3, 4, 5, *simulated(151), *large(BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1, 1001, 70003)]
MANY = 403 if SIMULATED else 70003  # elements
SEED = np.uint64(0x9E3779B97F4A7C15)
HALF = 1 << 31
ZERO = (1.25, 0.0, 0.0)  # scale, shift, dropped of plain inverted dropout at rate 0.2
AFFINE = (1.5, -0.25, 3.0)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def counter(seed, stream, step):
    return np.array([seed, stream, step], np.uint64)


@not_simulated
def test_sizes_make_several_chunks():
    assert chunks.count(SIZES[-1] // 4, 4 * WORK) > 4


@pytest.mark.parametrize("constants", [ZERO, AFFINE], ids=str)
@pytest.mark.parametrize("size", SIZES)
@dtypes
def test_apply(rng, dtype, size, constants):
    check("dropout.apply", dtype, "elementwise", [rng.normal(size=size), counter(SEED, 3, 1000), HALF, *constants, Out((size,))])


@pytest.mark.parametrize("size", SIZES)
@dtypes
def test_relu_backward(rng, dtype, size):
    y = np.maximum(rng.normal(size=size), 0)
    check("dropout.relu_backward", dtype, "elementwise", [rng.normal(size=size), y, 1.25, Out((size,))])


def test_gradient_of_relu_and_dropout(rng):
    x, dy = rng.normal(size=23), rng.normal(size=23)
    random = counter(SEED, 3, 4), HALF

    def forward(x):
        return output_of("dropout.apply", [np.maximum(x, 0), *random, *ZERO, Out((23,))])

    check_gradient(forward, "dropout.relu_backward", [dy, forward(x), ZERO[0], Out((23,))], x, dy)


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_relu_backward_of_nan_in_place(backend):
    dy, y = np.array([1.0, 2.0, 3.0, np.nan]), np.array([np.nan, 0.0, 5.0, -0.0])
    call("dropout.relu_backward", backend, dy, y, 2.0, dy)
    assert_close(dy, np.array([2.0, 0.0, 6.0, 0.0]), "exact")


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@pytest.mark.parametrize("threshold", [0, 1 << 32, 858993459])
def test_share_of_dropped_elements(backend, threshold):
    """Nothing at 0, all at 2^32, else the expected share within five standard deviations."""
    n, rate = 2000 if SIMULATED else 200_000, threshold / 2**32
    (y,) = run("dropout.apply", backend, "float32", [np.ones(n), counter(SEED, 0, 0), threshold, 1.0, 0.0, 0.0, Out((n,))])
    deviation = np.sqrt(n * rate * (1 - rate))
    assert abs((y == 0).sum() - n * rate) <= 5 * deviation


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_mask_is_the_words_of_philox(backend):
    n = MANY
    (y,) = run("dropout.apply", backend, "float32", [np.ones(n), counter(SEED, 5, 6), HALF, 1.0, 0.0, 0.0, Out((n,))])
    assert_close(y, philox.words(0, n, int(SEED), 5, 6) >= HALF, "exact")


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@pytest.mark.parametrize("element", range(7))
def test_a_word_at_the_threshold_is_kept(backend, element):
    """In each of the four words of a counter, and in the last, partial counter."""
    word = int(philox.words(element, element + 1, int(SEED), 5, 6)[0])
    for threshold, kept in ((word, True), (word + 1, False)):
        (y,) = run("dropout.apply", backend, "float32", [np.ones(7), counter(SEED, 5, 6), threshold, 1.0, 0.0, 0.0, Out((7,))])
        assert (y[element] == 1) == kept


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_mask_follows_seed_stream_and_step(backend):
    def mask(seed, stream, step):
        args = [np.ones(MANY), counter(seed, stream, step), HALF, 1.0, 0.0, 0.0, Out((MANY,))]
        return run("dropout.apply", backend, "float32", args)[0]

    first = mask(1, 2, 3)
    same_bits(first, mask(1, 2, 3), "the same mask twice")
    for other in (mask(2, 2, 3), mask(1, 3, 3), mask(1, 2, 4), mask(1 + 2**40, 2, 3)):
        assert 0.4 < (first == other).mean() < 0.6  # independent masks agree on half


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@dtypes
def test_in_place(rng, dtype, backend):
    x = rng.normal(size=251).astype(dtype)
    y = np.empty_like(x)
    call("dropout.apply", backend, x, counter(SEED, 0, 0), HALF, *AFFINE, y)
    call("dropout.apply", backend, x, counter(SEED, 0, 0), HALF, *AFFINE, x)
    assert_close(x, y, "elementwise")


def test_gradient(rng):
    """Backward is the same kernel on dy, with shift and dropped at 0."""
    x, dy = rng.normal(size=23), rng.normal(size=23)
    random = (counter(SEED, 1, 2), HALF)
    args = [dy, *random, AFFINE[0], 0.0, 0.0, Out((23,))]
    check_gradient(lambda x: output_of("dropout.apply", [x, *random, *AFFINE, Out((23,))]), "dropout.apply", args, x, dy)


@pytest.mark.parametrize("backend", COMPILED)
def test_nan_is_kept_or_dropped(backend):
    (y,) = run("dropout.apply", backend, "float32", [np.full(251, np.nan), counter(SEED, 0, 0), HALF, *ZERO, Out((251,))])
    assert (np.isnan(y) == (philox.words(0, 251, int(SEED), 0, 0) >= HALF)).all()


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    """The published answers of Random123 (kat_vectors, philox4x32 10)."""
    words = [np.uint32(w) for w in (*counter, *key)]
    assert philox.philox(*words) == expected
    with np.errstate(over="ignore"):
        assert philox._philox(*words) == expected


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (3, 11), (4, 5), (6, 6), (4 * 2**32 - 2, 4 * 2**32 + 9)])
def test_words_of_any_range(start, stop):
    """Any range equals the slice of the stream, also where the counter passes 2^32."""
    seed, stream, step = int(SEED), 7, 8
    words = philox.words(start, stop, seed, stream, step)
    assert len(words) == stop - start
    for element, word in zip(range(start, stop), words, strict=True):
        i = element // 4
        counter = i & 0xFFFFFFFF, i >> 32, stream, step, seed & 0xFFFFFFFF, seed >> 32
        assert philox.philox(*[np.uint32(w) for w in counter])[element % 4] == word
