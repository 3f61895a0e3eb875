"""Callbacks on histories made by hand: what each one does after each epoch."""

import math

import pytest

import nbnet as nb
from nbnet.errors import ArgumentError
from nbnet.training.epoch import Position

from .small import bits, small_trainer

NAN, INF = math.nan, math.inf


class Run:
    """What callbacks use of a Trainer."""

    def __init__(self):
        self.history, self.stopped, self.saved, self.lr_factor = {}, [], [], 1.0
        self.position = Position()

    def stop(self, reason):
        self.stopped.append((len(next(iter(self.history.values()), ())), reason))

    def save(self, path):
        self.saved.append(len(next(iter(self.history.values()))))


def watched(callback, **columns):
    """The run after all epochs of a history, of which the callback saw each one."""
    run = Run()
    for epoch in range(1, 1 + max(map(len, columns.values()))):
        run.history = {name: column[:epoch] for name, column in columns.items()}
        callback.on_epoch_end(run)
    return run


# monitor, options, the column, epochs without improvement at each stop
STOPS = {
    "a loss that falls": ("loss", {"patience": 1}, [3, 2, 1, 0], []),
    "a loss that rises": ("loss", {"patience": 2}, [1, 2, 3], [(3, 2)]),
    "equal losses are no improvement": ("loss", {"patience": 2}, [1, 1, 1], [(3, 2)]),
    "below 0": ("loss", {"patience": 2}, [-1, -2, -1, -1.5], [(4, 2)]),
    "patience starts again after an improvement": ("loss", {"patience": 2}, [3, 4, 2, 3, 1, 2], []),
    "the best counts, not the epoch before": ("loss", {"patience": 2}, [1, 3, 2], [(3, 2)]),
    "patience 1": ("loss", {"patience": 1}, [2, 1, 1.5], [(3, 1)]),
    "a run that goes on": ("loss", {"patience": 2}, [1, 2, 2, 2], [(3, 2), (4, 3)]),
    "a run that recovers": ("loss", {"patience": 2}, [1, 2, 2, 0.5, 1], [(3, 2)]),
    "a change as large as min_delta is too small": ("loss", {"patience": 1, "min_delta": 0.25}, [1, 0.75], [(2, 1)]),
    "a change above min_delta": ("loss", {"patience": 1, "min_delta": 0.25}, [1, 0.74], []),
    "small changes add up": ("loss", {"patience": 3, "min_delta": 0.25}, [1, 0.9, 0.8, 0.7, 0.6, 0.5], []),
    "an accuracy that rises": ("accuracy", {"patience": 1}, [0.1, 0.2, 0.3], []),
    "an accuracy that falls": ("accuracy", {"patience": 2}, [0.3, 0.2, 0.1], [(3, 2)]),
    "equal accuracies": ("val_accuracy", {"patience": 2}, [0.5, 0.5, 0.5], [(3, 2)]),
    "min_delta of an accuracy": ("val_accuracy", {"patience": 1, "min_delta": 0.25}, [0.25, 0.5], [(2, 1)]),
    "NaN is no improvement": ("val_loss", {"patience": 2}, [1, NAN, NAN], [(3, 2)]),
    "a metric that rises": ("val_f1", {"patience": 1}, [0.1, 0.2, 0.3], []),
    "an error that rises": ("mae", {"patience": 1}, [0.2, 0.1, 0.3], [(3, 1)]),
    "NaN alone": ("val_accuracy", {"patience": 2}, [NAN, NAN], [(2, 2)]),
    "a number after NaN": ("val_accuracy", {"patience": 2}, [NAN, 0.1, NAN, 0.2], []),
    "infinity": ("loss", {"patience": 2}, [INF, 1, INF], []),
    "the defaults": (None, {}, [1, 2, 2, 2, 2, 1, 0], [(6, 5)]),
}


@pytest.mark.parametrize("case", STOPS)
def test_early_stopping(case):
    monitor, options, column, wanted = STOPS[case]
    callback = nb.callbacks.EarlyStopping(**options) if monitor is None else nb.callbacks.EarlyStopping(monitor, **options)
    name = monitor or "val_loss"
    for _ in range(2):  # a second run with the same object
        run = watched(callback, **{name: column})
        assert run.stopped == [(epoch, f"{name} has not improved for {since} epochs") for epoch, since in wanted]
        assert run.saved == []


# monitor, the column, epochs that are saved
SAVES = {
    "a loss": ("loss", [3, 2, 2, 2.5, 1], [1, 2, 5]),
    "an accuracy": ("accuracy", [0.1, 0.3, 0.2, 0.3, 0.4], [1, 2, 5]),
    "the default is val_accuracy": (None, [0.5, 0.4, 0.6, 0.5], [1, 3]),
    "0 and below": ("val_loss", [0, -1, 0], [1, 2]),
    "NaN": ("val_loss", [NAN, 3, NAN, 2], [2, 4]),
    "infinity": ("loss", [INF, INF, 5], [3]),
}


@pytest.mark.parametrize("case", SAVES)
def test_best_checkpoint(case):
    monitor, column, wanted = SAVES[case]
    callback = nb.callbacks.ModelCheckpoint("best", *[monitor] if monitor else [])
    for _ in range(2):
        run = watched(callback, **{monitor or "val_accuracy": column})
        assert (run.saved, run.stopped) == (wanted, [])


def test_csv_log(tmp_path):
    """Replaced after each epoch, with a row for each."""
    path = tmp_path / "log.csv"
    for _ in range(2):
        watched(nb.callbacks.CSVLogger(path), loss=[0.5, 0.25], lr=[1, NAN])
        assert path.read_bytes() == b"epoch,loss,lr\r\n1,0.5,1\r\n2,0.25,nan\r\n"


def test_a_checkpoint_of_every_epoch():
    """Whatever the monitored value does, and whether it is there."""
    callback = nb.callbacks.ModelCheckpoint("last", save_best_only=False)
    assert watched(callback, val_accuracy=[0.3, 0.2, NAN]).saved == watched(callback, loss=[1, 2, 3]).saved == [1, 2, 3]


# seconds of the epochs before, and of this one, and whether it stops at a limit of 6
TIMES = {
    "none": ([], 0, False),
    "before": ([3, 2], 0.9, False),
    "just": ([3, 2], 1, True),
    "one epoch": ([], 7, True),
    "all": ([4, 4], 0, True),
}


@pytest.mark.parametrize("case", TIMES)
@pytest.mark.parametrize("hook", ["on_train_begin", "on_batch_end"])
def test_time_limit(case, hook):
    before, now, stops = TIMES[case]
    run, callback = Run(), nb.callbacks.TimeLimit(6)
    run.history, run.position = ({"seconds": before} if before else {}), Position(batches=1, seconds=now)
    getattr(callback, hook)(run)
    assert [reason for _, reason in run.stopped] == ["the time limit of 6 s is reached"] * stops


@pytest.mark.parametrize("seconds", [0, -1, INF, NAN, "60", None])
def test_bad_time_limits(seconds):
    with pytest.raises(ArgumentError, match=r"^seconds=.*: expected a finite number above 0$"):
        nb.callbacks.TimeLimit(seconds)


def test_a_run_keeps_its_time_limit(data, tmp_path):
    """Also over a file, and with nothing trained once it is reached; within it, nothing changes."""
    trainer, other = small_trainer(), small_trainer()
    trainer.fit(data, 3, 16, callbacks=[nb.callbacks.TimeLimit(1e-9)])
    assert (trainer.step, trainer.stop_reason) == (1, "the time limit of 1e-09 s is reached")
    trainer.save(tmp_path / "run")
    other.restore(tmp_path / "run")
    before = bits(other)
    for _ in range(2):
        other.fit(data, 3, 16, callbacks=[nb.callbacks.TimeLimit(1e-9)])
        assert (other.step, bits(other)) == (1, before)
    other.fit(data, 3, 16, callbacks=[nb.callbacks.TimeLimit(1e9)])
    assert (other.epoch, other.stop_reason) == (3, None)


@pytest.mark.parametrize("name", ["EarlyStopping", "ModelCheckpoint"])
def test_a_column_that_is_not_there(name):
    first = ["best"] if name == "ModelCheckpoint" else []
    callback = getattr(nb.callbacks, name)(*first, "val_accuracy")
    with pytest.raises(ArgumentError, match=f"{name} monitors 'val_accuracy', but the history has loss, lr: pass validation= to fit"):
        watched(callback, loss=[1], lr=[1])
    for monitor in ("speed", "losses", ""):
        with pytest.raises(ArgumentError, match=f"^monitor={monitor!r}: expected loss, .*, f1, .* or one of them with val_ before it$"):
            getattr(nb.callbacks, name)(*first, monitor)


@pytest.mark.parametrize("options", [{"patience": 0}, {"patience": 1.5}, {"min_delta": -1e-9}, {"min_delta": INF}, {"min_delta": NAN}])
def test_bad_options(options):
    (name,) = options
    with pytest.raises(ArgumentError, match=f"^{name}="):
        nb.callbacks.EarlyStopping(**options)


def test_the_smallest_options():
    assert nb.callbacks.EarlyStopping(patience=1, min_delta=0).min_delta == 0


def test_when_callbacks_are_called(data):
    """Each once per batch and per epoch, in their order, after the step or the row of the epoch."""
    calls = []

    class Note(nb.callbacks.Callback):
        def __init__(self, name):
            self.name = name

        def on_batch_end(self, trainer):
            calls.append((self.name, "batch", trainer.step, trainer.position.batches, len(trainer.history.get("loss", ()))))

        def on_epoch_end(self, trainer):
            calls.append((self.name, "epoch", trainer.step, trainer.epoch, len(trainer.history["loss"])))

    small_trainer().fit(data, epochs=2, batch_size=35, callbacks=iter([Note("a"), Note("b")]))
    wanted = [("batch", 1, 1, 0), ("batch", 2, 2, 0), ("epoch", 2, 1, 1), ("batch", 3, 1, 1), ("batch", 4, 2, 1), ("epoch", 4, 2, 2)]
    assert calls == [(name, *call) for call in wanted for name in ("a", "b")]


def test_the_methods_of_the_base_class_do_nothing(data):
    trainer, alone = small_trainer(), small_trainer()
    assert trainer.fit(data, epochs=1, callbacks=[nb.callbacks.Callback()])["loss"] == alone.fit(data, epochs=1)["loss"]


# monitor, options, the column, lr_factor after each epoch
PLATEAUS = {
    "a loss that falls": ("loss", {"patience": 1}, [3, 2, 1], [1, 1, 1]),
    "a loss that rises": ("loss", {"patience": 2}, [1, 2, 3, 3, 3], [1, 1, 0.1, 0.1, 0.01]),
    "an accuracy": ("accuracy", {"patience": 1, "factor": 0.5}, [0.1, 0.3, 0.2, 0.2, 0.4], [1, 1, 0.5, 0.25, 0.25]),
    "min_delta": ("loss", {"patience": 1, "factor": 0.5, "min_delta": 0.25}, [1, 0.75, 0.7], [1, 0.5, 0.5]),
    "cooldown": ("loss", {"patience": 1, "factor": 0.5, "cooldown": 2}, [1, 1, 1, 1, 1, 1], [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
    "improvement while it cools": (
        "loss",
        {"patience": 2, "factor": 0.5, "cooldown": 1},
        [1, 1, 1, 0.5, 0.6, 0.7],
        [1, 1, 0.5, 0.5, 0.5, 0.25],
    ),
    "min_factor": ("loss", {"patience": 1, "factor": 0.5, "min_factor": 0.3}, [1, 1, 1, 1], [1, 0.5, 0.3, 0.3]),
    "NaN": ("val_loss", {"patience": 2, "factor": 0.5}, [1, NAN, NAN], [1, 1, 0.5]),
    "the defaults": (None, {}, [1] * 12, [1] * 10 + [0.1, 0.1]),
}


@pytest.mark.parametrize("name", PLATEAUS)
def test_reduce_lr_on_plateau(name):
    monitor, options, column, wanted = PLATEAUS[name]
    callback = nb.callbacks.ReduceLROnPlateau(**options | ({} if monitor is None else {"monitor": monitor}))
    found = [watched(callback, **{monitor or "val_loss": column[:epochs]}).lr_factor for epochs in range(1, len(column) + 1)]
    assert found == pytest.approx(wanted)


def test_a_run_on_a_plateau_is_saved_and_restored(data, tmp_path):
    """Its learning rate goes on where it was, without a warning, and so do its bits."""

    def run(trainer, epochs):
        return trainer.fit(data, epochs, 16, callbacks=[nb.callbacks.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=10)])

    straight, first, second = (small_trainer() for _ in range(3))
    wanted = run(straight, 5)
    run(first, 3)
    assert first.lr_factor == 0.25
    first.save(tmp_path / "run")
    second.restore(tmp_path / "run")
    assert second.lr_factor == 0.25
    found = run(second, 5)
    assert straight.lr_factor == second.lr_factor == 0.0625
    assert found["lr"] == wanted["lr"] == [3e-3 * 0.5**epoch for epoch in (0, 0, 1, 2, 3)]
    assert bits(straight) == bits(second)


def test_a_factor_that_is_no_number(data):
    trainer = small_trainer()
    trainer.lr_factor = None
    with pytest.raises(ArgumentError, match=r"^the learning rate is 0\.003 times lr_factor=None, expected a finite number of at least 0"):
        trainer.train_batch(*data)


@pytest.mark.parametrize("options", [{"factor": 1}, {"factor": 0}, {"patience": 0}, {"min_delta": -1}, {"cooldown": -1}, {"min_factor": 2}])
def test_bad_options_of_a_plateau(options):
    with pytest.raises(ArgumentError, match=rf"^{next(iter(options))}=.*: expected "):
        nb.callbacks.ReduceLROnPlateau(**options)
