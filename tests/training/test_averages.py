"""Moving averages of named arrays, and feature scaling."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, CheckpointError, ShapeError

from .small import bits, small_trainer


def test_a_variable_starts_at_its_value_and_a_tensor_at_zero():
    variable, tensor = nb.ExponentialMovingAverage(0.9), nb.ExponentialMovingAverage(0.9)
    for value in (1.0, 2.0, 4.0):
        variable.apply({"a": value})
        tensor.apply({"a": value}, start={"a": 0})
    assert_close(variable.average("a"), np.array(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4), "elementwise")
    assert_close(tensor.average("a"), np.array(0.1 * (0.81 * 1 + 0.9 * 2 + 4)), "elementwise")


def test_num_updates_follows_faster():
    ema, expected = nb.ExponentialMovingAverage(0.9), 5.0
    ema.apply({"a": 5.0}, num_updates=0)
    for t in range(1, 5):
        ema.apply({"a": float(t)}, num_updates=t)
        d = min(0.9, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * t
    assert_close(ema.average("a"), np.array(expected), "elementwise")


def test_zero_debias_is_a_weighted_mean(rng):
    values = rng.normal(3, 1, (6, 2))
    ema = nb.ExponentialMovingAverage(0.99, zero_debias=True)
    for value in values:
        ema.apply({"a": value})
    weights = 0.99 ** np.arange(5, -1, -1)
    assert_close(ema.average("a"), weights @ values / weights.sum(), "reduction")


def test_weights_of_a_model_swap_in_and_out(rng):
    model = nb.Sequential([nb.Dense(3), nb.BatchNorm()])
    model.build((4,), backend="serial")
    ema, seen = nb.ExponentialMovingAverage(0.5), []
    for _ in range(3):
        seen.append(model.params["0.dense.weight"].value.copy())
        ema.apply({name: param.value for name, param in model.params.items()})
        model.params["0.dense.weight"].value += 1
    now = model.params["0.dense.weight"].value.copy()
    expected = 0.25 * seen[0] + 0.25 * seen[1] + 0.5 * seen[2]
    with ema.swapped(model):
        assert_close(model.params["0.dense.weight"].value, expected, "elementwise")
    assert np.array_equal(model.params["0.dense.weight"].value, now)
    assert set(ema.averages()) == set(model.params)


def averaged(**options):
    return small_trainer(average=nb.ExponentialMovingAverage(0.9, **options), schedule="cosine")


@pytest.mark.parametrize("zero_debias", [False, True])
def test_an_average_follows_a_run(data, zero_debias):
    """Of parameters and of buffers that hold floats, once for each step."""
    trainer, expected = averaged(zero_debias=zero_debias), nb.ExponentialMovingAverage(0.9, zero_debias)

    class Look(nb.callbacks.Callback):
        def on_batch_end(self, trainer):
            expected.apply({name: array for name, array in trainer.model.state().items() if array.dtype.kind == "f"})

    trainer.fit(data, epochs=2, batch_size=16, callbacks=[Look()])
    found = trainer.average.averages()
    assert found.keys() == expected.averages().keys()
    assert {"0.conv2d.weight", "1.batchnorm.moving_mean", "1.batchnorm.moving_var"} <= found.keys()
    assert "6.dropout.step" not in found
    for name, array in found.items():
        assert np.array_equal(array, expected.average(name))


def test_nothing_leaks_out_of_a_swap(data):
    trainer = averaged()
    trainer.fit(data, epochs=2)
    model, before = trainer.model, bits(trainer)
    with trainer.average.swapped(model):
        for name in ("7.dense.weight", "1.batchnorm.moving_mean"):
            assert_close(model.state()[name], trainer.average.average(name), "exact")
        nb.recalibrate(model, data[0])
        model.forward(data[0], train=True)
        assert bits(trainer) != before
    assert bits(trainer) == before
    with pytest.raises(ShapeError), trainer.average.swapped(model):
        model.predict(data[0][:, :3])
    assert bits(trainer) == before


@pytest.mark.parametrize("step", [1, 6])
@pytest.mark.parametrize("zero_debias", [False, True])
def test_an_average_is_saved_with_the_run(data, tmp_path, step, zero_debias):
    class Save(nb.callbacks.Callback):
        def on_batch_end(self, trainer):
            if trainer.step == step:
                trainer.save(tmp_path / "run")

    whole, second = averaged(zero_debias=zero_debias), averaged(zero_debias=zero_debias)
    whole.fit(data, epochs=3, batch_size=16, callbacks=[Save()])
    mine = second.average
    second.restore(tmp_path / "run")
    second.fit(data, epochs=3, batch_size=16)
    assert second.average is mine
    for name, array in whole.average.averages().items():
        assert np.array_equal(array, mine.average(name))
    assert bits(second) == bits(whole)


def test_an_exception_before_the_average_is_caught_up(data, monkeypatch):
    """The step has happened, so the average follows it, once."""
    whole, interrupted = averaged(), averaged()
    follow, calls = type(whole.average).follow, []

    def interrupt(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        follow(*args)

    monkeypatch.setattr(type(whole.average), "follow", interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(data, epochs=2, batch_size=16)
    assert interrupted.step == 3
    interrupted.fit(data, epochs=2, batch_size=16)
    whole.fit(data, epochs=2, batch_size=16)
    for name, array in whole.average.averages().items():
        assert np.array_equal(array, interrupted.average.average(name))
    assert bits(whole) == bits(interrupted)


def test_checkpoints_with_and_without_an_average(data, tmp_path):
    with_one, without = averaged(), small_trainer(schedule="cosine")
    with_one.fit(data, epochs=1)
    without.fit(data, epochs=1)
    with_one.save(tmp_path / "with")
    without.save(tmp_path / "without")
    with pytest.raises(CheckpointError, match=r"has one, but this Trainer has no average: make the Trainer with the same average="):
        without.restore(tmp_path / "with")
    with pytest.raises(CheckpointError, match=r"has none, but this Trainer has an average"):
        with_one.restore(tmp_path / "without")
    without.model.load_weights(tmp_path / "with")
    assert np.array_equal(without.model.state()["7.dense.weight"], with_one.model.state()["7.dense.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("remaining.a"), "the state of an average is incomplete"),
        (lambda arrays: arrays.update(other=np.zeros(1)), "'other' is not part of the state of an average"),
        (lambda arrays: arrays.update({"remaining.a": np.array([1.5])}), "'remaining.a' is not part"),
        (lambda arrays: arrays.update({"remaining.a": np.array([np.nan])}), "'remaining.a' is not part"),
        (lambda arrays: arrays.update({"shadow.a": np.zeros(2, np.float32)}), "'shadow.a' is not part"),
    ],
)
def test_a_state_that_is_none(change, message):
    ema = nb.ExponentialMovingAverage(0.9)
    ema.apply({"a": [1.0, 2.0]})
    arrays = {name: array.copy() for name, array in ema.state().items()}
    change(arrays)
    with pytest.raises(ArgumentError, match=message):
        ema.load_state(arrays)
    assert np.array_equal(ema.average("a"), [1, 2])


def test_bad_averages():
    with pytest.raises(ArgumentError, match=r"decay=1\.5"):
        nb.ExponentialMovingAverage(1.5)
    ema = nb.ExponentialMovingAverage(0.9, zero_debias=True)
    with pytest.raises(ArgumentError, match="no average of 'a' yet"):
        ema.average("a")
    with pytest.raises(ArgumentError, match="leave start= out"):
        ema.apply({"a": 1.0}, start={"a": 0.0})
    ema.apply({"a": np.ones(2), "b": 1.0})
    with pytest.raises(ShapeError, match=r"'a' has shape \(3,\)"):
        ema.apply({"b": 9.0, "a": np.ones(3)})
    assert ema.average("b") == 1


def follower(average, **options):
    return small_trainer(average=average, optimizer=nb.SGD(0.05, momentum=0.5), **options)


class Values(nb.callbacks.Callback):
    """The parameters after each step."""

    def __init__(self):
        self.seen = []

    def on_batch_end(self, trainer):
        self.seen.append({name: param.value.copy() for name, param in trainer.model.params.items()})


def test_the_mean_of_weights(data):
    """Of the steps 4, 7 and 10. Inside a swap, batch normalisation is calibrated for it."""
    look, trainer = Values(), follower(nb.StochasticWeightAverage(start=4, every=3))
    trainer.fit(data, epochs=2, batch_size=14, callbacks=[look])
    assert len(look.seen) == trainer.step == 10
    for name in trainer.model.params:
        assert_close(trainer.average.average(name), np.mean([look.seen[step - 1][name] for step in (4, 7, 10)], axis=0), "elementwise")
    before = bits(trainer)
    with trainer.average.swapped(trainer.model):
        nb.recalibrate(trainer.model, data[0])
        assert_close(trainer.model.params["7.dense.weight"].value, trainer.average.average("7.dense.weight"), "exact")
        mean = trainer.model.buffers["1.batchnorm.moving_mean"].copy()
    assert bits(trainer) == before
    for name, param in trainer.model.params.items():
        param.value[...] = trainer.average.average(name)
    nb.recalibrate(trainer.model, data[0])
    assert_close(trainer.model.buffers["1.batchnorm.moving_mean"], mean, "exact")


def test_a_mean_of_no_weights(data):
    trainer = follower(nb.StochasticWeightAverage(start=100))
    trainer.train_batch(*data)
    no_average = pytest.raises(ArgumentError, match=r"^no average of '0\.conv2d\.weight' yet: train until the step `start`$")
    with no_average, trainer.average.swapped(trainer.model):
        pass
    assert trainer.average.averages() == {}
    with pytest.raises(ArgumentError, match="has averages of another run: make a new one"):
        follower(trainer.average)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lookahead_is_the_formula(data, dtype):
    """The steps between two updates are those of the optimiser alone, from the slow weights."""
    look, plain, trainer = Values(), Values(), follower(nb.Lookahead(every=3, weight=0.25), dtype=dtype)
    slow = {name: np.array(param.value, np.float64) for name, param in trainer.model.params.items()}
    alone = small_trainer(optimizer=nb.SGD(0.05, momentum=0.5), dtype=dtype)
    trainer.fit(data, epochs=1, batch_size=9, callbacks=[look])
    for step in range(len(look.seen)):
        alone.fit(data, epochs=1, batch_size=9, callbacks=[plain, Stop()])
        if (step + 1) % 3 == 0:
            for name, param in alone.model.params.items():
                slow[name] += 0.25 * (param.value.astype(np.float64) - slow[name])
                param.value[...] = slow[name]
        for name, param in alone.model.params.items():
            assert_close(look.seen[step][name], param.value, "exact")
    for name, array in slow.items():
        assert_close(trainer.average.average(name), array, "exact")


class Stop(nb.callbacks.Callback):
    def on_batch_end(self, trainer):
        trainer.stop("after one step")


MAKERS = [
    lambda: nb.StochasticWeightAverage(start=2, every=2),
    lambda: nb.StochasticWeightAverage(start=100),
    lambda: nb.Lookahead(every=2),
    lambda: nb.Lookahead(every=5, weight=1),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_they_are_saved_with_the_run(data, tmp_path, make, step):
    class Save(nb.callbacks.Callback):
        def on_batch_end(self, trainer):
            if trainer.step == step:
                trainer.save(tmp_path / "run")

    whole, second = follower(make()), follower(make())
    if step == 0:
        whole.save(tmp_path / "run")
    whole.fit(data, epochs=3, batch_size=16, callbacks=[Save()])
    second.restore(tmp_path / "run")
    second.fit(data, epochs=3, batch_size=16)
    assert bits(whole) == bits(second)
    assert {name: array.tobytes() for name, array in whole.average.state().items()} == {
        name: array.tobytes() for name, array in second.average.state().items()
    }


def test_another_average_of_a_run(data, tmp_path):
    first = follower(nb.Lookahead(every=2))
    first.fit(data, epochs=1)
    first.save(tmp_path / "run")
    with pytest.warns(UserWarning, match=r"settings differ: average stays nb\.Lookahead\(every=3\), was nb.*\(every=2\) in the file$"):
        follower(nb.Lookahead(every=3)).restore(tmp_path / "run")
    for average in (nb.ExponentialMovingAverage(0.9), nb.StochasticWeightAverage()):
        with pytest.raises(
            CheckpointError, match=r"(is not part of the state of an average|is incomplete): expected what state\(\) returned"
        ):
            follower(average).restore(tmp_path / "run")
    state = nb.Lookahead().state()
    for wrong in (-1.0, 0.5, np.nan):
        with pytest.raises(ArgumentError, match=r"'count\.steps' is not part of the state of an average"):
            nb.Lookahead().load_state(state | {"count.steps": np.array([wrong])})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nb.StochasticWeightAverage(0), r"start=0: expected a whole number, at least 1"),
        (lambda: nb.StochasticWeightAverage(every=0), r"every=0: expected a whole number, at least 1"),
        (lambda: nb.Lookahead(0), r"every=0: expected a whole number, at least 1"),
        (lambda: nb.Lookahead(weight=0), r"weight=0: expected a number above 0, at most 1"),
        (lambda: nb.Lookahead(weight=1.5), r"weight=1\.5: expected a number above 0, at most 1"),
    ],
)
def test_bad_options_of_averages(make, message):
    with pytest.raises(ArgumentError, match=f"^{message}$"):
        make()
