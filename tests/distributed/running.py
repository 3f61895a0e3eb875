"""Runs programs on several ranks."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
LONGEST = 250  # seconds, with kernels that are not compiled yet


def needs_mpi():
    pytest.importorskip("mpi4py", reason="there is no mpi4py: pip install 'nbnet[mpi]'")
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec: pip install 'nbnet[mpi]'")


def environment(threads):
    return os.environ | {"NUMBA_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(HERE.parents[1])}


def start(ranks, *words, threads=1, **options):
    """A process of mpiexec that runs python with these words."""
    command = [MPIEXEC, "-n", str(ranks), sys.executable, *map(str, words)]
    return subprocess.Popen(command, env=environment(threads), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run(ranks, *words, threads=1, **options):
    """Exit code, stdout and stderr."""
    process = start(ranks, *words, threads=threads, **options)
    try:
        out, err = process.communicate(timeout=LONGEST)
    finally:
        process.kill()
    return process.returncode, out, err
