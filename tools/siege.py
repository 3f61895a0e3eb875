"""Attacks on nbnet with random cases: python tools/siege.py [--minutes 50] [--seed 0] [bits networks threads kills ranks files onnx soak]

Without names every attack runs, each in a process of its own, in its share of the time. An attack ends earlier when it has tried its number
of cases. The exit code is 1 if a case failed. The same seed tries the same cases.
"""

import argparse
import importlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "16")  # before Numba is imported

CASES = {
    "bits": 3000,
    "networks": 1000,
    "threads": 320,
    "kills": 200,
    "ranks": 40,
    "files": 10_000,
    "onnx": 10_000,
    "soak": None,
}  # None: as many as the time allows
MINUTES = {
    "bits": 8.0,
    "networks": 8.0,
    "threads": 2.0,
    "kills": 10.0,
    "ranks": 10.0,
    "files": 5.0,
    "onnx": 2.0,
    "soak": 15.0,
}  # shares of the time
SHOWN = 20  # failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", choices=[[], *CASES], help=f"{', '.join(CASES)} (default: all)")
    parser.add_argument("--minutes", type=float, default=sum(MINUTES.values()), help="the most that all attacks may take together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = options.attacks or list(CASES)
    if len(names) == 1:
        return run(names[0], options.seed, 60 * options.minutes)
    factor = options.minutes / sum(MINUTES[name] for name in names)
    command = [sys.executable, __file__, "--seed", str(options.seed)]
    codes = [subprocess.run([*command, name, "--minutes", str(factor * MINUTES[name])], check=False).returncode for name in names]
    return int(any(codes))


def run(name, seed, seconds):
    """Run one attack in this process and print what it found."""
    import numpy as np

    attack = importlib.import_module(f"attacks.{name}").attack
    began, tried, failures = time.perf_counter(), 0, []
    with tempfile.TemporaryDirectory() as folder:
        for failure in itertools.islice(attack(np.random.default_rng(seed), Path(folder)), CASES[name]):
            tried += 1
            if failure is not None:
                failures.append(failure)
            if len(failures) == SHOWN or time.perf_counter() - began > seconds:
                break
    print(f"{name}: {tried:,} cases in {(time.perf_counter() - began) / 60:.1f} minutes, {len(failures)} failures", flush=True)
    for failure in failures:
        print(f"  {failure}", flush=True)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
