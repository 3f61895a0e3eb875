"""Mutation testing: plants small faults in a copy of nbnet and runs the tests that concern them: python tools/mutate.py
[--outside 60] [--kernels 0] [--seed 0] [--minutes 30] [--folder nbnet/training ...]

A fault that no test notices has survived: it is a missing test, or the change has no effect. The report has each survivor, and a score for
each folder. The exit code is 1 if one survived. The same seed draws the same faults from the same sources. The copies, in build/mutants/,
are kept with their compiled kernels; the first run compiles them (minutes).

nbnet/bench/peers is left out unless --folder names it: most machines lack its frameworks, and nbnet bench itself compares what a peer
computes with the NumPy reference before it times it, so that a wrong peer is not timed (tests/bench/test_measure.py).
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from xml.etree import ElementTree

from mutations import is_fault, mutations, planted

ROOT = Path(__file__).resolve().parents[1]
COPIES = ROOT / "build" / "mutants"
KERNELS = "nbnet/kernels"
LEFT_OUT = "nbnet/bench/peers"
# Tests of a module that its name does not tell: the first part of its path, and files or folders. See tests_of.
TESTS = {
    "nbnet/__init__.py": ["tests/test_api.py", "tests/test_docs.py", "tests/test_floors.py", "tests/test_examples.py"],
    "nbnet/__main__.py": ["tests/cli/test_help.py"],
    "nbnet/bench": ["tests/bench"],
    "nbnet/cli/bench.py": ["tests/bench"],
    "nbnet/cli/demo.py": ["tests/demos"],
    "nbnet/cli/page.py": ["tests/demos"],
    "nbnet/cli": ["tests/test_api.py"],
    "nbnet/errors.py": ["tests/test_hints.py"],
    "nbnet/folding.py": ["tests/test_batchnorm_tools.py", "tests/layers/test_fusion.py"],
    "nbnet/functional": [
        "tests/functional",
        "tests/test_api.py",
        "tests/test_arguments.py",
        "tests/layers",
        "tests/runtime/test_replay.py",
    ],
    "nbnet/initializers.py": ["tests/layers/test_layers.py"],
    "nbnet/kernels": ["tests/kernels"],
    "nbnet/layers": [
        "tests/test_api.py",
        "tests/test_arguments.py",
        "tests/test_models.py",
        "tests/layers",
        "tests/runtime/test_replay.py",
        "tests/training",
        "tests/test_batchnorm_tools.py",
        "tests/test_copies.py",
    ],
    "nbnet/losses": ["tests/losses", "tests/training/test_several_inputs.py", "tests/training/test_training.py", "tests/test_hints.py"],
    "nbnet/onnx": ["tests/onnx_files"],
    "nbnet/optimizers": [
        "tests/optimizers",
        "tests/test_golden.py",
        "tests/layers/test_parameters.py",
        "tests/training",
        "tests/test_copies.py",
    ],
    "nbnet/preprocessing.py": ["tests/losses", "tests/datasets", "tests/test_hints.py", "tests/training/test_training.py"],
    "nbnet/regularizers.py": ["tests/layers", "tests/training"],
    "nbnet/runtime": ["tests/runtime", "tests/layers", "tests/training", "tests/test_copies.py"],
    "nbnet/schedules.py": ["tests/training/test_rates.py", "tests/training/test_training.py"],
    "nbnet/sklearn": ["tests/sklearn_estimators"],
    "nbnet/storage.py": ["tests/training/test_resuming.py"],
    "nbnet/version.py": ["tests/cli/test_help.py"],
    "nbnet/training": [
        "tests/test_api.py",
        "tests/training",
        "tests/losses",
        "tests/optimizers",
        "tests/test_copies.py",
        "tests/test_hints.py",
    ],
}
ON_CUDA = "tests/training/test_cuda.py"  # runs in the simulator for faults outside of the kernels that no other test notices
OF_PTX = "tests/kernels/gpu"  # run without the simulator, for faults in CUDA kernels that the simulator does not find
SLOW = 5  # seconds: tests that take longer are left out
MEMORY = 12 << 30  # bytes that a mutant may ask for


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outside", type=int, default=60, help="how many faults outside of nbnet/kernels")
    parser.add_argument("--kernels", type=int, default=0, help="how many faults in nbnet/kernels, whose kernels are compiled for each one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0, help="no fault is planted after this time")
    parser.add_argument("--folder", action="append", default=[], help="only in this folder or file (default: all)")
    options = parser.parse_args(arguments)
    end, results = time.perf_counter() + 60 * options.minutes, []
    for name, count in (("outside", options.outside), ("kernels", options.kernels)):
        drawn = draw(ROOT, count, options.seed, options.folder, name == "kernels")
        if drawn:
            results += Trial(copied(ROOT, COPIES / name)).run(drawn, end)
    return report(results)


def draw(root, count, seed, folders, in_kernels):
    """Pairs of a module, as a path below root, and a mutation of it, of each kind about as many."""
    found, drawn, random = {}, [], Random(seed)
    for path in sorted((root / "nbnet").rglob("*.py")):
        module = path.relative_to(root).as_posix()
        if below(module, [KERNELS]) == in_kernels and "__pycache__" not in module and _is_wanted(module, folders):
            for mutation in mutations(path.read_text(encoding="utf-8")):
                found.setdefault(mutation.kind, []).append((module, mutation))
    while len(drawn) < count and any(found.values()):
        kind = random.choice(sorted(filter(found.get, found)))
        module, mutation = found[kind].pop(random.randrange(len(found[kind])))
        if is_fault((root / module).read_text(encoding="utf-8"), mutation):
            drawn.append((module, mutation))
    return drawn


def _is_wanted(module, folders):
    if not folders:
        return not below(module, [LEFT_OUT])
    return below(module, folders) and (not below(module, [LEFT_OUT]) or any(below(folder, [LEFT_OUT]) for folder in folders))


def below(path, folders):
    return any(f"{path}/".startswith(f"{folder.strip('/')}/") for folder in folders)


def copied(root, target):
    """A copy of the files that git does not ignore. Files that are the same stay as they are, and so do the kernels compiled from them."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    wanted = {name for name in names if (root / name).is_file()}
    for path in [*target.rglob("*.py")]:
        if path.relative_to(target).as_posix() not in wanted and not {".numba_cache", "__pycache__"} & set(path.parts):
            path.unlink()
    for name in wanted:
        source, copy = root / name, target / name
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    return target


def tests_of(root, module):
    """The test files of a module, most likely ones first: of nbnet/a/b.py tests/a/test_b.py, then those of TESTS, then tests/a/."""
    parts = Path(module).with_suffix("").parts[1:]
    own = [f"tests/{'/'.join([*parts[:-1], f'test_{parts[-1]}'])}.py", *(f"tests/test_{part}.py" for part in parts)]
    own += [f"tests/{parts[0]}/test_{part}.py" for part in parts[1:]]
    others = [name for prefix, names in TESTS.items() if below(module, [prefix]) for name in names]
    found = []
    for name in [*own, *others, f"tests/{'/'.join(parts[:-1])}" if len(parts) > 1 else ""]:
        path = root / name
        found += [path] if path.is_file() else sorted(path.rglob("test_*.py")) if name and path.is_dir() else []
    own = [root / name for name in own]
    return [path.relative_to(root).as_posix() for path in dict.fromkeys(found)], sum(path.is_file() for path in dict.fromkeys(own))


class Trial:
    """Runs the tests of a copy, with one fault at a time."""

    def __init__(self, root):
        self.root = root
        self.seconds = Counter()  # of each test file without a fault
        self.left_out = set()  # tests that fail anyway, or take long
        self.of_ptx, self.not_of_ptx = {}, []  # seconds of the tests of OF_PTX without the simulator, and what leaves out those that fail

    def run(self, drawn, end):
        """Triples of a module, a mutation and whether it was found, until the time is over."""
        for simulated in (False, True):
            modules = {module for module, _ in drawn if needs_cuda(module) == simulated}
            self.measure(sorted({test for module in modules for test in tests_of(self.root, module)[0]}), simulated)
        if any(needs_cuda(module) for module, _ in drawn) and (self.root / OF_PTX).is_dir():
            self.of_ptx, failed = self.times([OF_PTX], simulated=False)
            self.not_of_ptx = [f"--deselect={test}" for test in failed]
        results = []
        for module, mutation in drawn:
            if time.perf_counter() > end:
                print(f"{len(drawn) - len(results)} faults are left: the time is over", flush=True)
                break
            began = time.perf_counter()
            noticed, by = self.plant(module, mutation)
            results.append((module, mutation, noticed))
            outcome = "found" if noticed else "SURVIVED"
            print(f"{outcome:8} {shown(module, mutation)}  ({time.perf_counter() - began:.0f} s{by})", flush=True)
        return results

    def measure(self, files, simulated):
        """Run test files without a fault. Tests that fail or take long are left out from now on."""
        times, failed = self.times(files, simulated)
        slow = [test for test, seconds in times.items() if seconds > SLOW]
        times |= self.times(slow, simulated)[0]  # again: kernels may have been compiled
        slow = [test for test in slow if times[test] > SLOW]
        for reason, tests in (("it fails without a fault", failed), (f"it takes more than {SLOW} s", slow)):
            self.left_out |= set(tests)
            for test in tests:
                print(f"left out, since {reason}: {test}", flush=True)
        for test in times.keys() - self.left_out:
            self.seconds[test.partition("::")[0]] += times[test]

    def times(self, tests, simulated):
        """How many seconds each test takes that passes, and those that fail."""
        passed, failed = {}, []
        if tests:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "tests.xml"
                _, output = self.pytest(
                    [f"--junit-xml={path}", "-o", "junit_family=xunit1", "--continue-on-collection-errors", *tests], 3600, simulated
                )
                if not path.is_file():  # a wrong command, or a crash
                    sys.exit(f"the tests do not run without a fault:\n{output}")
                cases = ElementTree.parse(path).findall(".//testcase")
            for case in cases:
                file = case.get("file") or f"{case.get('name').replace('.', '/')}.py"  # a file that cannot be imported has no tests
                test = f"{file}::{case.get('name')}"
                if case.find("failure") is not None or case.find("error") is not None:
                    failed.append(test)
                else:
                    passed[test] = float(case.get("time"))
        return passed, failed

    def plant(self, module, mutation):
        """Plant a fault, run the tests, and take it back. Returns whether it was found, and by which test."""
        tests, first = tests_of(self.root, module)
        tests = [*tests[:first], *sorted(tests[first:], key=self.seconds.__getitem__)]
        tests = [test for test in tests if test in self.seconds]
        if not tests:
            return False, ", no tests"
        left_out = [f"--deselect={test}" for test in sorted(self.left_out) if test.partition("::")[0] in tests]
        path = self.root / module
        before, times = path.read_bytes(), path.stat()
        try:
            path.write_bytes(planted(before.decode(), mutation).encode())
            code, output = self.pytest(["-x", *left_out, *tests], 60 + 3 * sum(map(self.seconds.get, tests)), needs_cuda(module))
            if code == 0 and not below(module, [KERNELS]) and (self.root / ON_CUDA).is_file():
                code, output = self.pytest(["-x", ON_CUDA], 600, simulated=True)
            if code == 0 and needs_cuda(module) and self.of_ptx:
                code, output = self.pytest(["-x", *self.not_of_ptx, OF_PTX], 60 + 3 * sum(self.of_ptx.values()))
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # Numba compiles again what is newer
        failed = [line.split(" - ")[0].split(" ", 1)[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        return code != 0, f", {failed[0] if failed else f'exit code {code}'}" if code != 0 else ""

    def pytest(self, arguments, timeout, simulated=False):
        """The exit code and the output of pytest; None for a code if it took too long."""
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(self.root)}
        where = ["--cuda=simulator"] if simulated else []
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *where, *arguments]
        process = subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, text=True
        )
        try:
            output, _ = process.communicate(timeout=timeout)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            with suppress(ProcessLookupError, AttributeError):  # its own processes too
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()


def needs_cuda(module):
    """Whether the tests of a module need Numba's simulator of a GPU."""
    return "gpu" in Path(module).parts or Path(module).name.startswith("cuda")


def shown(module, mutation):
    return f"{module}:{mutation.line}  {' '.join(mutation.before.split())}  ->  {mutation.after}"


def report(results):
    """Print the score of each folder and all survivors."""
    drawn, found = Counter(), Counter()
    for module, _, noticed in results:
        folder = "/".join(Path(module).parts[:3]) if below(module, [KERNELS]) else "/".join(Path(module).parts[:2])
        drawn[folder] += 1
        found[folder] += noticed
    for folder, count in [*sorted(drawn.items()), ("all", drawn.total())]:
        number = found[folder] if folder != "all" else found.total()
        print(f"{folder:40} {number:4} of {count:4} found")
    survivors = [shown(module, mutation) for module, mutation, noticed in results if not noticed]
    print(*survivors, sep="\n")
    return int(bool(survivors))


if __name__ == "__main__":
    if sys.platform != "win32":  # a fault may ask for memory without end
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    sys.exit(main())
