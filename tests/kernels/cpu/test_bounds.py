"""Kernels that take scratch of their own, compiled with checks of every index: no guard of the tests lies around that scratch."""

import os
import subprocess
import sys

# Sizes that are no multiple of a block, in one chunk and in several.
CODE = """
import numpy as np
from nbnet.kernels import load
rng = np.random.default_rng(0)
for rows in (1, 7, 8, 9, 16, 17, 40, 9001):
    logits, labels = rng.normal(size=(rows, 5)), rng.integers(0, 5, rows)
    losses, hits = np.empty(rows), np.empty(rows, np.uint8)
    load("loss.softmax_cross_entropy", "serial")(logits, labels, 1.0, losses, hits, np.empty_like(logits))
    wanted = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(rows), labels]
    assert np.allclose(losses, wanted)
    for weights in (np.ones((rows, 1)), np.ones((rows, 5))):
        mean, m2 = np.empty(5), np.empty(5)
        load("batchnorm.moments", "serial")(logits, weights, np.empty((1, 3, 5)), mean, m2)
        assert np.allclose(m2, ((logits - mean) ** 2).sum(axis=0))
    total = np.empty(1)
    load("array.squares", "serial")(logits.reshape(-1), total)
    assert np.allclose(total, (logits**2).sum())
print("all inside")
"""


def test_scratch_of_kernels(tmp_path):
    env = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("all inside\n", 0), done.stderr[-500:]
