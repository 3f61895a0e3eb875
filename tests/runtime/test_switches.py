"""What works behind the user's back can be turned off with one line, and gives the same bits on or off."""

import os
import subprocess
import sys

import pytest

from nbnet.errors import ArgumentError
from nbnet.runtime import compile_ahead

SCRIPT = """
import hashlib, sys
import numpy as np
import nbnet as nb
from nbnet.runtime import lazy, memory

model = nb.Sequential([nb.Conv2D(16, 3), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.Flatten(), nb.Dropout(0.3), nb.Dense(3)])
model.build((12, 12, 3), seed=1)
trainer = nb.Trainer(model, optimizer=nb.Adam(0.01), replay="replay" in sys.argv)
rng = np.random.default_rng(0)
for _ in range(4):
    trainer.train_batch(rng.random((32, 12, 12, 3), dtype=np.float32), rng.integers(0, 3, 32))
print(hashlib.sha256(b"".join(array.tobytes() for array in model.state().values())).hexdigest())
print(len(trainer._passes._recordings), model.backend.pool.hits > 0, memory.POOLED, lazy.READ_AHEAD)
"""


def run(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_switch_gives_the_same_bits():
    bits, facts = run("replay")
    assert facts == "1 True True True"
    assert run() == [bits, "0 True True True"]
    assert run("replay", NBNET_MEMORY_POOL="0", NBNET_READ_AHEAD="0") == [bits, "1 False False False"]
    assert run("replay", NBNET_COMPILE_WORKERS="0", NUMBA_NUM_THREADS="1") == [bits, facts]


def test_the_number_of_compile_workers(monkeypatch):
    monkeypatch.setattr(compile_ahead, "WORKERS", 3)
    monkeypatch.setattr(compile_ahead, "processors", lambda: 3)
    monkeypatch.delenv(compile_ahead.VARIABLE, raising=False)
    assert compile_ahead.workers() == 2
    for text, count in (("0", 0), ("5", 5), ("", 2)):
        monkeypatch.setenv(compile_ahead.VARIABLE, text)
        assert compile_ahead.workers() == count
    monkeypatch.setenv(compile_ahead.VARIABLE, "two")
    with pytest.raises(ArgumentError, match="NBNET_COMPILE_WORKERS='two': expected a whole number of processes, 0 for none"):
        compile_ahead.workers()
