"""The learning rate: progress follows from the epoch and the batch, and every rate is a number."""

import math

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError
from nbnet.training.notes import progress

from .small import bits, small_trainer


class Rates(nb.callbacks.Callback):
    def __init__(self):
        self.seen = []

    def on_batch_end(self, trainer):
        self.seen.append(trainer.position.lr)


def rates(trainer, data, epochs, batch_size):
    look = Rates()
    trainer.fit(data, epochs=epochs, batch_size=batch_size, callbacks=[look])
    return look.seen


@pytest.mark.parametrize("per_epoch", [1, 3, 7])
def test_progress_is_that_of_the_step_in_a_run_of_equal_epochs(per_epoch):
    steps = 4 * per_epoch
    found = [progress(epoch, batch, 4, per_epoch) for epoch in range(4) for batch in range(per_epoch)]
    assert found == [step / max(1, steps - 1) for step in range(steps)]
    assert progress(0, 0, 1, 1) == 0
    assert (progress(0, 0, 1, 2), progress(0, 1, 1, 2)) == (0, 1)
    assert progress(9, 0, 4, per_epoch) == 1


def test_a_run_that_continues_with_other_batches(data):
    """Half of the epochs are half of the schedule, whatever the number of steps was."""
    trainer = small_trainer(optimizer=nb.SGD(1e-3), schedule="cosine")
    small = rates(trainer, data, 5, 8)
    with pytest.warns(UserWarning, match="now spans 10 epochs"):
        large = rates(trainer, data, 10, 35)
    assert len(small) == 5 * 9
    assert small[-1] == 0
    assert large == pytest.approx([1e-3 * (1 + math.cos(math.pi * step / 19)) / 2 for step in range(10, 20)])


def test_other_batches_in_the_same_span_do_not_make_the_rate_jump(data):
    trainer = small_trainer(optimizer=nb.SGD(1e-3), schedule="cosine")

    class Stop(nb.callbacks.Callback):
        def on_epoch_end(self, trainer):
            trainer.stop("after one epoch")

    trainer.fit(data, epochs=2, batch_size=10, callbacks=[Stop()])
    after = rates(trainer, data, 2, 35)
    assert after[0] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 2 / 3)) / 2)


def test_single_batches_are_not_progress(data):
    trainer = small_trainer(optimizer=nb.SGD(1e-3), schedule="one_cycle")
    for _ in range(50):
        trainer.train_batch(data[0][:8], data[1][:8])
    found = rates(trainer, data, 2, 16)
    assert found == rates(small_trainer(optimizer=nb.SGD(1e-3), schedule="one_cycle"), data, 2, 16)
    assert found[0] == pytest.approx(1e-3 / 25)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (None, r"the schedule returned None at progress 0, expected a number: check <function"),
        ("1", "the schedule returned '1' at progress 0, expected a number"),
        (np.ones(2), "the schedule returned array"),
        (math.nan, r"the learning rate is 0\.1 times nan, which the schedule gave at progress 0, expected a finite number of at least 0"),
        (-1, r"the learning rate is 0\.1 times -1\.0"),
        (math.inf, r"the learning rate is 0\.1 times inf"),
    ],
)
def test_a_schedule_that_gives_no_rate(data, factor, message):
    def schedule(progress):
        return factor

    trainer = small_trainer(optimizer=nb.SGD(0.1), schedule=schedule)
    before = bits(trainer)
    with pytest.raises(ArgumentError, match=message):
        trainer.fit(data, epochs=1)
    assert bits(trainer) == before
    assert trainer.step == 0


@pytest.mark.parametrize("lr", [math.nan, -0.1, math.inf, "0.1", None])
def test_a_rate_that_was_set_by_hand(data, lr):
    trainer = small_trainer(optimizer=nb.SGD(0.1))
    trainer.optimizer.lr = lr
    before = bits(trainer)
    for train in (lambda: trainer.fit(data, epochs=1), lambda: trainer.train_batch(*data)):
        with pytest.raises(ArgumentError, match=r"the learning rate is .*, expected a finite number of at least 0: set optimizer\.lr"):
            train()
    assert bits(trainer) == before


def test_a_rate_of_0_changes_no_parameter(data):
    trainer = small_trainer(optimizer=nb.SGD(0.1), schedule=lambda progress: 0)
    before = {name: param.value.tobytes() for name, param in trainer.model.params.items()}
    trainer.fit(data, epochs=1)
    assert {name: param.value.tobytes() for name, param in trainer.model.params.items()} == before


@pytest.mark.parametrize("factor", [np.float32(0.5), np.array(0.5, np.float32), np.int64(1), 1])
def test_numbers_of_numpy_are_numbers(data, factor):
    trainer = small_trainer(optimizer=nb.SGD(np.float32(0.1)), schedule=lambda progress: factor)
    trainer.fit(data, epochs=1)
    assert type(trainer.history["lr"][0]) is float
