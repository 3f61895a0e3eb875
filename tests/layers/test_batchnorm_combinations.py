"""Batch norm: options, weights and tools that meet each other. The gradients of all pairs of options are in test_batchnorm.py."""

import itertools

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError

BACKENDS = ["numpy", "serial", "parallel"]


def built(shape, backend="serial", **options):
    layer = nb.BatchNorm(**options)
    layer.build(shape, backend=backend, dtype="float64")
    return layer


# ------------------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("kind", ["examples", "places", "of x's rank", "of each element"])
def test_a_mask_on_every_axis(rng, backend, axis, kind):
    """What it hides might as well not be there, whichever axis has the channels; both passes, and the moving statistics.

    Of x's rank, the mask has x's axes; of a lower rank, those of x without the channels' and the last ones that it lacks.
    """
    shape = (5, 2, 3, 4)
    x, dy = rng.normal(3, 2, shape), rng.standard_normal(shape)
    channels = axis % 4
    if kind == "of each element":
        full = rng.random(shape) < 0.7
        full[:2] = True
        mask = full
    else:
        places = rng.random(tuple(n for i, n in enumerate(shape) if i != channels)) < 0.6
        places[0] = True
        mask = places
        if kind == "examples":
            mask = np.array([True, True, False, True, False])
            places = np.broadcast_to(mask[:, None, None], places.shape)
        if kind == "of x's rank":
            mask = np.expand_dims(places, channels)
        full = np.broadcast_to(np.expand_dims(places, channels), shape)
    layer = built(shape[1:], backend, axis=axis, decay=0.5)
    y, saved = layer.forward(x, train=True, weights=mask)
    dx = layer.backward(np.where(full, dy, 0), saved)
    for c in range(shape[channels]):
        where = full.take(c, channels)
        alone = built((1,), backend, decay=0.5)
        wanted, wanted_saved = alone.forward(x.take(c, channels)[where][:, None], train=True)
        assert_close(y.take(c, channels)[where], wanted[:, 0], "reduction")
        assert_close(dx.take(c, channels)[where], alone.backward(dy.take(c, channels)[where][:, None], wanted_saved)[:, 0], "reduction")
        assert not dx.take(c, channels)[~where].any()
        for name in ("moving_mean", "moving_var"):
            assert_close(layer.buffers[name][c], alone.buffers[name][0], "reduction")
        for name in ("gamma", "beta"):
            assert_close(layer.params[name].grad[c], alone.params[name].grad[0], "reduction")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wrong", [-1e-30, -1.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_weights_that_are_no_weights(rng, backend, wrong, place):
    """One of them, first or last, is enough; nothing has changed."""
    x, weights = rng.standard_normal((8, 3)), np.ones(8)
    weights[place] = wrong
    layer = built((3,), backend)
    before = {name: array.tobytes() for name, array in layer.buffers.items()}
    for call in (
        lambda: layer.forward(x, train=True, weights=weights),
        lambda: nb.functional.batch_norm_stats(x, weights, backend=backend),
        lambda: nb.functional.batch_norm_forward(x, None, None, weights=weights, backend=backend),
    ):
        with pytest.raises(ArgumentError, match="got weights that are negative or not finite, expected finite weights of at least 0"):
            call()
    assert {name: array.tobytes() for name, array in layer.buffers.items()} == before


def test_ghost_batches_with_a_mask(rng):
    """Each group has its own rows of the mask."""
    x, mask = rng.normal(2, 3, (8, 3)), np.array([1, 1, 0, 1, 0, 1, 1, 1], bool)
    for groups, rows in (("contiguous", [range(4), range(4, 8)]), ("strided", [range(0, 8, 2), range(1, 8, 2)])):
        layer = built((3,), virtual_batch_size=4, groups=groups, decay=0, unbiased=False)
        y, _ = layer.forward(x, train=True, weights=mask)
        for group in map(list, rows):
            seen = x[group][mask[group]]
            assert_close(y[group], (x[group] - seen.mean(axis=0)) / np.sqrt(seen.var(axis=0) + 1e-5), "reduction")
        assert_close(layer.buffers["moving_mean"], x[mask].mean(axis=0), "reduction")
        assert_close(layer.buffers["moving_var"], x[mask].var(axis=0), "reduction")


# --------------------------------------------------------------------------------------------------- moving statistics


@pytest.mark.parametrize("zero_debias", [False, "mean", True])
@pytest.mark.parametrize("track", ["variance", "deviation"])
@pytest.mark.parametrize("trained", [0, 3])
def test_recalibration_and_what_comes_after(rng, zero_debias, track, trained):
    """It sets the statistics of the data; the next update goes on from them, whatever was before."""
    x, later = rng.normal(4, 3, (40, 3)), rng.normal(-1, 2, (16, 3))
    layer = nb.BatchNorm(decay=0.75, zero_debias=zero_debias, track=track)
    model = nb.Sequential([layer])
    model.build((3,), backend="serial", dtype="float64")
    for _ in range(trained):
        model.forward(rng.normal(50, 9, (8, 3)), train=True)
    nb.recalibrate(model, x, batch_size=7)
    mean, var = x.mean(axis=0), x.var(axis=0, ddof=1)
    y = model.predict(x)
    assert_close(y, (x - mean) / np.sqrt(var + layer.eps), "reduction")
    model.forward(later, train=True)
    mean = 0.75 * mean + 0.25 * later.mean(axis=0)
    after = later.var(axis=0, ddof=1)
    if track == "variance":
        scale = np.sqrt(0.75 * var + 0.25 * after + layer.eps)
    else:
        scale = 0.75 * np.sqrt(var + layer.eps) + 0.25 * np.sqrt(after + layer.eps)
    assert_close(model.predict(x), (x - mean) / scale, "reduction")


@pytest.mark.parametrize("zero_debias", [False, "mean", True])
@pytest.mark.parametrize("track", ["variance", "deviation"])
def test_decay_1_never_divides_by_0(rng, zero_debias, track):
    """The average does not move; with zero_debias, which has no average yet, the last batch stands in for it."""
    initial = 4.0 if track == "variance" else 1.0
    layer = built((3,), decay=1, zero_debias=zero_debias, track=track, initial_var=initial, unbiased=False)
    for i in range(3):
        x = rng.normal(i, 2, (8, 3))
        layer.forward(x, train=True)
    mean = x.mean(axis=0) if zero_debias else np.zeros(3)
    if zero_debias is True:
        spread = np.sqrt(x.var(axis=0) + layer.eps)
    else:
        spread = np.sqrt(4 + layer.eps) if track == "variance" else 1.0
    assert_close(layer.forward(x)[0], (x - mean) / spread, "reduction")


@pytest.mark.parametrize("options", [{}, {"groups": "strided"}, {"group_variance": "mean"}])
def test_ghost_batches_and_an_observer(rng, options):
    """It sees the whole batch in one piece, in training and in evaluation, and evaluation does not move anything."""
    x, seen = rng.normal(4, 3, (8, 3)), []
    layer = built((3,), virtual_batch_size=4, **options)
    before = {name: array.tobytes() for name, array in layer.buffers.items()}
    layer.observer = seen.append
    layer.forward(x)
    assert {name: array.tobytes() for name, array in layer.buffers.items()} == before
    layer.forward(x, train=True)
    assert {name: array.tobytes() for name, array in layer.buffers.items()} != before
    for stats in seen:
        assert stats.count == 8
        assert_close(stats.mean, x.mean(axis=0), "reduction")
        assert_close(stats.variance(), x.var(axis=0), "reduction")
    assert len(seen) == 2


KINDS = [{"virtual_batch_size": 4}, {"renorm": nb.Renorm(rmax=1.1, dmax=0.1)}, {"update": "deferred"}, {"axis": 1}]


@pytest.mark.parametrize("options", KINDS)
def test_recalibration_of_every_kind(rng, options):
    """The exact statistics of all rows, in batches of any size."""
    x = rng.normal(4, 3, (22, 3, 3))
    for batch_size in (5, 7, 22):
        model = nb.Sequential([nb.BatchNorm(**options)])
        model.build((3, 3), backend="serial", dtype="float64")
        nb.recalibrate(model, x, batch_size=batch_size)
        axes = (0, 2) if "axis" in options else (0, 1)
        buffers = model.layers[0].buffers
        assert_close(buffers["moving_mean"], x.mean(axis=axes), "reduction")
        assert_close(buffers["moving_var"], x.var(axis=axes, ddof=1), "reduction")
        assert model.layers[0].observer is None


# ----------------------------------------------------------------------------------------------------------- switches


@pytest.mark.parametrize("how", ["trainable", "freeze"])
@pytest.mark.parametrize("rebuilt", [False, True])
def test_what_is_frozen_before_build_stays_frozen(rng, how, rebuilt):
    """And learns again when it is set free."""
    layer = nb.BatchNorm()
    if how == "freeze":
        layer.freeze()
    else:
        layer.trainable = False
    model = nb.Sequential([nb.Dense(4), layer, nb.Dense(2)])
    for rebuild in [False, True] if rebuilt else [False]:
        model.build((3,), backend="serial", rebuild=rebuild)
    assert not any(param.trainable for param in layer.params.values())
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.5))
    x, y = rng.standard_normal((8, 3), dtype=np.float32), np.arange(8) % 2
    before = {name: array.copy() for name, array in model.state().items()}
    trainer.train_batch(x, y)
    changed = {name for name, array in model.state().items() if not np.array_equal(array, before[name])}
    moved = {"1.batchnorm.moving_mean", "1.batchnorm.moving_var", "1.batchnorm.updates"} if how == "trainable" else set()
    assert changed == {"0.dense.weight", "0.dense.bias", "2.dense.weight", "2.dense.bias"} | moved
    layer.trainable = True
    trainer.train_batch(x, y)
    assert not np.array_equal(layer.params["beta"].value, before["1.batchnorm.beta"])


def test_switches_set_before_build(rng):
    x = rng.normal(3, 2, (8, 3))
    for use, update in itertools.product([True, False], repeat=2):
        layer = nb.BatchNorm(decay=0.5)
        layer.use_batch_statistics, layer.update_statistics = use, update
        layer.build((3,), backend="serial", dtype="float64")
        y, _ = layer.forward(x, train=True)
        assert (abs(y.mean()) < 1e-9) == use
        assert layer.buffers["moving_mean"].any() == update
