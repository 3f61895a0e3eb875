"""nbnet train on the digits, from start to end: with an empty kernel cache, and with a warm one.

python benchmarks/first_run.py [--out benchmarks/results/first-run/results.json]

Each run is a process of its own. The same runs with NUMBA_CPU_NAME=znver3 and NUMBA_CPU_FEATURES= compile for AVX2.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbnet as nb
from nbnet.cli import info
from nbnet.storage import write_json

MACHINES = {"AVX-512": {}, "AVX2": {"NUMBA_CPU_NAME": "znver3", "NUMBA_CPU_FEATURES": ""}}
WARM = 3


def train(cache, out, environment):
    """Seconds of one run, and its test accuracy."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "nbnet", "train", "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | environment | {"NUMBA_CACHE_DIR": str(cache)})
    seconds = time.perf_counter() - began
    (history,) = out.rglob("history.json")
    return seconds, json.loads(history.read_text(encoding="utf-8"))["val_accuracy"][-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the figures there, too")
    options = parser.parse_args()
    rows = []
    for name, environment in MACHINES.items():
        with tempfile.TemporaryDirectory() as folder:
            runs = [train(Path(folder) / "cache", Path(folder) / str(i), environment) for i in range(1 + WARM)]
        rows.append({"compiled_for": name, "cold": runs[0][0], "warm": sorted(seconds for seconds, _ in runs[1:]), "accuracy": runs[0][1]})
        print(rows[-1], flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        about = {"command": "python benchmarks/first_run.py", "date": str(datetime.date.today()), "cpu": dict(info.facts())["cpu"]}
        write_json(options.out, about | {"versions": {"nbnet": nb.__version__}, "rows": rows})


if __name__ == "__main__":
    main()
