"""The batch-norm layer's moving statistics, and the switches that say when they are used and when they follow."""

import itertools

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import BuildError, NonFiniteError


def trained(layer, batches):
    layer.build(batches[0].shape[1:], backend="serial", dtype="float64")
    for x in batches:
        layer.forward(x, train=True)
    return layer


@pytest.fixture
def batches(rng):
    return [rng.normal(3 + i, 1 + i, (8, 4)) for i in range(5)]


def test_cumulative_average_is_the_mean_of_all(batches):
    layer = trained(nb.BatchNorm(decay=None), batches)
    assert_close(layer.buffers["moving_mean"], np.mean([x.mean(axis=0) for x in batches], axis=0), "reduction")
    assert_close(layer.buffers["moving_var"], np.mean([x.var(axis=0, ddof=1) for x in batches], axis=0), "reduction")


def test_zero_debias_is_right_from_the_first_batch(rng):
    """Constant statistics are known exactly after one batch, whatever the decay."""
    x = rng.normal(7, 10, (50, 3))
    for steps in (1, 5):
        layer = trained(nb.BatchNorm(decay=0.999, zero_debias=True), [x] * steps)
        assert_close(layer.buffers["moving_mean"], x.mean(axis=0), "reduction")
        assert_close(layer.buffers["moving_var"], x.var(axis=0, ddof=1), "reduction")


@pytest.mark.parametrize("zero_debias", [True, "mean"])
def test_zero_debias_that_never_moves(batches, zero_debias):
    """With decay 1 there is no average: evaluation is by the last batch, not by 0 / 0."""
    layer = trained(nb.BatchNorm(decay=1.0, zero_debias=zero_debias), batches)
    assert_close(layer.buffers["moving_mean"], batches[-1].mean(axis=0), "reduction")
    var = batches[-1].var(axis=0, ddof=1) if zero_debias is True else np.ones(4)
    assert_close(layer.buffers["moving_var"], var, "reduction")
    assert np.isfinite(layer.forward(batches[0])[0]).all()


def test_tensorflows_zero_debias_leaves_the_variance_behind():
    """semantics: with decay 0.999 and variance 100, the moving variance reads 10.4 after 100 steps."""
    x = np.array([[-10.0], [10.0]])
    layer = trained(nb.BatchNorm(decay=0.999, zero_debias="mean", unbiased=False), [x] * 100)
    assert_close(layer.buffers["moving_var"], np.array([0.999**100 + 100 * (1 - 0.999**100)]), "reduction")
    assert 10.4 < layer.buffers["moving_var"][0] < 10.5
    assert_close(layer.buffers["moving_mean"], np.zeros(1), "reduction")


def test_warm_decay(batches):
    layer = trained(nb.BatchNorm(decay=0.25, warm_decay=True), batches)
    mean = np.zeros(4)
    for t, x in enumerate(batches):
        d = min(0.25, (1 + t) / (10 + t))
        mean = d * mean + (1 - d) * x.mean(axis=0)
    assert_close(layer.buffers["moving_mean"], mean, "reduction")


def test_deviation_is_divided_by_without_eps(batches):
    layer = trained(nb.BatchNorm.preset("sigma"), batches)
    mean, sigma = np.zeros(4), np.ones(4)
    for x in batches:
        mean = 0.9 * mean + 0.1 * x.mean(axis=0)
        sigma = 0.9 * sigma + 0.1 * np.sqrt(x.var(axis=0, ddof=1) + 1e-6)
    assert_close(layer.buffers["moving_std"], sigma, "reduction")
    assert_close(layer.forward(batches[0])[0], (batches[0] - mean) / sigma, "reduction")


def test_ghost_batches_and_what_their_variance_misses():
    """Clustered data: the mean of the groups' variances misses what lies between them, the pooled variance has it."""
    x = np.array([0.0, 1, 0, 1, 10, 11, 10, 11])[:, None]
    mean = trained(nb.BatchNorm(decay=0, unbiased=False, virtual_batch_size=4, group_variance="mean"), [x])
    pooled = trained(nb.BatchNorm(decay=0, unbiased=False, virtual_batch_size=4), [x])
    strided = trained(nb.BatchNorm(decay=0, unbiased=False, virtual_batch_size=4, groups="strided", group_variance="mean"), [x])
    assert_close(mean.buffers["moving_var"], np.array([0.25]), "elementwise")
    assert_close(pooled.buffers["moving_var"], x.var(axis=0), "elementwise")
    assert_close(strided.buffers["moving_var"], np.array([25.0]), "elementwise")
    y, _ = strided.forward(x, train=True)
    for group in ({0, 2, 4, 6}, {1, 3, 5, 7}):
        rows = sorted(group)
        assert_close(y[rows], (x[rows] - x[rows].mean()) / np.sqrt(25 + 1e-5), "elementwise")


@pytest.mark.parametrize("value", [0.5, 1e8, np.nan, np.inf], ids=str)
@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
def test_a_mask_is_as_if_the_rows_were_not_there(rng, backend, activation, axis, value):
    """Whatever they hold, on every axis, and whether or not the mask has the axis of the channels."""
    shape = [4, 5, 6]
    mask = rng.random(shape) < 0.6
    mask[0, 0, 0] = False
    shape.insert(axis, 3)
    x, dy = (np.moveaxis(rng.standard_normal(shape), axis, -1) for _ in range(2))
    alone = nb.BatchNorm(activation=activation)
    alone.build((3,), backend=backend, dtype="float64")
    wanted, wanted_saved = alone.forward(x[mask], train=True)
    wanted_dx = alone.backward(dy[mask], wanted_saved)
    x[~mask], dy[~mask] = value, 0
    for weights in (mask, np.expand_dims(mask, axis)):
        masked = nb.BatchNorm(axis=axis, activation=activation)
        masked.build(tuple(shape[1:]), backend=backend, dtype="float64")
        y, saved = masked.forward(np.moveaxis(x, -1, axis), train=True, weights=weights)
        dx = np.moveaxis(masked.backward(np.moveaxis(dy, -1, axis), saved), axis, -1)
        assert_close(np.moveaxis(y, axis, -1)[mask], wanted, "reduction")
        assert_close(dx[mask], wanted_dx, "reduction")
        assert not dx[~mask].any()
        for name in ("moving_mean", "moving_var"):
            assert_close(masked.buffers[name], alone.buffers[name], "reduction")
        for name, param in masked.params.items():
            assert_close(param.grad, alone.params[name].grad, "reduction")


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
def test_a_mask_holds_under_moving_statistics(rng, backend):
    """Also in the gradients of gamma and beta."""
    x, dy, mask = rng.standard_normal((8, 3)), rng.standard_normal((8, 3)), np.arange(8) % 3 > 0
    x[~mask], dy[~mask] = np.nan, 0
    masked, alone = (nb.BatchNorm() for _ in range(2))
    for layer, rows, weights in ((masked, slice(None), mask), (alone, mask, None)):
        layer.build((3,), backend=backend, dtype="float64")
        layer.use_batch_statistics = False
        _, saved = layer.forward(x[rows], train=True, weights=weights)
        layer.backward(dy[rows], saved)
    for name, param in masked.params.items():
        assert_close(param.grad, alone.params[name].grad, "reduction")


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 5), (1, 5), (4, 5, 1), (4, 5, 6), (4, 1, 6, 1), (4, 5, 6, 3), (1, 1, 1, 3)])
def test_weights_of_any_broadcastable_shape(rng, shape, axis):
    """The shapes are those of channels on the last axis: weights of x's rank have them where x has them."""
    x, weights = rng.standard_normal((4, 5, 6, 3)), rng.random(shape)
    full = weights if weights.ndim == 4 else weights.reshape(weights.shape + (1,) * (4 - weights.ndim))
    mean, var = nb.functional.moments(x, (0, 1, 2), weights=np.broadcast_to(full, x.shape))
    layer = nb.BatchNorm(decay=0, unbiased=False, axis=axis)
    x = np.moveaxis(x, -1, axis)
    layer.build(x.shape[1:], backend="serial", dtype="float64")
    layer.forward(x, train=True, weights=np.moveaxis(weights, -1, axis) if weights.ndim == 4 else weights)
    assert_close(layer.buffers["moving_mean"], mean, "reduction")
    assert_close(layer.buffers["moving_var"], var, "reduction")


def test_renorm_without_bounds_is_evaluation(batches):
    """With free r and k, training normalises exactly as evaluation does with the moving values before the update."""
    layer = trained(nb.BatchNorm(renorm=nb.Renorm(), unbiased=False), batches)
    wanted, _ = layer.forward(batches[2])
    y, _ = layer.forward(batches[2], train=True)
    assert_close(y, wanted, "reduction")


def test_renorm_schedule():
    schedule = nb.Renorm.warm_up()
    assert schedule.bounds(0) == (1, 1, 0)
    assert schedule.bounds(5000) == (1, 1, 0)
    assert schedule.bounds(25000)[2] == 5
    assert schedule.bounds(10**6) == (1 / 3, 3, 5)


# ---------------------------------------------------------------------------------------------------- switches


def test_the_three_switches_are_separate(batches):
    x = batches[1]
    for use, update, train in itertools.product([True, False], repeat=3):
        layer = trained(nb.BatchNorm(), batches[:1])
        layer.use_batch_statistics, layer.update_statistics, layer.trainable = use, update, train
        before = {name: array.copy() for name, array in layer.buffers.items()}
        evaluated, _ = layer.forward(x)
        y, _ = layer.forward(x, train=True)
        by_batch = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
        assert_close(y, by_batch if use else evaluated, "reduction")
        changed = any(not np.array_equal(before[name], array) for name, array in layer.buffers.items())
        assert changed == update
        assert all(param.trainable == train for param in layer.params.values())


def test_an_update_does_not_reach_the_gradients_of_the_moving_mean_before_it(batches):
    """The moving mean that a batch was normalised by moves on in the same forward; backward still means the old one."""
    grads = []
    for update in (False, True):
        layer = trained(nb.BatchNorm(decay=0.5), batches[:1])
        layer.use_batch_statistics, layer.update_statistics = False, update
        _, saved = layer.forward(batches[1] + 3, train=True)
        layer.backward(batches[0], saved)
        grads.append(layer.params["gamma"].grad.copy())
    assert_close(grads[1], grads[0], "exact")


def test_freeze_is_keras_trainable_false(batches):
    layer = trained(nb.BatchNorm(), batches)
    model = nb.Sequential([layer, nb.Dense(2)])
    model.build((4,), backend="serial", dtype="float64")
    layer.freeze()
    buffers = {name: array.copy() for name, array in layer.buffers.items()}
    values = {name: param.value.copy() for name, param in layer.params.items()}
    nb.Trainer(model, optimizer=nb.SGD(0.1)).train_batch(batches[0], np.arange(8) % 2)
    assert all(np.array_equal(values[name], param.value) for name, param in layer.params.items())
    assert all(np.array_equal(buffers[name], array) for name, array in layer.buffers.items())
    layer.unfreeze()
    nb.Trainer(model, optimizer=nb.SGD(0.1)).train_batch(batches[0], np.arange(8) % 2)
    assert not np.array_equal(values["beta"], layer.params["beta"].value)


def test_a_forgotten_update_is_an_error(batches):
    layer = trained(nb.BatchNorm(update="deferred"), [batches[0]])
    assert not layer.buffers["moving_mean"].any()
    for train in (True, False):
        with pytest.raises(BuildError, match=r"call apply_updates\(\) after each training step"):
            layer.forward(batches[0], train=train)
    layer.apply_updates()
    inline = trained(nb.BatchNorm(), [batches[0]])
    assert all(np.array_equal(inline.buffers[name], array) for name, array in layer.buffers.items())


def test_the_trainer_applies_deferred_updates(batches):
    states = []
    for update in ("inline", "deferred"):
        model = nb.Sequential([nb.BatchNorm(update=update), nb.Residual([nb.BatchNorm(update=update)]), nb.Dense(2)])
        model.build((4,), backend="serial", dtype="float64")
        trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
        for x in batches:
            trainer.train_batch(x, np.arange(8) % 2)
        states.append({name: array.tobytes() for name, array in model.state().items()})
    assert states[0] == states[1]


def test_a_failed_step_leaves_no_deferred_update(batches):
    model = nb.Sequential([nb.BatchNorm(update="deferred"), nb.Dense(2)])
    model.build((4,), backend="serial", dtype="float64")
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
    model.params["1.dense.weight"].value[:] = np.inf
    before = {name: array.copy() for name, array in model.buffers.items()}
    with pytest.raises(NonFiniteError, match=r"the parameters of layer 1\.dense are not finite"):
        trainer.train_batch(batches[0], np.arange(8) % 2)
    assert all(np.array_equal(before[name], array) for name, array in model.buffers.items())
    model.params["1.dense.weight"].value[:] = 1
    trainer.train_batch(batches[0], np.arange(8) % 2)


def test_regularizers_change_the_gradient_alone(batches):
    model = nb.Sequential([nb.BatchNorm(gamma_regularizer=nb.regularizers.l2(0.1), beta_regularizer=nb.regularizers.l1(0.2)), nb.Dense(2)])
    model.build((4,), backend="serial", dtype="float64")
    model.params["0.batchnorm.beta"].value[:] = [1, -1, 2, 0]
    plain = nb.Sequential([nb.BatchNorm(), nb.Dense(2)])
    plain.build((4,), backend="serial", dtype="float64")
    plain.params["0.batchnorm.beta"].value[:] = [1, -1, 2, 0]
    losses = [nb.Trainer(m, optimizer=nb.SGD(1e-9)).train_batch(batches[0], np.arange(8) % 2)["loss"] for m in (model, plain)]
    assert losses[0] == losses[1]
    for name, extra in (("gamma", np.full(4, 0.2)), ("beta", 0.2 * np.array([1, -1, 1, 0]))):
        key = f"0.batchnorm.{name}"
        assert_close(model.params[key].grad, plain.params[key].grad + extra, "reduction")
