"""Kernels that other processes compile: which ones, and that nothing depends on it."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nbnet as nb
from nbnet import models
from nbnet.kernels import load
from nbnet.kernels.cpu.cache import compiling_elsewhere
from nbnet.runtime import compile_ahead


def built(name, dtype="float32", backend="serial"):
    model = models.MODELS[name](10)
    model.build((25, 25, 3) if name == "airbench" else (8, 8, 1), backend=backend, dtype=dtype)
    return model


def small():
    model = nb.Sequential([nb.BatchNorm(), nb.Tanh(), nb.Dropout(0.5)])
    model.build((3,), backend="serial")
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", models.MODELS)
def test_the_calls_are_those_of_a_real_pass(name, dtype, monkeypatch):
    model, real, made = built(name, dtype, "numpy"), nb.get_backend("numpy").kernel, {}  # the same calls, and nothing to compile

    def noting(op):
        def call(*args):
            made[op, tuple(load(op, "serial").typeof_pyval(arg) for arg in args)] = None
            real(op)(*args)

        return call

    wanted = compile_ahead.calls(built(name, dtype), 3)
    monkeypatch.setattr(model.backend, "kernel", noting)
    x = np.zeros((3, *model.input_shape), dtype)
    y, tape = model.forward(x, train=True)
    model.backward(y, list(tape), need_dx=False)
    assert wanted == list(made)
    assert len(wanted) > compile_ahead.FEW


def test_a_blank_pass_changes_nothing(rng):
    model = built("lenet")
    before = {name: array.tobytes() for name, array in model.state().items()}
    held = [dict(vars(layer)) for layer in model.walk()]
    compile_ahead.calls(model, 8)
    assert {name: array.tobytes() for name, array in model.state().items()} == before
    for layer, attributes in zip(model.walk(), held, strict=True):
        assert vars(layer).keys() == attributes.keys()
        assert all(vars(layer)[name] is value for name, value in attributes.items())


def test_training_after_a_blank_pass_is_the_same(rng):
    x, y = rng.random((8, 3), dtype=np.float32), np.arange(8) % 3
    losses = []
    for looks in (False, True):
        model = small()
        trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
        if looks:
            compile_ahead.calls(model, 8)
        losses.append([trainer.train_batch(x, y)["loss"] for _ in range(3)])
    assert losses[0] == losses[1]


SCRIPT = """
import sys
import numpy as np, nbnet as nb
from nbnet.runtime import compile_ahead
from nbnet.kernels import load

compile_ahead.processors = lambda: int(sys.argv[1])
model = nb.Sequential([nb.BatchNorm(), nb.Tanh(), nb.Dropout(0.5)])
model.build((3,), backend="serial")
trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
x = np.random.default_rng(0).random((16, 3), dtype=np.float32)
print(trainer.train_batch(x, np.arange(16) % 3)["loss"])
print(len(compile_ahead.compiled))
kernels = [load(op, "serial") for op in dict.fromkeys(op for op, _ in compile_ahead.calls(model, 2))]
print([sum(kernel.stats.cache_misses.values()) for kernel in kernels])
"""


def run_script(folder, processors):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    found = subprocess.run([sys.executable, "-c", SCRIPT, str(processors)], env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    loss, given, misses = found.stdout.splitlines()
    return loss, int(given), [int(count) for count in misses.strip("[]").split(",")]


def test_a_worker_compiles_the_last_kernels_and_only_them(tmp_path):
    loss, given, misses = run_script(tmp_path, 2)
    assert given > 0
    kernels = len(misses) // 2
    assert all(misses[:kernels])
    assert not any(misses[kernels:])  # they were in the cache when they were called
    assert run_script(tmp_path, 2) == (loss, 0, [0] * len(misses))


@pytest.mark.parametrize(("processors", "workers"), [(1, 0), (2, 1), (3, 2), (64, 3)])
def test_work_is_dealt_by_kernels(processors, workers, monkeypatch):
    dealt = []
    monkeypatch.setattr(compile_ahead, "WORKERS", 3)
    monkeypatch.setattr(compile_ahead, "processors", lambda: processors)
    monkeypatch.setattr(compile_ahead, "is_missing", lambda kernel, types: True)
    monkeypatch.setattr(compile_ahead, "_Worker", lambda backend, work: dealt.append(work))
    model = built("five-conv")
    compile_ahead.compile_ahead(model, 2)
    assert len(dealt) == workers
    kernels = list(dict.fromkeys(op for op, _ in compile_ahead.calls(model, 2)))
    theirs = sorted((op for work in dealt for op, _ in work), key=kernels.index)
    assert theirs == (kernels[len(kernels) // (workers + 1) :] if workers else [])
    for op, calls in (pair for work in dealt for pair in work):
        assert calls == [call for call in compile_ahead.calls(model, 2) if call[0] == op]


def test_what_one_worker_has_in_hand_is_not_given_to_another(monkeypatch):
    dealt = []
    monkeypatch.setattr(compile_ahead, "WORKERS", 3)
    monkeypatch.setattr(compile_ahead, "processors", lambda: 2)
    monkeypatch.setattr(compile_ahead, "is_missing", lambda kernel, types: True)
    monkeypatch.setattr(compile_ahead, "_Worker", lambda backend, work: dealt.extend(op for op, _ in work))
    busy = load("conv2d.backward_data", "serial")
    monkeypatch.setitem(compiling_elsewhere, busy, lambda: None)
    compile_ahead.compile_ahead(built("five-conv"), 2)
    assert "conv2d.backward_weights" in dealt
    assert "conv2d.backward_data" not in dealt


def test_calls_are_those_of_the_batch_that_comes():
    """A large one is taken through a convolution's backward in blocks, whose gradients are added up."""
    model = models.MODELS["five-conv"](10)
    model.build((32, 32, 3), backend="serial")
    few, many = ({op for op, _ in compile_ahead.calls(model, rows)} for rows in (2, 64))
    assert many - few == {"array.add"}


def test_a_program_that_is_not_python_is_not_started_again(monkeypatch):
    monkeypatch.setattr(compile_ahead, "WORKERS", 3)
    monkeypatch.setattr(compile_ahead, "processors", lambda: 4)
    monkeypatch.setattr(compile_ahead, "is_missing", lambda kernel, types: True)
    monkeypatch.setattr(compile_ahead, "get_executable", lambda: "/usr/bin/viewer")
    monkeypatch.setattr(compile_ahead, "_Worker", lambda *args: pytest.fail("a worker"))
    compile_ahead.compile_ahead(built("five-conv"), 2)


def test_what_is_compiled_needs_no_worker(monkeypatch):
    model = small()
    y, tape = model.forward(np.zeros((2, 3), np.float32), train=True)
    model.backward(y, list(tape), need_dx=False)
    assert len(compile_ahead.calls(model, 2)) >= compile_ahead.FEW
    monkeypatch.setattr(compile_ahead, "WORKERS", 3)
    monkeypatch.setattr(compile_ahead, "_Worker", lambda *args: pytest.fail("a worker"))
    compile_ahead.compile_ahead(model, 2)


@pytest.mark.parametrize("program", [shutil.which("false") or "no-such-program", "/nowhere/python"])
def test_a_worker_that_fails_is_not_waited_for(program, monkeypatch):
    monkeypatch.setattr(compile_ahead, "get_executable", lambda: program)
    monkeypatch.setattr(compile_ahead, "compiled", [])
    kernel = load("array.add", "serial")
    compile_ahead._Worker("serial", [("array.add", [("array.add", ())])])
    for _ in range(2):
        compiling_elsewhere.get(kernel, lambda: None)()  # it returns at all
    compiling_elsewhere.pop(kernel, None)
    assert compile_ahead.compiled == []


def test_a_worker_that_hangs_is_given_up(monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(compile_ahead, "get_executable", lambda: str(program))
    monkeypatch.setattr(compile_ahead, "PATIENCE", 0.2)
    worker = compile_ahead._Worker("serial", [("array.add", [("array.add", ())])])
    compiling_elsewhere.pop(load("array.add", "serial"))()
    assert worker._process.returncode is not None
    assert worker._process.stdout.closed


def test_a_fork_does_not_wait(monkeypatch):
    worker = compile_ahead._Worker("serial", [])
    with monkeypatch.context() as patch:
        patch.setattr(worker._process, "stdout", None)  # reading would fail
        patch.setattr(os, "getpid", lambda: -1)
        worker._wait(1)
    worker._wait(1)
    assert worker._process.returncode == 0


AS_ON_WINDOWS = "; import nbnet.runtime.compile_ahead as c; c.WINDOWS = True; main()"
PARENT = """
import time
from nbnet import models
from nbnet.runtime import compile_ahead

model = models.MODELS["five-conv"](10)
model.build((8, 8, 1), backend="serial")
call = next(call for call in compile_ahead.calls(model, 2) if call[0] == "conv2d.forward")
worker = compile_ahead._Worker("serial", [("conv2d.forward", [call])])
print(worker._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.kill as on Unix")
@pytest.mark.parametrize("windows", [False, True])
def test_a_worker_exits_with_its_parent(tmp_path, windows):
    """Also while it compiles a large kernel."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    start = "from nbnet.runtime import compile_ahead\ncompile_ahead.COMMAND = compile_ahead.COMMAND.replace('; main()', AS_ON_WINDOWS)\n"
    code = f"AS_ON_WINDOWS = {AS_ON_WINDOWS!r}\n{start}{PARENT}" if windows else PARENT
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        try:
            pid = int(parent.stdout.readline())
            time.sleep(1.5)  # the worker has started, and compiles
            assert alive(pid)
        finally:
            parent.kill()
    for _ in range(50):
        if not alive(pid):
            break
        time.sleep(0.1)
    assert not alive(pid)
    assert not list(tmp_path.rglob("*.nbc"))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a zombie has exited
    return not stat.exists() or stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
