"""The threads of parallel loops."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numba import config, njit

from nbnet.kernels.cpu import threads
from nbnet.kernels.cpu.atomics import add, load, pause
from nbnet.kernels.cpu.compile import body
from nbnet.kernels.cpu.parallel_for import parallel_for, parallel_for_thread

ROOT = Path(__file__).parents[3]
shared = pytest.mark.skipif(config.NUMBA_NUM_THREADS < 2, reason="there is only one thread")


def run(script, **environment):
    env = os.environ | environment
    return subprocess.run([sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)


@body
def _wait_for_the_rest(k, done, others):
    """Thread 0 starts with k = 0, which ends only after all others are done: other threads must have run them."""
    if k > 0:
        done[k] = 1
        add(others.ctypes.data, 1)
        return
    for _ in range(10**9):  # a minute; atomic, since LLVM may read a number of an array once and for all
        if load(others.ctypes.data) == done.size - 1:
            done[0] = 1
            break
        pause()


@njit(nogil=True)
def _first_waits(done, others):
    parallel_for(done.size, _wait_for_the_rest, (done, others))


@shared
def test_threads_claim_what_another_has_not_started():
    for count in (2, 3, 64):
        done = np.zeros(count)
        _first_waits(done, np.zeros(1, np.intp))
        assert done.all()


@body
def _use_workspace(k, thread, workspaces, seen, conflicts):
    workspaces[thread] += 1
    if workspaces[thread] != 1:
        conflicts[0] += 1
    total = 0.0
    for i in range(1000):
        total += np.sqrt(np.float64(i + k))
    seen[k] = total
    workspaces[thread] -= 1


@njit(nogil=True)
def _with_workspaces(workspaces, seen, conflicts):
    parallel_for_thread(seen.size, _use_workspace, (workspaces, seen, conflicts))


@pytest.mark.parametrize("count", [1, 2, 100, 5000])
def test_a_thread_has_its_number_to_itself(count):
    workspaces, conflicts = np.zeros(config.NUMBA_NUM_THREADS), np.zeros(1)
    expected = [sum(np.sqrt(np.arange(1000.0) + k)) for k in range(count)]
    for _ in range(20):
        seen = np.zeros(count)
        _with_workspaces(workspaces, seen, conflicts)
        np.testing.assert_allclose(seen, expected, rtol=1e-12)
    assert conflicts[0] == 0
    assert (workspaces == 0).all()


@body
def _count(k, counts):
    counts[k] += 1


@njit(nogil=True)
def _count_all(counts, times):
    for _ in range(times):
        parallel_for(counts.size, _count, (counts,))


def test_many_short_loops_one_after_another():
    counts = np.zeros(7, np.int64)
    _count_all(counts, 200_000)
    assert (counts == 200_000).all()


def _asleep():
    slots = range(1, config.NUMBA_NUM_THREADS)
    return [threads._number(threads.SLOTS + t * threads.LINE + threads.ASLEEP).value for t in slots]


@shared
def test_threads_sleep_when_there_is_nothing_to_do_and_wake_up():
    for _ in range(5):
        counts = np.zeros(64)
        _count_all(counts, 1)
        assert (counts == 1).all()
        patience = time.perf_counter() + 20
        while not all(_asleep()) and time.perf_counter() < patience:
            time.sleep(0.002)
        assert all(_asleep())
    used = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - used < 0.1


def test_callers_at_once():
    """One caller gets the threads; the others run their loops alone."""
    wrong = []

    def work():
        for _ in range(50):
            counts = np.zeros(1000)
            _count_all(counts, 40)
            wrong.extend(counts[counts != 40])

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


FORK = """
import os, threading, warnings
import numpy as np, nbnet as nb
warnings.simplefilter("ignore")  # Python's own: JAX and others warn of forks with threads
x = np.random.default_rng(0).normal(size=(70000, 3))
def mean(backend):
    return nb.functional.batch_norm_forward(x, None, None, backend=backend)[0]
def names():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("nbnet-")]
expected = mean("serial")
{before}
child = os.fork()
if child == 0:
    assert names() == []
    for _ in range(3):
        assert (mean("parallel") == expected).all()
    print(len(names()), flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], (mean("parallel") == expected).all(), len(names()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("before", ["", "mean('parallel')"], ids=["before any kernel", "after parallel kernels"])
def test_a_forked_child_has_threads_of_its_own(before):
    result = run(FORK.format(before=before))
    others = config.NUMBA_NUM_THREADS - 1
    assert result.stdout.split() == [str(others), "0", "True", str(others)], result.stderr


EXIT = """
import threading
import numpy as np, nbnet as nb
x = np.ones((70000, 3))
def work():
    while True:
        nb.functional.batch_norm_forward(x, None, None)
{}
nb.functional.batch_norm_forward(x, None, None)
"""


@pytest.mark.parametrize("other", ["", "threading.Thread(target=work, daemon=True).start()"], ids=["one caller", "another at work"])
def test_the_process_ends(other):
    result = run(EXIT.format(other))
    assert (result.returncode, result.stderr) == (0, "")


INTERRUPTED = """
import threading
import numpy as np, nbnet as nb
from nbnet.kernels.cpu import threads
start, started = threading.Thread.start, []
def interrupted(thread):
    if thread.name.startswith("nbnet-") and len(started) == 1:
        started.append(thread)
        raise KeyboardInterrupt
    started.append(thread)
    start(thread)
threading.Thread.start = interrupted
try:
    threads.start()
except KeyboardInterrupt:
    print("interrupted")
threads.start()
x = np.random.default_rng(0).normal(size=(70000, 3))
results = [nb.functional.batch_norm_forward(x, None, None, backend=backend)[0] for backend in ("serial", "parallel")]
print((results[0] == results[1]).all(), len(started))
"""


def test_a_start_that_is_interrupted_is_not_begun_again():
    result = run(INTERRUPTED, NUMBA_NUM_THREADS="5")
    assert result.stdout.split() == ["interrupted", "True", "2"], result.stderr
    assert result.returncode == 0


SETTINGS = """
import os
import numba, numpy as np, nbnet as nb
os.environ["NUMBA_NUM_THREADS"] = "512"  # Numba reads it again whenever it compiles
x = np.ones((70000, 3))
print(nb.get_backend("parallel").threads, nb.functional.batch_norm_forward(x, None, None)[0].sum())
"""


def test_a_number_of_threads_set_too_late_is_ignored():
    result = run(SETTINGS)
    assert result.stdout.split() == [str(config.NUMBA_NUM_THREADS), "0.0"], result.stderr


AT_ONCE = """
import sys
import threading
import numpy as np
from nbnet.kernels.cpu import threads as pool
from nbnet.kernels.array.cpu import add_parallel
sys.setswitchinterval(1e-5)
a = np.ones(10**5)
def by_backend():
    pool.start()
def by_kernel():
    add_parallel(a, a, a * 0)
callers = [threading.Thread(target=target, daemon=True) for target in (by_kernel, by_backend, by_kernel)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join(60)
print(sum(caller.is_alive() for caller in callers))
"""


def test_the_first_loops_of_several_threads(tmp_path):
    """Some acquire Numba's lock first, others the pool's."""
    result = run(AT_ONCE, NUMBA_CACHE_DIR=str(tmp_path))
    assert result.stdout.split() == ["0"], result.stderr


LIMITED = """
import threading
import numpy as np, nbnet as nb
start, started = threading.Thread.start, []
def limited(thread):
    if thread.name.startswith("nbnet-"):
        if len(started) == {most}:
            raise RuntimeError("can't start new thread")
        started.append(thread)
    start(thread)
threading.Thread.start = limited
x = np.random.default_rng(0).normal(size=(70000, 3))
for _ in range(2):
    results = [nb.functional.batch_norm_forward(x, None, None, backend=backend)[0] for backend in ("serial", "parallel")]
    print((results[0] == results[1]).all())
print(len(started))
"""


@pytest.mark.parametrize("most", [0, 2])
def test_threads_that_cannot_start_are_not_needed(most):
    result = run(LIMITED.format(most=most), NUMBA_NUM_THREADS="5")
    assert result.stdout.split() == ["True", "True", str(most)], result.stderr
    assert result.returncode == 0


def test_more_threads_than_processors():
    result = run(LIMITED.format(most=1000), NUMBA_NUM_THREADS="67")
    assert result.stdout.split() == ["True", "True", "66"], result.stderr


SPIN = """
import time
import numpy as np, nbnet as nb
from nbnet.errors import ArgumentError
x = np.random.default_rng(0).normal(size=(70000, 3))
try:
    results = [nb.functional.batch_norm_forward(x, None, None, backend=backend)[0] for backend in ("serial", "parallel")]
except ArgumentError as error:
    print(error)
    raise SystemExit
used, start = time.process_time(), time.perf_counter()
time.sleep(0.3)
print((results[0] == results[1]).all(), (time.process_time() - used) / (time.perf_counter() - start) > 0.05)
"""


@shared
@pytest.mark.parametrize(("microseconds", "spins"), [("", False), ("0", False), ("5000000", True)])
def test_how_long_threads_spin_is_a_setting(microseconds, spins):
    """The same machine code spins for another time: it is not compiled in."""
    result = run(SPIN, NBNET_SPIN_MICROSECONDS=microseconds)
    assert result.stdout.split() == ["True", str(spins)], result.stderr


@pytest.mark.parametrize("text", ["soon", "-1", "0.5", "1" * 30])
def test_a_time_to_spin_that_is_none(text):
    result = run(SPIN, NBNET_SPIN_MICROSECONDS=text)
    expected = "expected a whole number of microseconds below 10^9, 0 to sleep at once"
    assert result.stdout.strip() == f"NBNET_SPIN_MICROSECONDS={text!r}: {expected}", result.stderr


COMPILING = """
import os, threading, time, warnings
import numpy as np, nbnet as nb
from numba import njit
from nbnet.kernels.cpu import numba_private
warnings.simplefilter("ignore")
held = threading.Event()
def work():
    with numba_private.{lock}:
        held.set()
        time.sleep(0.3)
thread = threading.Thread(target=work)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    print(njit(lambda x: x + 1)(1.5), flush=True)
    os._exit(0)
thread.join()
for _ in range(600):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
    status = "hangs"
print(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("lock", ["global_compiler_lock", "llvm_lock"])
def test_a_child_can_compile_after_a_fork_while_another_thread_compiled(lock):
    result = run(COMPILING.format(lock=lock))
    assert result.stdout.split() == ["2.5", "0"], result.stderr
