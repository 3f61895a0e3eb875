"""Epochs one after the other, and runs that go on after a stop or a failure."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb

from .small import bits, small_trainer


class Stop(nb.callbacks.Callback):
    """Stops each call of fit after so many batches or epochs."""

    def __init__(self, batches=0, epochs=0):
        self.batches, self.epochs, self.left = batches, epochs, batches or epochs

    def count(self, trainer):
        self.left -= 1
        if self.left == 0:
            self.left = self.batches or self.epochs
            trainer.stop("enough")

    def on_batch_end(self, trainer):
        if self.batches:
            self.count(trainer)

    def on_epoch_end(self, trainer):
        if self.epochs:
            self.count(trainer)


def orders(seed, epochs, rows=12, callbacks=(), calls=1):
    """The numbers of the rows in the order in which training takes them, one list per epoch."""
    seen = []

    def loss(prediction, target, *, rows=None, backend="parallel"):
        seen.extend(target.tolist())
        return nb.losses.mean_squared_error(prediction, np.zeros_like(prediction), rows=rows, backend=backend)

    model = nb.Sequential([nb.Dense(1)])
    model.build((2,), backend="numpy")
    trainer = nb.Trainer(model, loss, nb.SGD(1e-3), seed=seed)
    for _ in range(calls):
        trainer.fit((np.ones((rows, 2), np.float32), np.arange(rows)), epochs, 4, callbacks=callbacks)
    return np.array(seen).reshape(-1, rows).tolist()


def test_each_epoch_has_an_order_of_its_own():
    first = orders(seed=3, epochs=4)
    assert all(sorted(order) == list(range(12)) for order in first)
    assert len({tuple(order) for order in first} | {tuple(range(12))}) == 5
    assert orders(seed=3, epochs=4) == first
    assert not any(order in first for order in orders(seed=4, epochs=4))


@pytest.mark.parametrize("stop", [{"batches": 1}, {"batches": 2}, {"batches": 3}, {"epochs": 1}])
def test_the_order_of_a_run_that_stops_again_and_again(stop):
    assert orders(seed=3, epochs=4, callbacks=[Stop(**stop)], calls=12 // stop.get("batches", 3)) == orders(seed=3, epochs=4)


@pytest.mark.parametrize("stop", [{"batches": 1}, {"batches": 2}, {"batches": 5}, {"epochs": 1}])
def test_a_fit_after_a_stop_goes_on(data, stop):
    """To the end, with the bits of a run that did not stop; the reason of the stop is then gone."""
    whole, trainer = small_trainer(), small_trainer()
    whole.fit(data, epochs=3, batch_size=16)
    trainer.fit(data, epochs=3, batch_size=16, callbacks=[Stop(**stop)])
    assert trainer.step == (stop.get("batches") or 5)
    assert trainer.stop_reason == "enough"
    trainer.fit(data, epochs=3, batch_size=16)
    assert (trainer.step, trainer.epoch, trainer.stop_reason) == (15, 3, None)
    assert bits(trainer) == bits(whole)
    for key in ("loss", "accuracy", "lr"):
        assert trainer.history[key] == whole.history[key]


def test_a_stop_at_the_last_batch_still_closes_the_epoch(data):
    trainer = small_trainer()
    history = trainer.fit(data, epochs=3, batch_size=16, callbacks=[Stop(batches=5)])
    assert (trainer.epoch, trainer.step, len(history["loss"])) == (1, 5, 1)
    assert trainer.position.batches == 0


def test_a_stop_before_fit_does_not_count(data):
    trainer = small_trainer()
    trainer.stop("too early")
    assert len(trainer.fit(data, epochs=2)["loss"]) == 2


def test_early_stopping_stops_each_fit_after_one_more_epoch(data):
    trainer = small_trainer(optimizer=nb.SGD(1e-12))
    stopping = nb.callbacks.EarlyStopping("loss", patience=1, min_delta=10)
    for epochs in (2, 3, 4):
        trainer.fit(data, epochs=9, callbacks=[stopping])
        assert trainer.epoch == epochs


# ------------------------------------------------------------------------------------------------ failures of a loss


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [1, 2, 5, 6])
def test_a_loss_that_fails_leaves_no_deferred_update(rng, accumulate, error, call):
    """The next step works, and has the bits of a run without the failure."""
    x, y = rng.standard_normal((12, 4)), rng.integers(0, 3, 12)

    def trained(fails):
        calls = []

        def loss(prediction, target, *, rows=None, backend="parallel"):
            calls.append(1)
            if len(calls) == fails:
                raise error("the loss fails")
            return nb.losses.softmax_cross_entropy(prediction, target, rows=rows, backend=backend)

        layers = [nb.BatchNorm(update="deferred"), nb.Residual([nb.BatchNorm(update="deferred")]), nb.Dense(3)]
        model = nb.Sequential(layers)
        model.build((4,), backend="serial", dtype="float64")
        trainer = nb.Trainer(model, loss, nb.SGD(0.1), accumulate=accumulate)
        steps = 0
        while steps < 6:
            before = bits(trainer)
            try:
                trainer.train_batch(x, y)
                steps += 1
            except error:
                assert bits(trainer) == before
                assert trainer.step == steps
                fails = None
        assert not model.waiting_updates() or all(call.args[-1] is None for call in model.waiting_updates())
        return bits(trainer)

    assert trained(fails=call) == trained(fails=None)


# ------------------------------------------------------------------------------------------------------ combinations


def regression(layers, inputs, loss="mean_squared_error", **options):
    model = nb.Sequential(layers)
    model.build((inputs,), backend="serial", dtype="float64")
    options.setdefault("optimizer", nb.SGD(1.0))
    return nb.Trainer(model, loss, **options)


@pytest.mark.parametrize("loss", ["mean_squared_error", "sum_squared_error"])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 5])
def test_a_step_of_regression_on_several_outputs(rng, loss, accumulate):
    """Loss and gradient as in NumPy: rows are averaged, the outputs of a row averaged or summed."""
    x, y = rng.standard_normal((11, 4)), rng.standard_normal((11, 3))
    trainer = regression([nb.Dense(3)], 4, loss, accumulate=accumulate)
    weight, bias = (trainer.model.params[f"0.dense.{name}"].value.copy() for name in ("weight", "bias"))
    error = x @ weight + bias - y
    metrics = trainer.train_batch(x, y)
    per_row = (error**2).mean(axis=1) if loss == "mean_squared_error" else (error**2).sum(axis=1)
    dy = 2 * error / 11 / (3 if loss == "mean_squared_error" else 1)
    assert list(metrics) == ["loss"]
    assert_close(metrics["loss"], per_row.mean(), "reduction")
    assert_close(trainer.model.params["0.dense.weight"].value, weight - x.T @ dy, "reduction")
    assert_close(trainer.model.params["0.dense.bias"].value, bias - dy.sum(axis=0), "reduction")


def test_an_epoch_of_regression_on_several_outputs(rng):
    """The history has the mean over the rows, also where the last batch is smaller, and in evaluation."""
    x, y = rng.standard_normal((23, 4)), rng.standard_normal((23, 3))
    trainer = regression([nb.Dense(3)], 4, optimizer=nb.SGD(1e-300), accumulate=2)
    history = trainer.fit((x, y), epochs=1, batch_size=8, validation=(x[:9], y[:9]))
    per_row = ((trainer.model.predict(x) - y) ** 2).mean(axis=1)
    assert list(history) == ["loss", "val_loss", "lr", "seconds"]
    assert_close(history["loss"][0], per_row.mean(), "reduction")
    assert_close(history["val_loss"][0], per_row[:9].mean(), "reduction")
    assert_close(trainer.evaluate(x, y, batch_size=4)["loss"], per_row.mean(), "reduction")


def gradients(trainer):
    return {name: param.grad.copy() for name, param in trainer.model.params.items()}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("frozen", [(), ("0.dense.weight",), ("0.dense.weight", "2.dense.bias")])
def test_frozen_gradients_do_not_count_in_the_clip_norm(rng, frozen, accumulate):
    x, y = 20 * rng.standard_normal((12, 4)), rng.standard_normal((12, 3))
    runs = []
    for limit in (None, 0.5):
        trainer = regression([nb.Dense(5), nb.Tanh(), nb.Dense(3)], 4, clip_norm=limit, accumulate=accumulate)
        for name in frozen:
            trainer.model.params[name].trainable = False
        before = {name: param.value.copy() for name, param in trainer.model.params.items()}
        trainer.train_batch(x, y)
        runs.append(gradients(trainer))
    norm = np.sqrt(sum((grad**2).sum() for name, grad in runs[0].items() if name not in frozen))
    assert norm > 0.5
    for name, grad in runs[0].items():
        if name in frozen:
            assert_close(trainer.model.params[name].value, before[name], "exact")
        else:
            assert_close(runs[1][name], grad * (0.5 / norm), "reduction")
            assert_close(trainer.model.params[name].value, before[name] - grad * (0.5 / norm), "reduction")


def test_a_norm_at_its_limit_is_not_clipped():
    """Of gradients 3 and 4, whose norm is exactly 5."""
    for limit, wanted in ((5, [3, 4]), (8, [3, 4]), (2.5, [1.5, 2])):
        trainer = regression([nb.Dense(2, use_bias=False)], 1, "sum_squared_error", clip_norm=limit)
        trainer.model.params["0.dense.weight"].value[:] = [[1.5, 2]]
        trainer.train_batch(np.ones((1, 1)), np.zeros((1, 2)))
        assert gradients(trainer)["0.dense.weight"].tolist() == [wanted]


def test_gradients_of_0_are_not_clipped():
    trainer = regression([nb.Dense(2, use_bias=False)], 1, clip_norm=1.0)
    trainer.model.params["0.dense.weight"].value[:] = 0
    trainer.train_batch(np.ones((2, 1)), np.zeros((2, 2)))
    assert not gradients(trainer)["0.dense.weight"].any()


def test_a_regularizer_counts_in_the_clip_norm_once(rng):
    """Also where the batch is cut into parts."""
    x, y = rng.standard_normal((12, 4)), rng.standard_normal((12, 3))
    for accumulate in (1, 3):
        trainer = regression([nb.Dense(3)], 4, accumulate=accumulate, clip_norm=1.0)
        trainer.model.params["0.dense.weight"].regularizer = nb.regularizers.l2(50.0)
        plain = regression([nb.Dense(3)], 4, accumulate=accumulate)
        extra = 2 * 50.0 * trainer.model.params["0.dense.weight"].value
        trainer.train_batch(x, y)
        plain.train_batch(x, y)
        wanted = gradients(plain)
        wanted["0.dense.weight"] = wanted["0.dense.weight"] + extra
        norm = np.sqrt(sum((grad**2).sum() for grad in wanted.values()))
        for name, grad in gradients(trainer).items():
            assert_close(grad, wanted[name] / norm, "reduction")


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
def test_a_rate_of_0_in_a_step(optimizer, backend):
    """Not the optimiser's own rate: the values stay, weight decay or not, and the state goes on."""
    model = nb.Sequential([nb.Dense(3)])
    model.build((4,), backend=backend)
    made = nb.optimizers.OPTIMIZERS[optimizer](0.5, weight_decay=0.1)
    before = {name: param.value.tobytes() for name, param in model.params.items()}
    for param in model.params.values():
        param.grad[:] = 1
    made.step(model.params, model.backend, 0)
    assert {name: param.value.tobytes() for name, param in model.params.items()} == before
    assert made.steps == 1
    made.step(model.params, model.backend)
    assert {name: param.value.tobytes() for name, param in model.params.items()} != before
