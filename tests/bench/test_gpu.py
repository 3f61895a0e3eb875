"""benchmarks/gpu.py runs: in the simulator at toy size, on a GPU some cases of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_machine import EXECUTED, GPU, SIMULATED

pytestmark = pytest.mark.skipif(EXECUTED or not (SIMULATED or GPU), reason="there is no GPU: use --cuda=simulator")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_it_checks_times_and_writes(tmp_path):
    only = [] if SIMULATED else ["--only", "ReLU"]
    done = subprocess.run([sys.executable, "-W", "ignore", SCRIPT, "--out", tmp_path, *only], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert results["simulated"] is SIMULATED
    names = [row["name"] for row in results["rows"]]
    words = "ReLU + max pool", "dropout", "conv2d", "with statistics", "max pool 2x2", "cross-entropy", "Adam"
    for word in words if SIMULATED else ("ReLU",):
        assert any(word in name for name in names), word
    assert all(row["ms"]["nbnet"] > 0 for row in results["rows"])
    assert (tmp_path / "gpu.png").stat().st_size > 1000
