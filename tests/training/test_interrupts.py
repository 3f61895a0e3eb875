"""A step of training happens completely or not at all, wherever an exception interrupts it."""

import copy
import multiprocessing
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError
from nbnet.runtime.replay import Replay

PACKAGE = str(Path(nb.__file__).parent)


class Interrupt(BaseException):
    """Like KeyboardInterrupt, but only this test raises it."""


def lines_of(function, interrupt_at=None):
    """Run a function, and raise Interrupt in front of the line of nbnet with this number. The lines that it ran, as file:number; of the
    functions where a step becomes valid, one for each instruction."""
    lines = []

    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(PACKAGE) or frame.f_code.co_name == "__del__":  # where exceptions are only printed
            return None
        frame.f_trace_opcodes = by_instruction = frame.f_code.co_name in ("train_step", "commit")
        if event == ("opcode" if by_instruction else "line"):
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            if len(lines) - 1 == interrupt_at:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except Interrupt:
        pass
    finally:
        sys.settrace(before)
    return lines


def make(backend="serial", optimizer=nb.Adam, **options):
    """A trainer with all that a step changes: two parts of parameters, deferred and other statistics, averages, dropout."""
    model = nb.Sequential(
        [
            nb.Conv2D(2, 3),
            nb.BatchNorm(update="deferred", gamma_regularizer=nb.regularizers.l2(0.1)),
            nb.Flatten(),
            nb.Dropout(0.2),
            nb.Dense(3),
            nb.BatchNorm(renorm=nb.Renorm(3, 0, 5, decay=0.9)),
        ]
    )
    model.build((3, 3, 1), backend=backend)
    model.layers[1].params["beta"].trainable = False
    return nb.Trainer(model, optimizer=optimizer(1e-2), schedule="one_cycle", **options)


def state(trainer):
    """All that a run carries on, except times."""
    arrays, run = trainer.state()
    waiting = [layer._pending is not None for layer in trainer.model.walk() if isinstance(layer, nb.BatchNorm)]
    history = {name: list(column) for name, column in run["history"].items() if name != "seconds"}
    run = run | {"history": history, "position": run["position"] | {"seconds": 0}}
    return {name: array.tobytes() for name, array in arrays.items()}, run, waiting


@pytest.fixture
def batch(rng):
    return rng.random((6, 3, 3, 1), dtype=np.float32), rng.integers(0, 3, 6)


class MyDescent(nb.SGD):
    """A user's optimiser, in NumPy."""

    def _update(self, backend, value, grad, slots, lr):
        value -= lr / self.steps * grad
        slots[0][:] = grad


@pytest.mark.parametrize(
    ("backend", "options", "passes"),
    [
        ("serial", {}, 0),  # layer by layer
        ("serial", {"accumulate": 2}, 1),  # while it is recorded
        ("parallel", {"clip_norm": 0.1}, 2),  # replayed
        ("numpy", {}, 0),
        ("serial", {"optimizer": MyDescent, "replay": False}, 0),
        ("serial", {"average": nb.ExponentialMovingAverage(0.9)}, 2),
    ],
)
def test_an_exception_at_every_line_of_a_step(batch, backend, options, passes):
    trainer = make(backend, **options)
    for _ in range(2):
        trainer.train_batch(*batch)
    start = copy.deepcopy(trainer.state())
    before = state(trainer)
    trainer.train_batch(*batch)
    after = state(trainer)
    trainer.train_batch(*batch)
    end = state(trainer)

    def step(interrupt_at=None):
        trainer._passes = Replay(trainer.replay)
        for _ in range(passes):
            trainer.train_batch(*batch)
        trainer.load_state(start)
        return lines_of(lambda: trainer.train_batch(*batch), interrupt_at)

    lines = step()
    assert len(lines) > 200
    first = {line: n for n, line in reversed(list(enumerate(lines)))}
    updating = [n for n, line in enumerate(lines) if "loop.py" in line or "commit" in line or "optimizers" in line]
    for n in sorted({*first.values(), *updating}):
        assert step(n) == lines[: n + 1]
        now = state(trainer)
        assert now in (before, after), lines[n]
        for _ in range(1 + (now == before)):
            trainer.train_batch(*batch)
        assert state(trainer) == end, lines[n]


@pytest.mark.parametrize("metrics", [(), ("f1",)])
def test_an_exception_in_fit(batch, metrics):
    """Every 50th line or so: epochs, positions, history, validation."""
    whole, states = make(metrics=metrics), []

    class Note(nb.callbacks.Callback):
        def on_batch_end(self, trainer):
            states.append(state(trainer))

        on_epoch_end = on_batch_end

    def fit(trainer, callbacks=()):
        trainer.fit(batch, 2, 3, validation=batch, callbacks=callbacks, progress=False)

    states.append(state(whole))
    fit(whole, [Note()])
    trainer = make(metrics=metrics)
    lines = lines_of(lambda: fit(trainer))
    own = [n for n, line in enumerate(lines) if "training" in line]
    for n in (*range(0, len(lines), 97), *own[::11]):
        trainer = make(metrics=metrics)
        where = lines_of(lambda: fit(trainer), n)[-1]  # noqa: B023
        assert state(trainer) in states, where
        if trainer.epoch < 2:
            fit(trainer)
        assert state(trainer) == states[-1], where


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals at a given time need POSIX")
def test_signals_at_any_time(batch, rng):
    def interrupt(*_):
        raise Interrupt

    whole, trainer = make(), make()
    whole.fit(batch, 30, 3, progress=False)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in 10 ** rng.uniform(-5, -2, 100):
            if trainer.epoch == 30:
                break
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                trainer.fit(batch, 30, 3, progress=False)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Interrupt:  # between the two calls
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if trainer.epoch < 30:
        trainer.fit(batch, 30, 3, progress=False)
    assert state(trainer) == state(whole)


def test_an_update_of_the_users_is_kept(batch):
    """A failed step drops the updates that it deferred itself."""
    trainer = make()
    first, second = nb.BatchNorm(update="deferred"), nb.BatchNorm(update="deferred")
    model = nb.Sequential([first, second, nb.Flatten(), nb.Dense(3)])
    model.build((3, 3, 1), backend="serial")
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
    second.forward(batch[0], train=True)
    waiting = second._pending
    with pytest.raises(nb.errors.BuildError, match="deferred update"):
        trainer.train_batch(*batch)
    assert first._pending is None
    assert second._pending is waiting


class Fails(nb.callbacks.Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_callback_that_fails(batch, step):
    whole, trainer = make(), make()
    whole.fit(batch, 2, 3, progress=False)
    with pytest.raises(OSError, match="No space"):
        trainer.fit(batch, 2, 3, callbacks=[Fails(step)], progress=False)
    assert trainer.step == step
    trainer.fit(batch, 2, 3, progress=False)
    assert state(trainer) == state(whole)


class GoesBack(nb.callbacks.Callback):
    """Saves at one step, and at a later one restores that, once."""

    def __init__(self, save, restore, path):
        self.save, self.restore, self.path = save, restore, path

    def on_batch_end(self, trainer):
        if trainer.step == self.save and not self.path.exists():
            trainer.save(self.path)
        if trainer.step == self.restore:
            self.restore = None
            trainer.restore(self.path)


@pytest.mark.parametrize(("save", "restore"), [(1, 2), (1, 3), (2, 3), (3, 6), (5, 6)])
def test_restoring_in_a_callback(batch, tmp_path, save, restore):
    whole, trainer = make(), make()
    whole.fit(batch, 3, 2, validation=batch, progress=False)
    trainer.fit(batch, 3, 2, validation=batch, callbacks=[GoesBack(save, restore, tmp_path / "run.safetensors")], progress=False)
    assert trainer.step == 9
    assert state(trainer) == state(whole)


def test_restoring_an_epoch_of_other_batches_in_a_callback(batch, tmp_path):
    trainer, path = make(), tmp_path / "run.safetensors"
    trainer.fit(batch, 1, 2, callbacks=[GoesBack(1, None, path)], progress=False)
    with pytest.raises(ArgumentError, match="it cannot continue with 6 rows in batches of 3"):
        make().fit(batch, 1, 3, callbacks=[GoesBack(0, 1, path)], progress=False)


def kept_in_a_failed_step(model, batch):
    with pytest.raises(nb.errors.BuildError, match="deferred update"):
        nb.Trainer(model, optimizer=nb.SGD(0.1)).train_batch(*batch)
    return [layer._pending is not None for layer in model.layers[:2]]


def test_an_update_of_the_users_is_kept_in_another_process(batch):
    """One that has changed fewer attributes than the process that deferred the update."""
    second = nb.BatchNorm(update="deferred")
    model = nb.Sequential([nb.BatchNorm(update="deferred"), second, nb.Flatten(), nb.Dense(3)])
    model.build((3, 3, 1), backend="serial")
    for _ in range(100_000):
        second.update_statistics = True
    second.forward(batch[0], train=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(kept_in_a_failed_step, (model, batch)).get(300) == [False, True]
