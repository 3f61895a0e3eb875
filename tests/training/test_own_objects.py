"""Losses and callbacks of the user's own that do not fit: one line says what was expected, before anything has changed."""

import re
import warnings

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError, DTypeError, NbnetError, ShapeError

from .small import bits, small_trainer

CROSS_ENTROPY = nb.losses.softmax_cross_entropy


def changed(**fields):
    """A loss that returns something else than cross-entropy does."""

    def loss(prediction, target, *, rows=None, backend="parallel"):
        result = CROSS_ENTROPY(prediction, target.astype(int), rows=rows, backend=backend)
        return result._replace(**{name: value(getattr(result, name)) for name, value in fields.items()})

    return loss


WRONG_RESULTS = {
    "a tuple": (lambda p, t, *, rows=None, backend: (1.0, p), ArgumentError, "returned tuple, expected nb.losses.LossResult"),
    "nothing": (lambda p, t, *, rows=None, backend: None, ArgumentError, "returned NoneType, expected nb.losses.LossResult"),
    "a number": (lambda p, t, *, rows=None, backend: 1.0, ArgumentError, "returned float, expected nb.losses.LossResult"),
    "losses of rows": (changed(total=lambda total: np.full(3, total)), ArgumentError, "total=ndarray and correct=int, expected numbers"),
    "hits of rows": (changed(correct=lambda hits: [hits]), ArgumentError, "correct=list, expected numbers (correct may be None)"),
    "no gradient": (changed(gradient=lambda g: None), ShapeError, "a gradient of shape None, expected that of the prediction"),
    "a gradient of rows": (changed(gradient=lambda g: g[:, 0]), ShapeError, "returned a gradient of shape ("),
    "another float": (changed(gradient=lambda g: g.astype("float32")), DTypeError, "use gradient.astype(prediction.dtype)"),
}


@pytest.mark.parametrize("kind", WRONG_RESULTS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_a_loss_returns(data, kind, accumulate):
    loss, error, words = WRONG_RESULTS[kind]
    trainer = small_trainer(loss=loss, accumulate=accumulate)
    trainer.optimizer.prepare(trainer.model.params)
    before = bits(trainer)
    calls = (lambda: trainer.fit(data, 1, 64, progress=False), lambda: trainer.train_batch(*data), lambda: trainer.evaluate(*data))
    for call in calls:
        with pytest.raises(error, match=f"^the loss (loss|<lambda>) .*{re.escape(words)}") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert bits(trainer) == before
        assert trainer.step == 0


def test_the_hints_on_losses_lead_to_a_loss_that_trains(data):
    """What the messages call expected: LossResult(total, correct, gradient), losses.sum(), gradient.astype(prediction.dtype)."""

    def loss(prediction, target, *, rows, backend):
        losses = (prediction**2).sum(axis=1)
        gradient = (2 * prediction / rows if rows else 2 * prediction / len(prediction)).astype("float32")
        return nb.losses.LossResult(losses.sum(), None, gradient.astype(prediction.dtype))

    trainer = small_trainer(loss=loss)
    history = trainer.fit(data, 3, progress=False)["loss"]
    assert history[-1] < history[0]
    assert trainer.evaluate(*data)["loss"] > 0


class TooFew(nb.losses.Loss):
    def __call__(self, prediction, target):
        return nb.losses.LossResult(0.0, None, prediction)


class MoreWithDefaults(nb.losses.MeanSquaredError):
    def __call__(self, prediction, target, *, rows=None, backend="parallel", extra=3):
        return super().__call__(prediction, target, rows=rows, backend=backend)


@pytest.mark.parametrize(
    "loss",
    [lambda p, t: (1.0, p), lambda p: 1.0, lambda p, t, rows: 1.0, lambda p, t, *, rows, backend, more: 1.0, TooFew()],
    ids=["two", "one", "no backend", "one more", "an object"],
)
def test_the_arguments_of_a_loss(loss):
    with pytest.raises(
        ArgumentError, match=r"does not take what training gives it \(.*\): expected (def loss\(prediction, .*\))$"
    ) as caught:
        small_trainer(loss=loss)
    names = {}
    exec(re.search(r"expected (def .*)$", str(caught.value))[1] + ": return None", names)
    small_trainer(loss=names["loss"])


@pytest.mark.parametrize("loss", [lambda p, t, **options: None, lambda *arguments, **options: None, MoreWithDefaults(), max])
def test_other_ways_to_take_the_arguments(loss):
    small_trainer(loss=loss)


# ----------------------------------------------------------------------------------------------------------- callbacks


class Counting(nb.callbacks.Callback):
    def __init__(self):
        self.epochs = 0

    def on_epoch_end(self, trainer):
        self.epochs += 1


class WithoutBase:
    def on_epoch_end(self, trainer):
        pass


def by_hand(trainer):
    pass


CALLBACKS = {
    "one, without a list": (Counting(), r"callbacks=Counting: use (callbacks=\[callback\])$"),
    "a class": ([Counting], r"callbacks has the class Counting, expected an object: use (Counting\()\.\.\.\)$"),
    "a class without a list": (Counting, r"callbacks=Counting: "),
    "a function": (
        [by_hand],
        r"callbacks has by_hand, expected an object with on_train_begin, .* or on_batch_end: write a class with (def .*),",
    ),
    "a lambda without a list": (
        lambda trainer: None,
        r"callbacks=<lambda>: expected a list, such as (\[.*\])$",
    ),
    "a method that is none": ([type("Named", (), {"on_epoch_end": "by hand"})()], r"callbacks has Named, expected an object with on_train"),
    "nothing": (None, r"callbacks=NoneType: expected a list"),
    "text": ("EarlyStopping", r"callbacks has str, expected an object"),
    "after a good one": ([Counting(), by_hand], r"callbacks has by_hand, expected an object"),
}


@pytest.mark.parametrize("kind", CALLBACKS)
def test_callbacks_that_are_none(data, kind):
    callbacks, words = CALLBACKS[kind]
    trainer = small_trainer()
    trainer.fit(data, 1, progress=False)
    trainer.stop("for a test")
    before = bits(trainer)
    with pytest.raises(ArgumentError, match=words) as caught:
        trainer.fit(data, 2, callbacks=callbacks, progress=False)
    assert "\n" not in str(caught.value)
    assert (bits(trainer), trainer.epoch, trainer.stop_reason) == (before, 1, "for a test")


def test_the_hints_on_callbacks_are_followed(data):
    hint = {}
    for kind, (callbacks, words) in CALLBACKS.items():
        with pytest.raises(NbnetError) as caught:
            small_trainer().fit(data, 1, callbacks=callbacks)
        found = re.search(words, str(caught.value))
        hint[kind] = found[1] if found.re.groups else None
    callback = Counting()
    options = eval(f"dict({hint['one, without a list']})", {"callback": callback})
    small_trainer().fit(data, 1, progress=False, **options)
    small_trainer().fit(data, 1, progress=False, callbacks=[eval(hint["a class"] + ")")])
    small_trainer().fit(data, 1, progress=False, validation=data, callbacks=eval(hint["a lambda without a list"]))
    body = {"nb": nb}
    exec(f"class Mine(nb.callbacks.Callback):\n    {hint['a function']}: trainer.stop('as told')", body)
    trainer = small_trainer()
    trainer.fit(data, 2, progress=False, callbacks=[body["Mine"]()])
    assert (callback.epochs, trainer.epoch, trainer.stop_reason) == (1, 1, "as told")


def test_callbacks_in_other_lists(data):
    for callbacks in ((), (Counting(),), iter([WithoutBase()]), {Counting()}):
        small_trainer().fit(data, 1, callbacks=callbacks, progress=False)


# -------------------------------------------------------------------------------------------------------- softmax twice


def model_of(*last):
    model = nb.Sequential([nb.Flatten(), nb.Dense(3), *last])
    model.build((6, 6, 1), backend="serial")
    return model


@pytest.mark.parametrize("last", [(lambda: nb.Softmax()), (lambda: nb.Sequential([nb.Tanh(), nb.Sequential([nb.Softmax()])]))])
def test_a_softmax_before_a_loss_with_a_softmax(data, last):
    with pytest.warns(UserWarning, match=r"ends with Softmax, but .*: leave out nb\.Softmax\(\); model\.predict_proba") as said:
        nb.Trainer(model_of(last()), optimizer=nb.SGD(0.1))
    assert len(said) == 1
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = model_of()  # left out
        trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
        trainer.fit(data, 1, progress=False)
        nb.Trainer(model_of(nb.Softmax(), nb.Dense(3)), optimizer=nb.SGD(0.1))
        nb.Trainer(model_of(last()), loss="mean_squared_error", optimizer=nb.SGD(0.1))
        nb.Trainer(model_of(last()), loss=changed(), optimizer=nb.SGD(0.1))
    assert np.allclose(model.predict_proba(data[0]).sum(axis=1), 1)
