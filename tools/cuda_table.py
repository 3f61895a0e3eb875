"""Which tests run each CUDA kernel, by mode, and which kernels each public operation runs:

    python tools/cuda_table.py [--complete] [--out benchmarks/results/gpu/tests.txt]

It is also the plugin of pytest that records the calls (`-p cuda_table`, with the file to write in CUDA_TABLE).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = ["tests/gpu", "tests/kernels", "tests/training/test_cuda.py"]
MODES = {"PTX": ("device", ["tests/kernels/gpu/test_ptx.py"]), "simulator": ("simulator", KERNELS), "executor": ("executor", KERNELS)}
OPERATIONS = "tests/gpu/test_operations.py::test_cuda_gives_what_numpy_gives["

# ---------------------------------------------------------------------------------------------------------- the plugin

_called: set[str] = set()
_found: dict[str, list] = {}  # {test: [outcome, kernels]}


def pytest_collection_finish() -> None:
    """Let `load` note the CUDA kernels that are called."""
    from nbnet import kernels

    load = kernels.load

    def noting(op, backend):
        function = load(op, backend)
        if backend != "cuda":
            return function

        @functools.wraps(function)
        def called(*args):
            _called.add(op)
            return function(*args)

        return called

    functools.update_wrapper(noting, load.__wrapped__)
    for module in list(sys.modules.values()):
        if getattr(module, "load", None) is load:
            module.load = noting


def pytest_runtest_setup() -> None:
    _called.clear()


def pytest_runtest_teardown(item) -> None:
    item.user_properties.append(("cuda", sorted(_called)))


def pytest_runtest_logreport(report) -> None:
    """In the process that collects the reports."""
    outcome, _ = _found.setdefault(report.nodeid, [report.outcome, []])
    _found[report.nodeid] = [outcome if outcome != "passed" else report.outcome, dict(report.user_properties).get("cuda", [])]


def pytest_sessionfinish(session) -> None:
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["CUDA_TABLE"]).write_text(json.dumps(_found), encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------- the table


def measure(mode: str, complete: bool, path: Path) -> None:
    """Run the tests of a mode; keep what the plugin finds in a file."""
    name, tests = MODES[mode]
    name += "-complete" * (complete and name != "device")
    python_path = os.pathsep.join(filter(None, [str(ROOT / "tools"), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {"CUDA_TABLE": str(path), "PYTHONPATH": python_path}
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "cuda_table", f"--cuda={name}", *tests], cwd=ROOT, env=env, check=False)


def table(found: dict[str, dict[str, list]]) -> str:
    """Two tables: of kernels, and of public operations."""
    from nbnet.kernels import OPERATIONS as FOLDERS
    from nbnet.kernels import functions, load

    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: {mode: [0, 0] for mode in MODES})
    public: dict[str, dict[str, str]] = defaultdict(dict)
    runs: dict[str, set[str]] = defaultdict(set)
    for mode, tests in found.items():
        for test, (outcome, kernels) in tests.items():
            for kernel in kernels:
                counts[kernel][mode][outcome == "failed"] += outcome != "skipped"
            if test.startswith(OPERATIONS):
                name = test[len(OPERATIONS) : -1]
                public[name][mode] = outcome
                runs[name] |= set(kernels)
    lines = ["Made by tools/cuda_table.py. Tests that call each CUDA kernel, by mode; a number after + has failed.", ""]
    for mode, tests in found.items():
        outcomes = [outcome for outcome, _ in tests.values()]
        lines.append(f"{mode:10} " + ", ".join(f"{outcomes.count(each)} {each}" for each in ("passed", "failed", "skipped")))
    lines += ["", f"{'kernel':42}{'cuda.py':>8}" + "".join(f"{mode:>12}" for mode in MODES)]
    for kernel in (f"{folder}.{name}" for folder in FOLDERS for name in functions(folder)):
        there = callable(load(kernel, "cuda"))
        cells = [f"{good}{f'+{bad}' if bad else ''}" if good or bad else "NONE" for good, bad in counts[kernel].values()]
        lines.append(f"{kernel:42}{'yes' if there else 'NO':>8}" + "".join(f"{cell:>12}" for cell in cells))
    lines += ["", f"{'public operation':58}{'simulator':>12}{'executor':>12}{'PTX':>6}   kernels"]
    for name in public:
        ptx = all(counts[kernel]["PTX"][0] for kernel in runs[name])
        cells = [public[name].get(mode, "not run") for mode in ("simulator", "executor")]
        listed = ", ".join(sorted(runs[name])) or "on the host, or copies"
        lines.append(f"{name:58}{cells[0]:>12}{cells[1]:>12}{'yes' if ptx else 'NO':>6}   {listed}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--complete", action="store_true", help="run all cases")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu" / "tests.txt")
    parser.add_argument("--found", type=Path, default=ROOT / ".numba_cache" / "cuda_table", help="folder of what was found, by mode")
    parser.add_argument("--again", action="store_true", help="run no tests: write the table from what was found")
    options = parser.parse_args()
    options.found.mkdir(parents=True, exist_ok=True)
    found = {}
    for mode in MODES:
        path = options.found / f"{mode}.json"
        if not options.again:
            measure(mode, options.complete, path)
        found[mode] = json.loads(path.read_text(encoding="utf-8"))
    options.out.write_text(table(found), encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
