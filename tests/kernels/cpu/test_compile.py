"""Machine code on disk: with several processes, when one is killed, and what it is linked against."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from nbnet.kernels import load
from nbnet.kernels.cpu.cache import KernelCache
from nbnet.kernels.cpu.numba_private import cache_of
from nbnet.kernels.sources import KernelFiles

CODE = """
import numpy as np
from nbnet.kernels.array.cpu import add_serial as add
a = np.ones(5, np.{dtype})
y = np.zeros(5, np.{dtype})
add(a, a, y)
print((y == 2).all(), sum(add.stats.cache_hits.values()))
"""


def add(cache, dtype):
    """A process that adds and prints whether the sums are right, and how many kernels came from disk."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen([sys.executable, "-c", CODE.format(dtype=dtype)], env=env, stdout=subprocess.PIPE, text=True)


def said(process):
    return process.communicate(timeout=120)[0].split()


def test_processes_that_save_at_once(tmp_path):
    for process in [add(tmp_path, dtype) for dtype in ("float32", "float64", "float32", "float64")]:
        assert said(process)[0] == "True"
    for dtype in ("float32", "float64"):  # none is lost or mixed up
        assert said(add(tmp_path, dtype)) == ["True", "1"]
    assert len(list(tmp_path.rglob("*add_serial*.nbc"))) == 2


def files(folder, stamp, dumps=pickle.dumps):
    return KernelFiles(folder, "add-1.py", stamp, dumps)


def test_a_process_that_is_killed_leaves_no_file_with_other_code(tmp_path):
    def killed(data):
        raise KeyboardInterrupt

    old, new = files(tmp_path, "old sources"), files(tmp_path, "new sources")
    old.save(("float32",), "old code")
    with pytest.raises(KeyboardInterrupt):
        files(tmp_path, "new sources", killed).save(("float32",), "new code")
    assert new.load(("float32",)) is None
    assert old.load(("float32",)) == "old code"
    new.save(("float32",), "new code")
    new.save(("float64",), "new code for others")
    assert (new.load(("float32",)), new.load(("float64",))) == ("new code", "new code for others")
    assert len(list(tmp_path.iterdir())) == 2  # without the old one


def test_all_kernels_use_this_cache():
    assert all(isinstance(cache_of(load("array.add", backend)), KernelCache) for backend in ("serial", "parallel"))


WARM = """
import numpy as np
from nbnet.kernels.conv2d import cpu
from nbnet.kernels.cpu import gemm, threads
assert gemm._define.cache_info().currsize == 0  # nothing is compiled at import
assert threads._running is None
import nbnet as nb
y, saved = nb.functional.dense_forward(np.ones((70, 40), np.{dtype}), np.ones((40, 30), np.{dtype}), backend="{backend}")
print((y == 40).all(), sum(nb.kernels.load("dense.forward", "{backend}").stats.cache_hits.values()), gemm._define.cache_info().currsize)
"""


@pytest.mark.parametrize("backend", ["serial", "parallel"])
def test_a_kernel_from_disk_has_what_it_is_linked_against(tmp_path, backend):
    """The matrix product of its own dtype, and no other one."""
    for hits in (0, 1):
        for dtype in ("float32", "float64"):
            env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
            code = WARM.format(dtype=dtype, backend=backend)
            result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
            assert result.stdout.split() == ["True", str(hits), "1"], result.stderr


FORMULA = """
import numpy as np
from nbnet.kernels.cpu.channelwise import compiled
from formulas import scaled
y = np.zeros(3)
kernel = compiled(scaled, 1, (True,), False)
kernel(y, np.ones(3))
print(y[0], sum(kernel.stats.cache_hits.values()), kernel.py_func.__code__.co_filename)
"""


def test_generated_kernels_are_kept_until_their_formula_changes(tmp_path):
    def result():
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])
        return subprocess.run([sys.executable, "-c", FORMULA], env=env, capture_output=True, text=True, check=True).stdout.split()

    formulas = tmp_path / "formulas.py"
    formulas.write_text("def scaled(x):\n    return (2 * x,)\n", encoding="utf-8")
    assert result()[:2] == ["2.0", "0"]
    y, hits, path = result()
    assert (y, hits) == ("2.0", "1")
    assert "values = formula(in0[c])" in Path(path).read_text(encoding="utf-8")  # for tracebacks
    formulas.write_text("def scaled(x):\n    return (3 * x,)\n", encoding="utf-8")
    assert result()[:2] == ["3.0", "0"]


NOTHING_KEPT = """
import numpy as np
from nbnet.kernels.cpu.numba_private import FunctionCache
{problem}
import nbnet as nb
from nbnet.cli.info import facts
from nbnet.cli.kernels import is_cold
from nbnet.runtime import compile_ahead
x = np.arange(12.0).reshape(4, 3)
y, _ = nb.functional.batch_norm_forward(x, None, None, backend="serial")
print(np.allclose(y, (x - x.mean(axis=0)) / x.std(axis=0)), is_cold("serial"))
model = nb.Sequential([nb.Dense(2), nb.BatchNorm(), nb.ReLU(), nb.Dense(2)])
model.build((3,), backend="serial")
compile_ahead.WORKERS = 2
compile_ahead.compile_ahead(model, 4)
print(len(compile_ahead.compiling_elsewhere), dict(facts())["kernel cache"], sep="; ")
"""
NO_FOLDER = """
def nothing(self, function):
    raise RuntimeError("cannot cache function 'add': no locator available for file 'add.py'")
FunctionCache.__init__ = nothing
"""
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))
"""


@pytest.mark.parametrize(
    "problem", [NO_FOLDER, pytest.param(FULL_DISK, marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits"))]
)
def test_a_call_where_nothing_can_be_kept(tmp_path, problem):
    """The result comes all the same, after one warning; no process compiles what the others would not find."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    code = NOTHING_KEPT.format(problem=problem)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "True True"
    assert done.stderr.count("RuntimeWarning: compiled kernels are not kept on disk") == 1
    assert done.stderr.count("Warning") == 1
    if problem == NO_FOLDER:
        assert second == "0; none: kernels are compiled again in each process; set NUMBA_CACHE_DIR to a folder that you can write to"
    assert not list(tmp_path.rglob("*.nbc"))


FORK = """
import os, signal, sys, threading, time
from nbnet.kernels.cpu.numba_private import {lock}, COMPILING
from nbnet.kernels.cpu import compile as _

class Alarm(Exception):
    pass

def alarm(*_):
    raise Alarm

def work():
    with {lock}:
        held.set()
        time.sleep(1)

def take(free):
    for lock in COMPILING:
        free.append(lock.acquire(timeout=10))
        if free[-1]:
            lock.release()

def is_free():
    free = []
    other = threading.Thread(target=take, args=(free,))
    other.start()
    other.join()
    return free

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, alarm)
parent, held, child = os.getpid(), threading.Event(), None
holder = threading.Thread(target=work)
holder.start()
held.wait()
threading.Timer(0.2, os.kill, (parent, signal.{signal})).start()
try:
    if os.fork() == 0:
        time.sleep(0.1)
        print("child", is_free(), flush=True)
        os._exit(0)
    time.sleep(5)
except BaseException as error:
    print("parent" if os.getpid() == parent else "child", type(error).__name__, flush=True)
os.wait()
holder.join()
print("parent", is_free(), flush=True)
child = os.fork()
if child == 0:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("lock", ["global_compiler_lock", "llvm_lock"])
@pytest.mark.parametrize(("signal", "error"), [("SIGINT", "KeyboardInterrupt"), ("SIGALRM", "Alarm")])
def test_an_interrupt_while_a_fork_waits(lock, signal, error):
    """The parent raises it after the fork, and neither process has a locked lock."""
    code = FORK.format(lock=lock, signal=signal)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert sorted(done.stdout.splitlines()) == ["7", "child [True, True]", f"parent {error}", "parent [True, True]"], done.stderr
    assert done.stderr == ""


COUNTED = """
from collections import Counter
import numpy as np
import nbnet as nb
from numba.core import event

class Compilations(event.Listener):
    def on_start(self, started):
        function, types = started.data["dispatcher"].py_func, started.data["args"]
        counts[function.__module__, function.__qualname__, function.__code__, types] += 1

    def on_end(self, ended):
        pass

counts = Counter()
event.register("numba:compile", Compilations())
{work}
ours = {{key: n for key, n in counts.items() if key[0].startswith("nbnet.") and "<locals>" not in key[1]}}
print(len(ours), *sorted({{key[1] for key, n in ours.items() if n > 1}}))
"""
WORK = {
    "batch norm": """
x, ones = np.ones((4, 16), np.float32), np.ones(16, np.float32)
y, saved = nb.functional.batch_norm_forward(x, ones, ones)
nb.functional.batch_norm_backward(y, saved)
""",
    "dropout": """
x = np.ones((4, 16), np.float32)
y, saved = nb.functional.dropout_forward(x, 0.5, seed=1)
nb.functional.dropout_backward(y, saved)
""",
    "a digits network": """
model = nb.models.digits()
model.build((8, 8, 1))
nb.Trainer(model, optimizer="adam").train_batch(np.ones((64, 8, 8, 1), np.float32), np.zeros(64, int))
""",
}


@pytest.mark.parametrize(("work", "most"), [("batch norm", 30), ("dropout", 13), ("a digits network", 157)])
def test_how_many_functions_are_compiled(tmp_path, work, most):
    """The first step waits for them, so more of them need a reason. None is compiled twice, but for rules of a few lines that kernels
    with and without fastmath share."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NBNET_COMPILE_WORKERS": "0"}
    done = subprocess.run([sys.executable, "-c", COUNTED.format(work=WORK[work])], env=env, capture_output=True, text=True, check=True)
    count, *twice = done.stdout.split()
    assert 0 < int(count) <= most
    assert set(twice) <= {"count", "bounds", "strip_rows", "extent", "within", "uses_col2im"}
