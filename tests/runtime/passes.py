"""Trainers that replay their passes, and others that do not, after the same steps."""

import numpy as np

import nbnet as nb


class Doubled(nb.Layer):
    """A user's layer: Python of its own, in which every step is another one."""

    calls = 0

    def forward(self, x, train=False):
        self.calls += train
        return x * np.asarray(self.calls, x.dtype), self.calls

    def backward(self, dy, saved, need_dx=True):
        return dy * np.asarray(saved, dy.dtype)


def trainer(layers, backend="parallel", dtype="float32", replayed=True, **options):
    model = nb.Sequential(layers)
    model.build((7, 6, 3), backend=backend, dtype=dtype, seed=3)
    return nb.Trainer(model, optimizer=nb.Adam(0.01), replay=replayed, **options)


def batch(rows=8, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 7, 6, 3)).astype(dtype), rng.integers(0, 3, rows)


def recordings(trainer):
    return [recording for recording in trainer._passes._recordings.values() if recording]


def state(trainer):
    return {name: array.tobytes() for name, array in trainer.model.state().items()}


def both(layers, steps, **options):
    """Two trainers, one that plays back and one that does not, after the same steps(trainer), which gives metrics."""
    replayed, plain = trainer(layers(), **options), trainer(layers(), replayed=False, **options)
    assert steps(replayed) == steps(plain)
    assert state(replayed) == state(plain)
    assert not recordings(plain)
    return replayed


def live(trainer):
    """The names of the stages that run live in the only recording."""
    (recording,) = recordings(trainer)
    return [stage.name for stage in recording.live]
