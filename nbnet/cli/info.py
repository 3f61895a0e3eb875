"""nbnet info: what a bug report should contain."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbnet.datasets import download
from nbnet.errors import BackendError
from nbnet.kernels import load
from nbnet.kernels.cpu import threads
from nbnet.kernels.sources import check_folder
from nbnet.runtime import compile_ahead, lazy, memory
from nbnet.runtime.backend import check_cuda
from nbnet.runtime.processors import processors
from nbnet.version import __version__

HELP = "Show versions, the processor, threads, cache folders and the GPU."
EPILOG = """examples:
  nbnet info
  NUMBA_NUM_THREADS=4 nbnet info       fewer threads"""

VECTORS = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512bf16", "neon", "sve")


def add_options(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(options: argparse.Namespace) -> int:
    """The command."""
    for name, value in facts():
        print(f"{name + ':':<18} {value}")
    return 0


def facts() -> Iterator[tuple[str, str]]:
    """Names and values in the order of the output."""
    import llvmlite
    import llvmlite.binding as llvm
    import numba
    import numpy as np

    yield "nbnet", __version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    yield "numpy", np.__version__
    yield "numba", numba.__version__
    yield "llvmlite", llvmlite.__version__
    yield "cpu", f"{_cpu_name()} (LLVM: {llvm.get_host_cpu_name()})"
    features = llvm.get_host_cpu_features()
    yield "vector features", " ".join(name for name in VECTORS if features.get(name)) or "none that nbnet knows"
    yield "threads", f"{numba.get_num_threads()} of {processors()} processors (NUMBA_NUM_THREADS; none with backend='serial')"
    yield "spinning", f"{threads.spin_microseconds()} us before a waiting thread sleeps ({threads.VARIABLE}=0: it sleeps at once)"
    yield "fusion", "on (build(fuse=False) turns it off)"
    yield "replay", "on (Trainer(replay=False) turns it off)"
    yield "compile workers", f"{compile_ahead.workers()} ({compile_ahead.VARIABLE}=0 turns them off)"
    yield "memory pool", f"{'on' if memory.POOLED else 'off'} ({memory.VARIABLE}=0 turns it off; nb.empty_cache() empties it)"
    yield "read-ahead", f"{'on' if lazy.READ_AHEAD else 'off'} ({lazy.VARIABLE}=0 turns it off)"
    yield "kernel cache", _kernel_cache()
    yield "data cache", str(download.cache_folder())
    yield "gpu", _gpu()


def _gpu() -> str:
    try:
        return check_cuda()
    except BackendError as error:
        return f"none: {error}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _kernel_cache() -> str:
    """The folder and the number of compiled kernels in it. Without NUMBA_CACHE_DIR each operation has one next to its source."""
    import numba

    config: Any = numba.config
    try:
        path = load("dense.forward", "serial").stats.cache_path  # type: ignore[attr-defined]
    except BackendError as error:
        return f"none: {error}"
    if path is None:
        return "none: kernels are compiled again in each process; set NUMBA_CACHE_DIR to a folder that you can write to"
    path = Path(path)
    if config.CACHE_DIR:
        root, where = Path(config.CACHE_DIR), str(config.CACHE_DIR)
    elif path.name == "__pycache__":
        root, where = path.parent.parent, str(path.parent.parent / "*" / "__pycache__")
    else:
        root, where = path.parent, str(path.parent)
    try:
        check_folder(str(path))
    except BackendError as error:
        return f"refused: {error}"
    files = list(root.rglob("*.nbc"))
    return f"{where}: {len(files)} compiled kernels, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB"
