"""Forks and threads: in processes of their own, since what is tested for is the end of the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(script, **environment):
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=250)


FORK = """
import os, sys, warnings
import numpy as np, nbnet as nb
warnings.simplefilter("ignore")  # Python's own: JAX and others warn of forks with threads
x = np.arange(12.0).reshape(4, 3)
{before}
child = os.fork()
if child == 0:
    y, _ = nb.functional.batch_norm_forward(x, None, None, backend="serial")
    print("serial", y.shape, flush=True)
    try:
        y, _ = nb.functional.batch_norm_forward(x, None, None, backend="parallel")
        print("parallel", y.shape, flush=True)
    except nb.NbnetError as error:
        print(error, flush=True)
    os._exit(0)
print("child", os.waitpid(child, 0)[1])
"""
PARALLEL = "nb.functional.batch_norm_forward(x, None, None, backend='parallel')"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("before", "layer", "wanted"),
    [
        ("", "omp", "parallel (4, 3)"),
        (PARALLEL, "omp", "this process was forked after its parent ran parallel kernels, and a fork has no OpenMP threads"),
        (PARALLEL, "workqueue", "parallel (4, 3)"),
    ],
    ids=["before any kernel", "after parallel kernels", "workqueue"],
)
def test_a_forked_child_works_or_says_why_not(before, layer, wanted):
    result = run(FORK.format(before=before), NUMBA_THREADING_LAYER=layer)
    if layer == "omp" and "No threading layer could be loaded" in result.stderr:
        pytest.skip("no OpenMP here")
    lines = result.stdout.splitlines()
    assert lines[0] == "serial (4, 3)", result.stderr
    assert lines[1].startswith(wanted), result.stdout
    assert lines[2] == "child 0", result.stdout


THREADS = """
import threading
import numpy as np, nbnet as nb
x = np.random.default_rng(0).normal(size=(70000, 3))
wanted, _ = nb.functional.batch_norm_forward(x, None, None)
results = []
def work():
    for _ in range(60):
        y, _ = nb.functional.batch_norm_forward(x, None, None)
        results.append((y == wanted).all())
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import numba
print(numba.threading_layer(), len(results), all(results))
"""


@pytest.mark.parametrize("layer", ["workqueue", "default"])
def test_threads_may_call_parallel_kernels_at_once(layer):
    result = run(THREADS, NUMBA_THREADING_LAYER=layer)
    assert result.returncode == 0, result.stderr
    chosen, count, right = result.stdout.split()
    assert layer in (chosen, "default")
    assert (count, right) == ("180", "True")
