"""Long training with batch sizes that keep changing: memory stays within 2 % of what it was after warming up."""

import time
from pathlib import Path

import numpy as np

import nbnet as nb

LARGEST = 512  # rows of a batch
WARM = 8000  # batches: about a minute; by then every large size has come in every order
EVERY = 50  # batches per case
LIMIT = 1.02


def attack(rng, folder):
    model = nb.Sequential(
        [
            *(nb.Conv2D(16, 3, use_bias=False), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2)),
            *(nb.Conv2D(32, 3), nb.BatchNorm(), nb.ReLU(), nb.Flatten(), nb.Dropout(0.25), nb.Dense(10)),
        ]
    )
    model.build((16, 16, 3), backend="parallel", seed=0)
    trainer = nb.Trainer(model, loss="softmax_cross_entropy", optimizer=nb.Adam(1e-3))
    x, y = rng.normal(size=(LARGEST, 16, 16, 3)).astype(np.float32), rng.integers(0, 10, LARGEST)
    trainer.train_batch(x, y)
    _batches(trainer, x, y, rng, WARM)
    before = _memory()
    began = time.perf_counter()
    while True:
        _batches(trainer, x, y, rng, EVERY)
        now, minutes = _memory(), (time.perf_counter() - began) / 60
        grown = now > LIMIT * before
        yield f"after {minutes:.1f} minutes: {now / 1e6:.0f} MB, {before / 1e6:.0f} MB after warming up" if grown else None


def _batches(trainer, x, y, rng, count):
    for rows in rng.integers(2, LARGEST + 1, count):
        trainer.train_batch(x[:rows], y[:rows])
        trainer.model.predict(x[: rows // 2 + 1])


def _memory():
    """Physical memory of this process in bytes, as Linux reports it."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
