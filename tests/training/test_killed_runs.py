"""Runs that are killed in the middle of a step, or of a save, and go on from the last file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nbnet as nb
from nbnet import storage
from training.small import small_model

KILLED_AFTER = (2, 3, 7, 11, 18)  # steps, in one run after the other
EPOCHS, BATCH = 8, 16


def make(backend):
    """A trainer with all that a step carries on: augmentation, an average, Muon's momenta, dropout, a schedule."""
    return nb.Trainer(
        small_model(backend, "float32"),
        nb.losses.SoftmaxCrossEntropy(label_smoothing=0.1),
        nb.Muon(0.02, momentum=0.9, groups={"7.dense*": {"adam": True}}),
        schedule="cosine",
        average=nb.ExponentialMovingAverage(0.9),
        augment=["flip", "crop", "mixup", nb.augment.RandomNoise(0.1)],
        metrics=["f1"],
    )


class Saving(nb.callbacks.Callback):
    """Saves after each batch, and says so."""

    def __init__(self, path):
        self.path = path

    def on_batch_end(self, trainer):
        trainer.save(self.path)
        print(trainer.step, flush=True)


def run(path, backend):
    """Train to the end, from the file if it is there."""
    trainer, rng = make(backend), np.random.default_rng(3)
    if path.exists():
        trainer.restore(path)
    data = rng.integers(0, 256, (70, 6, 6, 1), dtype=np.uint8), rng.integers(0, 3, 70)
    trainer.fit(data, EPOCHS, BATCH, callbacks=[Saving(path)])
    trainer.save(path)


def saved(path):
    arrays, metadata = storage.read(path)
    state = json.loads(metadata["run"])
    for times in (state["history"], state["position"]):
        times.pop("seconds", None)
    state["history"].pop("f1", None)  # rows before a restored position are not measured again
    return {name: array.tobytes() for name, array in arrays.items()}, state


@pytest.mark.parametrize("backend", ["serial", "parallel", "numpy"])
def test_killed_runs_end_with_the_same_bits(backend, tmp_path, capsys):
    run(tmp_path / "whole.safetensors", backend)
    path, folders = tmp_path / "killed.safetensors", [Path(__file__).parents[1], Path(nb.__file__).parents[1]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    for last in (*KILLED_AFTER, None):
        process = subprocess.Popen([sys.executable, __file__, path, backend], env=environment, stdout=subprocess.PIPE, text=True)
        with process:
            for line in process.stdout:
                if last is not None and int(line) >= last:  # a step later it may be saved before it is killed
                    process.kill()
        assert (process.returncode == 0) == (last is None)
    assert saved(path) == saved(tmp_path / "whole.safetensors")


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
