"""Every operation has the same functions, with the same parameters, in each of its modules."""

import importlib
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_machine import GPU, SIMULATED

from nbnet.errors import BackendError, KernelError
from nbnet.kernels import BACKENDS, OPERATIONS, functions, load
from nbnet.kernels.activations import SMOOTH, TABLE
from nbnet.runtime.backend import check_cuda

operations = pytest.mark.parametrize("operation", OPERATIONS)


HAS_CUDA = importlib.util.find_spec("numba_cuda") is not None


def parameters(operation, function, backend):
    kernel = load(f"{operation}.{function}", backend)
    return list(inspect.signature(getattr(kernel, "py_func", kernel)).parameters)


def contract(operation):
    """{function: parameters} in the contract, from lines that start like `    forward(x, weight, bias, y)`. A line with NAME stands for
    one function for each activation, and OPTIONS for its options."""
    text = importlib.import_module(f"nbnet.kernels.{operation}").__doc__
    listed = re.findall(r"^ {4}(\w+)\(([\w,\s]+)\)", text, re.MULTILINE)
    rows = [TABLE[name] for name in SMOOTH]
    filled = [(name.replace("NAME", row.name), with_options(names, row)) for name, names in listed for row in rows]
    return {name: re.split(r",\s+", names) for name, names in filled}


def with_options(parameters, row):
    return parameters.replace(", OPTIONS", "".join(f", {option}" for option in row.options))


@operations
def test_reference_is_the_contract(operation):
    assert {name: parameters(operation, name, "numpy") for name in functions(operation)} == contract(operation)


@operations
def test_modules_have_the_same_functions(operation):
    """Always serial and parallel; cuda if numba-cuda is installed."""
    for backend in ("serial", "parallel", "cuda") if HAS_CUDA else ("serial", "parallel"):
        assert {name: parameters(operation, name, backend) for name in functions(operation)} == contract(operation), backend


@operations
def test_cpu_has_no_kernel_that_the_reference_lacks(operation):
    module = importlib.import_module(f"nbnet.kernels.{operation}.cpu")
    drivers = {name for name in dir(module) if re.search("._(serial|parallel)$", name)}  # those made from a table too
    assert drivers == {f"{name}_{kind}" for name in functions(operation) for kind in ("serial", "parallel")}


@operations
def test_serial_and_parallel_are_two_functions(operation):
    """Numba caches by Python function: one function jitted twice would run serial machine code as parallel."""
    for name in functions(operation):
        serial, parallel = load(f"{operation}.{name}", "serial"), load(f"{operation}.{name}", "parallel")
        assert serial.py_func is not parallel.py_func
        for kernel in (serial, parallel):
            assert kernel.targetoptions["fastmath"] == {"contract", "reassoc", "nsz", "arcp"}
            assert kernel.targetoptions["nogil"] is True


@operations
def test_parallel_differs_from_serial_by_its_loop_alone(operation):
    for name in functions(operation):
        serial, parallel = (inspect.getsource(load(f"{operation}.{name}", kind).py_func) for kind in ("serial", "parallel"))
        serial = serial.replace("@serial", "@parallel").replace(f"{name}_serial(", f"{name}_parallel(")
        parallel = re.sub(r"parallel_for_thread\((.+), \(", r"parallel_for(\1, (0, ", parallel)  # serial runs on thread 0
        one_loop = re.compile(r"for (\w) in range\((.+)\):\n        (\w+)\(\1, (.+)\)\n")
        assert parallel == one_loop.sub(r"parallel_for(\2, \3, (\4))\n", serial)
        assert "parallel_for(" in parallel


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_unknown_names_are_errors_that_name_the_nearest(backend):
    with pytest.raises(KernelError, match=r"did you mean 'moments'\?.*apply"):
        load("batchnorm.momets", backend)
    with pytest.raises(KernelError, match=r"unknown operation 'conv3d': did you mean 'conv2d'\?"):
        load("conv3d.forward", backend)


def test_unknown_backend():
    with pytest.raises(BackendError, match=r"unknown backend 'parallell': did you mean 'parallel'\?"):
        load("pool.max_forward", "parallell")


def test_a_missing_module_is_an_error_and_no_silent_fallback(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(KernelError, match="'pool' has no kernels for backend 'cuda' yet"):
        load.__wrapped__("pool.max_forward", "cuda")


def test_cuda_without_numba_cuda_is_one_line_with_the_fix(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"^backend 'cuda' needs numba-cuda: pip install 'nbnet\[cuda\]', or use 'parallel'"):
        check_cuda()


@pytest.mark.skipif(GPU or SIMULATED or not HAS_CUDA, reason="there is a GPU, or no numba-cuda")
def test_cuda_without_a_driver_is_one_line_with_the_fix():
    with pytest.raises(BackendError, match=r"^backend 'cuda' found no (NVIDIA driver|GPU).*: .*, or use 'parallel', 'serial' or 'numpy'$"):
        check_cuda()


@pytest.mark.skipif(SIMULATED or not HAS_CUDA, reason="there is no numba-cuda")
@pytest.mark.parametrize(
    ("driver", "gpus", "message"),
    [
        (
            (11, 8),
            1,
            r"driver knows CUDA 11\.8, but the toolkit installed is \d+\.\d+: update the driver, or pip install",
        ),
        ((99, 0), 0, "found a driver but no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES"),
    ],
)
def test_cuda_with_an_old_driver_or_no_gpu(monkeypatch, driver, gpus, message):
    from numba import cuda

    monkeypatch.setattr(cuda.cudadrv.driver, "get_version", lambda: driver)
    monkeypatch.setattr(cuda, "gpus", range(gpus))
    with pytest.raises(BackendError, match=message):
        check_cuda()


ONE_KERNEL = """
import numpy as np
from nbnet.kernels import load
kernel = load("activation.relu_forward", "serial")
kernel(np.ones(3, np.float32), np.ones(3, np.float32))
print(sum(kernel.stats.cache_hits.values()))
"""


def test_kept_machine_code_follows_all_sources(tmp_path):
    """A kernel is compiled again when a source changes that its file imports, as in an upgrade."""
    package = tmp_path / "nbnet"
    shutil.copytree(Path(__file__).parents[2] / "nbnet", package, ignore=shutil.ignore_patterns("__pycache__"))
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def hits():
        return int(
            subprocess.run([sys.executable, "-c", ONE_KERNEL], cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
        )

    assert [hits(), hits()] == [0, 1]
    chunks = package / "kernels" / "chunks.py"
    chunks.write_text(chunks.read_text(encoding="utf-8").replace("GRAIN = 32768", "GRAIN = 1024"), encoding="utf-8")
    assert [hits(), hits()] == [0, 1]
