"""Moments and batch normalisation on plain arrays: formulas, gradients, evaluation, a batch in parts, and errors."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, DTypeError, ShapeError
from nbnet.functional.moments import partials
from nbnet.kernels import chunks

from .differences import BACKENDS, differences

F = nb.functional


# ----------------------------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("axes", [0, (0, 1, 2), (1, 2), -1, (2, 0), (0, 1, 2, 3)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_moments_over_any_axes(rng, axes, keepdims):
    x = rng.normal(3, 2, (4, 5, 6, 7))
    for backend in BACKENDS:
        mean, var = F.moments(x, axes, keepdims, backend=backend)
        assert mean.shape == x.mean(axes, keepdims=keepdims).shape
        assert_close(mean, x.mean(axes, keepdims=keepdims), "reduction")
        assert_close(var, x.var(axes, keepdims=keepdims), "reduction")


def test_weighted_moments(rng):
    x = rng.normal(3, 2, (20, 3))
    weights = rng.integers(0, 4, (20, 1))
    mean, var = F.moments(x, 0, weights=weights)
    repeated = np.repeat(x, weights[:, 0], axis=0)
    assert_close(mean, repeated.mean(axis=0), "reduction")
    assert_close(var, repeated.var(axis=0), "reduction")


@pytest.mark.parametrize("value", [1e8, np.nan, -np.inf], ids=str)
def test_moments_of_the_rest(rng, value):
    """What has a weight of 0 has no influence, whatever it holds."""
    x, weights = rng.normal(3, 2, (20, 3)), rng.random((20, 3)) < 0.6
    mean, var = F.moments(np.where(weights, x, value), 0, weights=weights)
    kept = [column[w] for column, w in zip(x.T, weights.T)]
    assert_close(mean, np.array([column.mean() for column in kept]), "reduction")
    assert_close(var, np.array([column.var() for column in kept]), "reduction")


def test_bad_moments():
    x = np.ones((3, 4))
    with pytest.raises(ArgumentError, match="axes \\(2,\\)"):
        F.moments(x, 2)
    with pytest.raises(ArgumentError, match="sum to 0"):
        F.moments(x, 0, weights=np.zeros((3, 1)))
    for value in (-1e-9, np.inf, np.nan):
        with pytest.raises(ArgumentError, match="negative or not finite, expected finite weights of at least 0"):
            F.moments(x, 0, weights=np.array([[1], [value], [1]]))
    with pytest.raises(DTypeError, match=r"int64.*astype"):
        F.moments(np.arange(3), 0)
    with pytest.raises(ShapeError, match="empty"):
        F.moments(np.ones((0, 3)), 0)


# -------------------------------------------------------------------------------------------------- batch norm


def batch_norm_definition(x, gamma, beta, eps=1e-5, mean=None, var=None, weights=None):
    """Written out, for the differences."""
    rows = x.reshape(-1, x.shape[-1])
    if mean is None:
        w = np.ones(len(rows)) if weights is None else weights
        mean = w @ rows / w.sum()
        var = w @ (rows - mean) ** 2 / w.sum()
    return gamma * (x - mean) / np.sqrt(var + eps) + beta


@pytest.mark.parametrize("mode", ["train", "weights", "eval"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm(rng, mode, backend):
    x, dy = rng.normal(1, 2, (3, 2, 4, 3)), rng.standard_normal((3, 2, 4, 3))
    gamma, beta = rng.standard_normal(3), rng.standard_normal(3)
    options = {
        "train": {},
        "weights": {"weights": rng.random(24) * (rng.random(24) < 0.7)},
        "eval": {"mean": rng.standard_normal(3), "var": rng.random(3) + 0.5},
    }[mode]
    y, saved = F.batch_norm_forward(x, gamma, beta, eps=1e-3, backend=backend, **options)
    assert_close(y, batch_norm_definition(x, gamma, beta, 1e-3, **options), "reduction")
    grads = F.batch_norm_backward(dy, saved)
    wanted = differences(lambda *a: batch_norm_definition(*a, 1e-3, **options), [x, gamma, beta], dy)
    for grad, numeric in zip(grads, wanted):
        assert_close(grad, numeric, "differences")


def test_dy_is_left_alone(rng):
    x, dy = rng.standard_normal((50, 4)), rng.standard_normal((50, 4))
    _, saved = F.batch_norm_forward(x, None, None)
    given = dy.copy()
    sums = F.batch_norm_backward_reduce(dy, saved)
    dx = F.batch_norm_backward_apply(dy, saved, sums)
    assert_close(F.batch_norm_backward(dy, saved)[0], dx, "elementwise")
    assert_close(dy, given, "exact")


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_norm_keeps_its_digits_far_from_zero(rng, backend):
    """Mean 1e4, deviation 1, in float32: the input is rounded to 1e-3, the output must be no worse than float32."""
    x = (1e4 + rng.standard_normal((4000, 3))).astype(np.float32)
    dy = rng.standard_normal((4000, 3)).astype(np.float32)
    gamma, beta = rng.standard_normal(3).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    y, saved = F.batch_norm_forward(x, gamma, beta, backend=backend)
    wanted, wanted_saved = F.batch_norm_forward(*(a.astype(np.float64) for a in (x, gamma, beta)), backend="numpy")
    assert_close(y, wanted, "reduction")
    for a, b in zip(F.batch_norm_backward(dy, saved), F.batch_norm_backward(dy.astype(np.float64), wanted_saved)):
        assert_close(a, b, "reduction")


def test_batch_normalization_is_tensorflows(rng):
    x, offset = rng.standard_normal((5, 3)), rng.standard_normal(3)
    mean, var = F.moments(x, 0)
    y = F.batch_normalization(x, mean, var, offset, None, 1e-3)
    assert_close(y, F.batch_norm_forward(x, None, offset, eps=1e-3)[0], "reduction")
    assert F.batch_normalization(x.astype(np.float32), mean, var, None, 2.0, 1e-3).dtype == np.float32


def test_bad_batch_norm():
    x, one = np.ones((4, 3)), np.ones(3)
    with pytest.raises(ShapeError, match="one value per channel"):
        F.batch_norm_forward(x[:1], one, one)
    with pytest.raises(ShapeError, match=r"gamma has shape \(4,\), expected \(3,\)"):
        F.batch_norm_forward(x, np.ones(4), one)
    with pytest.raises(ArgumentError, match="expected mean and var together"):
        F.batch_norm_forward(x, one, one, mean=one)
    with pytest.raises(ArgumentError, match="that do not sum to 0"):
        F.batch_norm_forward(x, one, one, weights=np.zeros(4))
    for value in (-1e-9, np.inf, np.nan):
        with pytest.raises(ArgumentError, match="negative or not finite"):
            F.batch_norm_forward(x, one, one, weights=np.array([1, 1, value, 1]))
    _, saved = F.batch_norm_forward(x, one, one)
    with pytest.raises(ShapeError, match=r"dy has shape \(3, 4\), expected \(4, 3\)"):
        F.batch_norm_backward(x.T, saved)


# --------------------------------------------------------------------------------- a batch in parts, as if it were one


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
def test_accumulated_batch_norm_is_the_whole_batch(rng, dtype, weighted):
    """Statistics of 8 micro-batches of different sizes, one of them empty, give the gradients of the whole batch."""
    x, dy = rng.normal(3, 2, (53, 4, 6)).astype(dtype), rng.standard_normal((53, 4, 6)).astype(dtype)
    gamma, beta = rng.standard_normal(6).astype(dtype), rng.standard_normal(6).astype(dtype)
    weights = rng.random((53, 4)).astype(dtype) if weighted else None
    y, saved = F.batch_norm_forward(x, gamma, beta, weights=weights)
    dx, dgamma, dbeta = F.batch_norm_backward(dy, saved)

    cuts = [1, 3, 3, 10, 20, 21, 40]
    parts, dparts = np.split(x, cuts), np.split(dy, cuts)
    wparts = [None] * 8 if weights is None else np.split(weights, cuts)
    stats = [F.batch_norm_stats(part, w) for part, w in zip(parts, wparts)]
    assert stats[2].count == 0
    merged = F.merge_stats(stats)
    applied = [F.batch_norm_apply(part, merged, gamma, beta, weights=w) for part, w in zip(parts, wparts)]
    sums = [F.batch_norm_backward_reduce(dpart, part_saved) for dpart, (_, part_saved) in zip(dparts, applied)]
    total = F.Sums(sum(s.g for s in sums), sum(s.gd for s in sums))
    dxs = [F.batch_norm_backward_apply(dpart, part_saved, total) for dpart, (_, part_saved) in zip(dparts, applied)]

    assert_close(np.concatenate([part_y for part_y, _ in applied]), y, "elementwise")
    assert_close(np.concatenate(dxs), dx, "reduction")
    assert_close(total.g, dbeta, "reduction")
    assert_close(total.gd * saved.inv_std, dgamma, "reduction")


@pytest.mark.parametrize("empty", [[0], [3], [0, 1, 3], [0, 1, 2, 3]])
def test_empty_parts_count_nothing(rng, empty):
    """Wherever they are, in front too; of nothing but empty parts all is 0."""
    x = rng.normal(3, 2, (8, 2))
    parts = [np.empty((0, 2)) if i in empty else x[2 * i : 2 * i + 2] for i in range(4)]
    rows = np.concatenate(parts)
    for weighted in (False, True):
        mean, m2, count = F.merge_stats(F.batch_norm_stats(part, np.ones(len(part)) if weighted else None) for part in parts)
        assert count == len(rows)
        wanted = rows.mean(axis=0) if len(rows) else np.zeros(2)
        assert_close(mean, wanted, "reduction")
        assert_close(m2, ((rows - wanted) ** 2).sum(axis=0), "reduction")


def test_statistics_of_parts(rng):
    x = rng.normal(1e4, 1, (100, 3))
    mean, m2, count = F.merge_stats(F.batch_norm_stats(part) for part in np.array_split(x, 7))
    near = x - 1e4
    assert count == 100
    assert_close(mean - 1e4, near.mean(axis=0), "training")
    assert_close(m2, ((near - near.mean(axis=0)) ** 2).sum(axis=0), "reduction")
    with pytest.raises(ArgumentError, match="no parts"):
        F.merge_stats([])


# ---------------------------------------------------------------------------------- numbers beyond the range of float32


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_factors_beyond_float32_times_0_are_0(backend, corrected, train):
    """Of a channel with almost no variance: where x is the mean, y is beta, and dx follows dy; never NaN, as infinity times 0 is."""
    tiny = np.float32(1e-24)
    x = np.array([[-tiny], [0], [tiny]], np.float32)
    dy = np.array([[-1], [0], [1]], np.float32)
    gamma, beta = np.full(1, 1e18, np.float32), np.full(1, 7, np.float32)
    constants = {} if train else {"mean": np.zeros(1, np.float32), "var": np.zeros(1, np.float32)}
    correction = F.Correction(np.ones(1), np.zeros(1)) if corrected else None
    y, saved = F.batch_norm_forward(x, gamma, beta, eps=1e-42, correction=correction, backend=backend, **constants)
    dx, dgamma, dbeta = F.batch_norm_backward(dy, saved)
    assert saved.scale[0] > np.finfo(np.float32).max  # and c, which dx takes times x - mean, too
    assert y[1, 0] == 7
    assert dx[1, 0] == 0
    assert np.isfinite(y).all()
    assert np.isfinite(dgamma).all()
    assert dbeta[0] == 0


@pytest.mark.parametrize(("rows", "channels", "columns"), [(0, 5, 1), (3, 5, 1), (100_000, 64, 1), (4096, 3, 32)])
def test_scratch_has_three_rows_for_each_chunk(rows, channels, columns):
    """Kernels cut rows by the numbers that they hold; with too little scratch they would write past its end."""
    wanted = chunks.count(max(rows, 1), channels * columns)
    assert partials(nb.get_backend("serial"), rows, channels, columns).shape == (wanted, 3, channels)
    assert (wanted > 1) == (rows > 3)
