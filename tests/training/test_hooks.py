"""When the methods of callbacks are called, and what an exception in one leaves: a run that can be saved and goes on."""

import pytest

import nbnet as nb
from nbnet.training.callbacks.base import HOOKS, hooks_of

from .small import bits, small_trainer


class Note(nb.callbacks.Callback):
    """Notes each call, and where the run is: steps, complete epochs, batches of this epoch, rows of the history."""

    def __init__(self):
        self.calls = []

    def note(self, name, trainer):
        self.calls.append((name, trainer.step, trainer.epoch, trainer.position.batches, len(trainer.history.get("loss", ()))))

    def on_train_begin(self, trainer):
        self.note("train begin", trainer)

    def on_train_end(self, trainer):
        self.note("train end", trainer)

    def on_epoch_begin(self, trainer):
        self.note("epoch begin", trainer)

    def on_epoch_end(self, trainer):
        self.note("epoch end", trainer)

    def on_batch_begin(self, trainer):
        self.note("batch begin", trainer)

    def on_batch_end(self, trainer):
        self.note("batch end", trainer)


BEGIN, FIRST = ("train begin", 0, 0, 0, 0), ("epoch begin", 0, 0, 0, 0)
BATCHES = [("batch begin", 0, 0, 0, 0), ("batch end", 1, 0, 1, 0), ("batch begin", 1, 0, 1, 0), ("batch end", 2, 0, 2, 0)]


def test_every_hook(data):
    note = Note()
    small_trainer().fit(data, 2, 35, callbacks=[note])
    second = [
        ("epoch begin", 2, 1, 0, 1),
        ("batch begin", 2, 1, 0, 1),
        ("batch end", 3, 1, 1, 1),
        ("batch begin", 3, 1, 1, 1),
        ("batch end", 4, 1, 2, 1),
    ]
    assert note.calls == [BEGIN, FIRST, *BATCHES, ("epoch end", 2, 1, 0, 1), *second, ("epoch end", 4, 2, 0, 2), ("train end", 4, 2, 0, 2)]


class StopIn(nb.callbacks.Callback):
    """Stops the run in one hook, once."""

    def __init__(self, hook):
        def stop(trainer):
            if trainer.stop_reason is None and not self.done:
                self.done = True
                trainer.stop(hook)

        self.done = False
        setattr(self, hook, stop)


# hook: what is called after it has stopped the run
STOPPED = {
    "on_train_begin": [("train end", 0, 0, 0, 0)],
    "on_epoch_begin": [FIRST, ("train end", 0, 0, 0, 0)],
    "on_batch_begin": [FIRST, *BATCHES[:2], ("train end", 1, 0, 1, 0)],
    "on_batch_end": [FIRST, *BATCHES[:2], ("train end", 1, 0, 1, 0)],
    "on_epoch_end": [FIRST, *BATCHES, ("epoch end", 2, 1, 0, 1), ("train end", 2, 1, 0, 1)],
}


@pytest.mark.parametrize("hook", STOPPED)
def test_stopping_in_every_hook(data, hook):
    """Hooks see the end of training, and the next call continues with the same bits."""
    note, trainer, whole = Note(), small_trainer(), small_trainer()
    trainer.fit(data, 2, 35, callbacks=[StopIn(hook), note])
    assert trainer.stop_reason == hook
    assert note.calls == [BEGIN, *STOPPED[hook]]
    trainer.fit(data, 2, 35)
    whole.fit(data, 2, 35)
    assert bits(trainer) == bits(whole)


def test_the_rest_of_an_epoch_begins_again(data):
    note, trainer = Note(), small_trainer()
    trainer.fit(data, 1, 35, callbacks=[StopIn("on_batch_end")])
    trainer.fit(data, 1, 35, callbacks=[note])
    assert note.calls == [
        ("train begin", 1, 0, 1, 0),
        ("epoch begin", 1, 0, 1, 0),
        *BATCHES[2:],
        ("epoch end", 2, 1, 0, 1),
        ("train end", 2, 1, 0, 1),
    ]


class Fails(nb.callbacks.Callback):
    """Raises at the n-th call of one hook."""

    def __init__(self, hook, n):
        def fail(trainer):
            self.left -= 1
            if self.left == 0:
                raise OSError(28, "No space left on device")

        self.left = n
        setattr(self, hook, fail)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("n", [1, 2])
def test_an_exception_in_every_hook(data, tmp_path, hook, n):
    """The run can be saved, and goes on to the same bits, here and from the file; training has not ended for the callbacks."""
    whole, trainer, other, note = small_trainer(), small_trainer(), small_trainer(), Note()
    whole.fit(data, 2, 35, validation=data)
    if hook.startswith("on_train"):
        n = 1
    with pytest.raises(OSError, match="No space"):
        trainer.fit(data, 2, 35, validation=data, callbacks=[note, Fails(hook, n)])
    assert ("train end" in [name for name, *_ in note.calls]) == (hook == "on_train_end")
    trainer.save(tmp_path / "run")
    other.restore(tmp_path / "run")
    for run in (trainer, other):
        if run.epoch < 2:
            run.fit(data, 2, 35, validation=data)
        assert bits(run) == bits(whole)
        assert run.history.keys() == whole.history.keys()
        assert all(run.history[name] == whole.history[name] for name in ("loss", "val_loss", "lr"))


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_batch_begin"])
def test_restoring_before_a_step(data, tmp_path, hook):
    """Training goes on from the restored position."""
    trainer, whole, path = small_trainer(), small_trainer(), tmp_path / "run"
    whole.fit(data, 3, 35)
    trainer.fit(data, 3, 35, callbacks=[StopIn("on_batch_end")])
    trainer.save(path)
    trainer.fit(data, 2, 35)
    back, times = nb.callbacks.Callback(), []

    def restore(trainer):
        if trainer.step == 4 and not times:
            times.append(trainer.restore(path))

    setattr(back, hook, restore)
    trainer.fit(data, 3, 35, callbacks=[back])
    assert trainer.step == 6
    assert bits(trainer) == bits(whole)


def test_restoring_a_finished_run_before_an_epoch(data, tmp_path):
    done, trainer, path = small_trainer(), small_trainer(), tmp_path / "run"
    done.fit(data, 2, 35)
    done.save(path)
    back = nb.callbacks.Callback()
    back.on_epoch_begin = lambda run: run.restore(path)
    trainer.fit(data, 1, 35, callbacks=[back])
    assert (trainer.epoch, bits(trainer)) == (2, bits(done))


def test_only_methods_of_ones_own_are_called():
    """A step does not pay for what no callback does; a method of the object itself counts, and one of a class without the base."""
    assert not any(hooks_of([nb.callbacks.Callback()]).values())
    own, plain = nb.callbacks.Callback(), type("Plain", (), {"on_train_end": lambda self, trainer: None})()
    own.on_batch_begin = print
    found = hooks_of([own, plain, nb.callbacks.TimeLimit(1)])
    assert {name: len(calls) for name, calls in found.items()} == {
        "on_train_begin": 1,
        "on_train_end": 1,
        "on_epoch_begin": 0,
        "on_epoch_end": 0,
        "on_batch_begin": 1,
        "on_batch_end": 1,
    }
    assert found["on_batch_begin"] == [print]


def test_a_learning_rate_of_the_next_step(data):
    """on_batch_begin comes before the rate of the step is taken."""
    trainer, halve = small_trainer(), nb.callbacks.Callback()
    halve.on_batch_begin = lambda run: setattr(run, "lr_factor", 0.5)
    assert trainer.fit(data, 1, 70, callbacks=[halve])["lr"] == [trainer.optimizer.lr / 2]
