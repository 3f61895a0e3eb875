"""Dropout on plain arrays: one mask everywhere, gradients, expectation, and errors."""

import numba
import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, ShapeError

from .differences import BACKENDS, differences

F = nb.functional


@pytest.mark.parametrize("variant", ["inverted", "vanilla", "alpha"])
@pytest.mark.parametrize("noise_shape", [None, (40, 1, 1, 5), (1, 6, 7, 1)])
def test_dropout_is_the_same_everywhere(rng, variant, noise_shape):
    x, dy = rng.standard_normal((40, 6, 7, 5)), rng.standard_normal((40, 6, 7, 5))
    results = []
    for backend in BACKENDS:
        y, saved = F.dropout_forward(x, 0.3, seed=5, step=2, stream=1, variant=variant, noise_shape=noise_shape, backend=backend)
        assert all(part.size == 3 for part in saved if isinstance(part, np.ndarray))  # the counter: no mask is kept
        results.append((y, F.dropout_backward(dy, saved)))
    for y, dx in results[1:]:
        assert np.array_equal(dx == 0, results[0][1] == 0)
        assert_close(y, results[0][0], "elementwise")
        assert_close(dx, results[0][1], "elementwise")


@pytest.mark.parametrize("variant", ["inverted", "vanilla", "alpha"])
@pytest.mark.parametrize("train", [True, False])
def test_dropout_gradients(rng, variant, train):
    x, dy = rng.standard_normal((5, 4)), rng.standard_normal((5, 4))
    options = {"seed": 1, "variant": variant, "train": train, "backend": "serial"}
    _, saved = F.dropout_forward(x, 0.4, **options)
    (wanted,) = differences(lambda a: F.dropout_forward(a, 0.4, **options)[0], [x], dy)
    assert_close(F.dropout_backward(dy, saved), wanted, "differences")


def test_dropout_in_expectation():
    x = np.full(200_000, 3.0)
    error = 4 * 3 / np.sqrt(len(x))  # four standard errors, at most
    for rate in (0.1, 0.5, 0.9):
        y, _ = F.dropout_forward(x, rate, seed=1)
        assert abs(y.mean() - 3) < error * np.sqrt(rate / (1 - rate))
        vanilla, _ = F.dropout_forward(x, rate, seed=1, variant="vanilla")
        evaluated, _ = F.dropout_forward(x, rate, seed=1, variant="vanilla", train=False)
        assert_close(evaluated, np.full(len(x), 3 * (1 - rate)), "elementwise")
        assert abs(vanilla.mean() - evaluated[0]) < error * np.sqrt(rate * (1 - rate))


def test_alpha_dropout_keeps_mean_and_variance(rng):
    x = rng.standard_normal(400_000)
    y, _ = F.dropout_forward(x, 0.3, seed=1, variant="alpha")
    assert abs(y.mean()) < 4 / np.sqrt(len(x))
    assert abs(y.var() - 1) < 0.02


def test_dropout_limits():
    x = np.arange(1.0, 9.0)
    assert np.array_equal(F.dropout_forward(x, 0, seed=0)[0], x)
    assert np.array_equal(F.dropout_forward(x, 0.5, seed=0, train=False)[0], x)
    y, saved = F.dropout_forward(x, 1, seed=0)
    assert not y.any()
    assert not F.dropout_backward(x, saved).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", ["inverted", "vanilla", "alpha"])
@pytest.mark.parametrize("noise_shape", [None, (2, 1)])
def test_rates_0_and_1(backend, variant, noise_shape):
    """Nothing is dropped, or everything; in evaluation only the vanilla variant has a factor, 1 - rate. Forward and backward."""
    x = np.arange(1.0, 9.0).reshape(2, 4)
    for rate, train, factor in (
        (0, True, 1),
        (0, False, 1),
        (1, True, 0),
        (1, False, 0 if variant == "vanilla" else 1),
        (0.25, False, 0.75 if variant == "vanilla" else 1),
    ):
        y, saved = F.dropout_forward(x, rate, seed=0, variant=variant, noise_shape=noise_shape, train=train, backend=backend)
        assert np.array_equal(y, factor * x)
        assert (y is x) == (factor == 1), "what changes nothing copies nothing"
        assert np.array_equal(F.dropout_backward(2 * x, saved), factor * 2 * x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.1}, "probability to drop"),
        ({"rate": float("nan")}, "probability to drop"),
        ({"rate": 0.5, "variant": "inverse"}, "did you mean 'inverted'"),
        ({"rate": 0.5, "seed": -1}, "seed=-1"),
        ({"rate": 0.5, "noise_shape": (2, 3)}, "noise_shape"),
    ],
)
def test_bad_dropout(options, message):
    with pytest.raises((ArgumentError, ShapeError), match=message):
        F.dropout_forward(np.ones((3, 3)), **({"seed": 0} | options))


def mask_bytes(backend, size=1_000_003):
    y, _ = F.dropout_forward(np.ones(size, np.float32), 0.3, seed=2**63 + 11, step=2**32 - 1, stream=7, backend=backend)
    return np.packbits(y != 0).tobytes()


def test_a_mask_is_the_same_bytes_everywhere():
    wanted = mask_bytes("numpy")
    assert mask_bytes("serial") == wanted
    threads = numba.get_num_threads()
    try:
        for count in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(count)
            assert mask_bytes("parallel") == wanted
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_keep_rate_is_within_four_standard_errors(rate):
    size = 10_000_000
    y, _ = F.dropout_forward(np.ones(size, np.float32), rate, seed=1)
    assert abs(np.count_nonzero(y) / size - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / size)
