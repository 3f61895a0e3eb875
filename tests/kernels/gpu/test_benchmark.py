"""benchmarks/gpu.py: its cases give what NumPy gives, and it lists what the compiler tells of their kernels without a GPU."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_machine import GPU, INSTALLED, SIMULATED

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.skipif(not (SIMULATED or GPU), reason="there is no GPU: use --cuda=simulator or --cuda=executor")
def test_cases_are_right(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    check = runpy.run_path(str(BENCHMARKS / "gpu.py"))["check"]  # tests/gpu has its name
    import gpu_cases

    for case in gpu_cases.cases(True):
        check(case)


@pytest.mark.skipif(SIMULATED or not INSTALLED, reason="registers are those of compiled kernels")
def test_registers_and_occupancy_without_a_gpu():
    nvidia = pytest.importorskip("nvidia")
    if not any(any(Path(root).rglob("ptxas")) for root in nvidia.__path__):
        pytest.skip("the toolkit has no ptxas")
    command = [sys.executable, BENCHMARKS / "gpu.py", "--static", "--only", "max pool 2x2"]
    env = os.environ | {"NUMBA_ENABLE_CUDASIM": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = [line.split() for line in done.stdout.splitlines() if line.startswith("  _max_forward4")]
    _, grid, block, registers, spills, shared, occupancy, megabytes, _ = line
    assert (grid, block, spills, shared, megabytes) == ("4096", "256", "0", "0", "83.9")
    assert 30 < int(registers) < 80
    assert occupancy in ("50%", "62%", "75%", "100%")
