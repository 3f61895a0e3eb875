"""nbnet bench: kernels and training steps, on nbnet's backends and in other frameworks."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
import textwrap
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from nbnet import distributed, storage
from nbnet.bench import contenders, workloads
from nbnet.bench.plan import Plan
from nbnet.bench.workloads import Workload
from nbnet.cli import info
from nbnet.errors import ArgumentError, DataError, unknown
from nbnet.progress import Bar
from nbnet.runtime.processors import processors
from nbnet.version import __version__

HELP = "Measure kernels and training steps on every backend, and in PyTorch, JAX and TensorFlow where they are installed."
_KERNELS = [op for op in workloads.OPS if op not in workloads.STEPS]
_OPERATIONS = f"training steps: {', '.join(workloads.STEPS)}; kernels: {', '.join(_KERNELS)}; start: process start and peak memory"
EPILOG = f"""Every contender runs in its own process, is checked against the NumPy reference, and then takes turns with the others.
results.json and charts (PNG) are written to --out. The machine should do nothing else during the run.

examples:
  nbnet bench --quick                            a minute (with a warm kernel cache)
  nbnet bench                                    everything: seven to twelve minutes
  nbnet bench --ops conv2d,batchnorm --peers torch,jax
  nbnet bench --ops conv2d --shapes 32x14x14x128-256 --peers none
  nbnet bench --threads 1,2,4,8                  comparison on 8 threads, and cost against threads
  nbnet bench --profile five-conv,airbench       where the time of a training step goes, kernel by kernel
{textwrap.fill(f"operations: {_OPERATIONS}", 130, subsequent_indent="  ")}
peers: torch, torch-kept (malloc keeps freed memory), torch-compile, jax, tensorflow"""

RESULTS = "results.json"
START = "start"
LIMITS: tuple[str, ...] = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "ATEN_CPU_CAPABILITY", "TORCHINDUCTOR_CPP_MARCH", "ONEDNN_MAX_CPU_ISA")
LIMITS += ("MKL_ENABLE_INSTRUCTIONS", "XLA_FLAGS", "NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE")  # variables that choose instructions
FACTS = ("python", "cpu", "vector features")  # of nbnet info


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ops", metavar="NAMES", help="operations, separated by commas (default: all)")
    parser.add_argument("--backends", metavar="NAMES", help="numpy, serial, parallel, cuda (default: all that run here)")
    parser.add_argument("--peers", metavar="NAMES", help="frameworks, or none (default: all that are installed)")
    parser.add_argument("--shapes", metavar="SHAPES", help="your own sizes for kernels, such as 128x32x32x64 (instead of the default ones)")
    parser.add_argument(
        "--threads", metavar="COUNTS", help="thread counts; the comparison uses the largest (default: 1, 2, 4, ... all processors)"
    )
    parser.add_argument(
        "--profile", metavar="MODELS", help="profile a training step of these models instead: time and floor of each kernel"
    )
    parser.add_argument(
        "--mpi", action="store_true", help="count the messages and bytes of training steps instead: mpiexec -n 2 nbnet bench --mpi"
    )
    parser.add_argument("--out", metavar="DIR", default="runs/bench", help="folder for the results (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="fewer and smaller workloads, fewer turns: a first impression, not a measurement"
    )


def run(options: argparse.Namespace) -> int:
    """The command."""
    if options.mpi:
        return _mpi(options)
    if options.profile is not None:
        return _profile(options)
    plan = make_plan(options)
    folder = _folder(options.out)
    report = {"command": _command(options), "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), **machine(plan)}
    with Bar(plan.steps(), "bar count elapsed name") as bar:
        begun = itertools.count()
        report |= plan.run(lambda name: bar.update(next(begun), name=name))
    storage.write_json(folder / RESULTS, report)

    from nbnet.bench import charts, tables

    tables.show(report)
    pictures = charts.draw(report, folder)
    print(f"{folder}: {', '.join([RESULTS, *pictures])}, in {report['seconds']:.0f} s")
    wrong = [(row["workload"], name, why) for row in report["results"] for name, why in row["failed"].items()]
    for workload, name, why in wrong:
        print(f"not timed: {name}, {workload}: {why}", file=sys.stderr)
    for name, why in report["absent"].items():
        print(f"not started: {name}: {why}", file=sys.stderr)
    return 1 if any(name in contenders.OURS for _, name, _ in wrong) else 0


def _mpi(options: argparse.Namespace) -> int:
    """Print what training steps send between ranks."""
    from nbnet.bench import ranks

    for option in ("ops", "backends", "peers", "shapes", "threads", "profile", "quick"):
        if getattr(options, option):
            raise ArgumentError(f"got --{option} with --mpi, expected --mpi alone: leave --{option} out")
    comm = distributed.world()
    threads, count, here = distributed.share_processors(comm)
    table = [
        f"mpi: {comm.Get_size()} ranks, threads of each: {threads} ({count} processors for {here} ranks on this node)",
        *ranks.lines(comm),
    ]
    if comm.Get_rank() == 0:
        print("\n".join(table))
    return 0


def _profile(options: argparse.Namespace) -> int:
    """Print the profiles of models, and write each to a file."""
    from nbnet.bench.profile import ROUNDS, WARM, Profile, lines

    for option in ("ops", "backends", "peers", "shapes", "threads", "quick"):
        if getattr(options, option):
            hint = "set the environment variable NUMBA_NUM_THREADS" if option == "threads" else f"leave --{option} out"
            raise ArgumentError(f"got --{option} with --profile, expected only --out with it: {hint}")
    profiles = [Profile(name) for name in _words(options.profile, "--profile")]
    folder = _folder(options.out)
    for profile in profiles:
        with Bar(WARM + ROUNDS, "name bar count elapsed") as bar:
            found = profile.run(partial(bar.update, name=profile.name))
        text = "\n".join(lines(found)) + "\n"
        storage.write_json(folder / f"profile-{profile.name}.json", found)
        storage.write_file(folder / f"profile-{profile.name}.md", text.encode())
        print(text)
    print(f"{folder}: {', '.join(f'profile-{profile.name}.md and .json' for profile in profiles)}")
    return 0


def _folder(out: str) -> Path:
    folder = Path(os.path.expanduser(out))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot create the folder {folder}: {error.strerror or error}; choose a writable one with --out") from error
    return folder


# ------------------------------------------------------------------------------------------------------- the options


def make_plan(options: argparse.Namespace) -> Plan:
    """The plan that the options describe.

    Raises:
        ArgumentError, BackendError: an option names something that does not exist or is not installed.
    """
    ops = [*workloads.OPS, START] if options.ops is None else _words(options.ops, "--ops")
    for op in ops:
        if op not in (*workloads.OPS, START):
            raise ArgumentError(unknown("operation", op, [*workloads.OPS, START]))
    chosen = [each for each in workloads.standard(options.quick) if each.op in ops]
    if options.shapes is not None:
        chosen = _shaped(_words(options.shapes, "--shapes"), ops)
    backends = contenders.default_backends()
    if options.backends is not None:
        backends = [contenders.backend(name) for name in _words(options.backends, "--backends")]
    if options.peers is None:
        peers = list(contenders.default_peers().values())
        if options.quick:
            peers = [peer for peer in peers if peer.quick]  # the others take too long to start or compile
    elif options.peers == "none":
        peers = []
    else:
        peers = [contenders.peer(name) for name in _words(options.peers, "--peers")]
    threads = _threads(options.threads)
    if options.quick and options.threads is None:
        threads = threads[-1:]
    return Plan(backends, peers, chosen, threads, START in ops and options.shapes is None, options.quick)


def _words(text: str, option: str) -> list[str]:
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise ArgumentError(f"{option} {text!r}: expected one or more names, separated by commas")
    return words


def _shaped(shapes: list[str], ops: list[str]) -> list[Workload]:
    found: list[Workload] = []
    for shape in shapes:
        fitting = [each for op in ops for each in workloads.of_shape(op, shape) or []]
        if not fitting:
            forms = ", ".join(f"{op} {workloads.FORMS[op]}" for op in ops if op in workloads.FORMS) or "--ops with a kernel, such as conv2d"
            raise ArgumentError(f"--shapes {shape}: fits none of the chosen operations; expected {forms}")
        found += fitting
    return found


def _threads(text: str | None) -> list[int]:
    """Thread counts in ascending order."""
    most = processors()
    if text is None:
        return sorted({*(1 << i for i in range(10) if 1 << i < most), most})
    try:
        counts = sorted({int(word) for word in _words(text, "--threads")})
    except ValueError:
        counts = [0]
    if counts[0] < 1 or counts[-1] > most:
        raise ArgumentError(f"--threads {text}: expected whole numbers from 1 to {most}, the processors of this machine")
    return counts


def _command(options: argparse.Namespace) -> str:
    given = [(name, getattr(options, name)) for name in ("ops", "backends", "peers", "shapes", "threads")]
    limits = [f"{name}={shlex.quote(os.environ[name])}" for name in LIMITS if name in os.environ]
    return " ".join(
        [*limits, "nbnet bench", *(f"--{name} {value}" for name, value in given if value), *(["--quick"] if options.quick else [])]
    )


# ------------------------------------------------------------------------------------------------------- the machine


def machine(plan: Plan) -> dict[str, Any]:
    """The machine, and the versions of everything that takes part."""
    facts = dict(info.facts())
    packages = ["numpy", "numba", "llvmlite", *dict.fromkeys(peer.package for peer in plan.peers)]
    distributions = packages_distributions()  # tensorflow, for one, comes from tensorflow or tensorflow-cpu; Python 3.10 misses some
    versions = {"nbnet": __version__} | {package: version(distributions.get(package, [package])[0]) for package in packages}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {"machine": {name: facts[name] for name in FACTS} | {"processors": processors(), "memory_bytes": memory}, "versions": versions}
