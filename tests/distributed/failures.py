"""Ways to fail on one rank, run by mpiexec: python failures.py WAY [FOLDER]."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parent))
import cases

import nbnet as nb
from nbnet.training import sliced

world = MPI.COMM_WORLD
way, folder = sys.argv[1], Path(sys.argv[2])
last = world.rank == (0 if way.startswith("first ") else world.size - 1)  # the one that fails
way = way.removeprefix("first ")
(x, y), test = cases.data()


class At(nb.callbacks.Callback):
    """Calls a function after a step, on the last rank."""

    def __init__(self, step, function):
        self.step, self.function = step, function

    def on_batch_end(self, trainer):
        if last and trainer.step == self.step:
            self.function()


@contextlib.contextmanager
def saying(*kinds):
    try:
        yield
    except kinds as error:
        print(f"{world.rank}: {type(error).__name__}: {error}", flush=True)
        raise


def raised():
    raise OSError("a disk is full")


def fit(callbacks=(), data=(x, y), model=None, **options):
    trainer = cases.trainer(world, model=model, **options)
    trainer.fit(data, 50, 48, callbacks=callbacks, progress=False)
    return trainer


if way in ("SIGKILL", "SIGSEGV"):
    fit([At(6, lambda: os.kill(os.getpid(), getattr(signal, way)))])
elif way == "exit":
    fit([At(6, lambda: os._exit(3))])
elif way == "raise":
    fit([At(6, raised)])
elif way == "raise outside":
    trainer = fit_once = cases.trainer(world)
    if last:
        raised()
    trainer.fit((x, y), 50, 48, progress=False)
elif way == "leave":
    trainer = cases.trainer(world)
    if last:
        sys.exit(0)
    trainer.fit((x, y), 50, 48, progress=False)
elif way == "seed":
    fit(seed=int(last))
elif way == "data":
    other = x.copy()
    other[0] += last
    fit(data=(other, y))
elif way == "many":
    for _ in range(3):
        nb.distributed.Ranks(world)
elif way == "validation":
    trainer = cases.trainer(world)
    trainer.fit((x, y), 50, 48, validation=test if last else None, progress=False)
elif way == "slices":
    fit(slices=4 if last else 8)
elif way == "version":
    sliced.__version__ = "0.0" if last else "1.0"
    fit()
elif way == "nan":
    model = nb.Sequential([nb.Conv2D(4, 3), nb.ReLU(), nb.Dropout(0.1), nb.Flatten(), nb.Dense(10)])
    trainer = cases.trainer(world, model=model)
    trainer.train_batch(x[:40], y[:40])
    before = cases.digest(trainer)
    images = x[:40].astype(np.float32)
    images[-1] = 3e38  # it overflows on the rank that has it
    caught = None
    try:
        trainer.train_batch(images, y[:40])
    except nb.errors.NonFiniteError as error:
        caught = str(error)
    assert cases.digest(trainer) == before
    trainer.train_batch(x[40:80], y[40:80])  # and goes on
    print(f"{world.rank}: {caught}", flush=True)
elif way == "caught":
    trainer = cases.trainer(world)
    for attempt in range(3):
        kinds = nb.errors.RankError, OSError
        with contextlib.suppress(*kinds), saying(*kinds):
            trainer.fit((x, y), 1 + attempt, 48, callbacks=[At(2 + 5 * attempt, raised)], progress=False)
    trainer.fit((x, y), 4, 48, progress=False)
    print(f"{world.rank}: {cases.digest(trainer)}", flush=True)
