"""Measure everything that the README and the site show, and write its figures into them. On a machine that does nothing else:

python benchmarks/measure.py [NAMES] [--runs 3] [--images FOLDER]

cpu           nbnet bench, three times: results/cpu, with the charts of the run nearest to the medians
avx2          nbnet bench with AVX2 at most, in nbnet and in its peers: results/avx2
profiles      each kernel of a training step beside its floor
growth, prediction, augmentation, commands, distributed    the programs of these names; distributed needs nbnet[mpi] and mpiexec
demos         nbnet demo, and the pictures of its pages
sse           nbnet bench with SSE at most, only where it is named: results/sse

Without names all but sse are run, about an hour. --images is CIFAR-10 as images, for demos and commands. The programs run in
this Python, so activate an environment with torch, jax, tensorflow-cpu, onnx, onnxruntime and scikit-learn.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from math import log
from pathlib import Path
from statistics import median

from nbnet.bench.report import combined, read

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks") / "results"
MODELS = ("airbench", "digits-cnn", "five-conv", "mlp", "mnist-cnn", "mobile")
AVX2 = {
    "NUMBA_CPU_NAME": "znver3",
    "NUMBA_CPU_FEATURES": "",
    "ATEN_CPU_CAPABILITY": "avx2",
    "TORCHINDUCTOR_CPP_MARCH": "znver3",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4",
    "OPENBLAS_CORETYPE": "Haswell",
}
SSE = AVX2 | {
    "NUMBA_CPU_NAME": "x86-64",
    "ATEN_CPU_CAPABILITY": "default",
    "TORCHINDUCTOR_CPP_MARCH": "x86-64",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
    "OPENBLAS_CORETYPE": "Nehalem",
}


def bench(folder, runs, limits, options):
    """nbnet bench several times: results.json and the charts of the run nearest to the medians, results-2.json and so on of the others."""
    with tempfile.TemporaryDirectory() as made:
        folders = [Path(made) / str(run) for run in range(runs)]
        for each in folders:
            python("-m", "nbnet", "bench", "--out", str(each), *options, environment=limits)
        folders.insert(0, folders.pop(nearest_to_medians([read(each / "results.json") for each in folders])))
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
        for path in (ROOT / folder).glob("results-*.json"):  # of an earlier measurement, perhaps with more runs
            path.unlink()
        for path in folders[0].iterdir():
            shutil.copy(path, ROOT / folder / path.name)
        for run, each in enumerate(folders[1:], 2):
            shutil.copy(each / "results.json", ROOT / folder / f"results-{run}.json")


def nearest_to_medians(reports):
    """The number of the run whose times differ least from the medians of all."""
    lines = [line for line in combined(reports)["summary"] if len(line["nbnet_each"]) == len(reports)]
    return min(range(len(reports)), key=lambda run: median(abs(log(line["nbnet_each"][run] / line["nbnet"])) for line in lines))


def program(name, *options):
    """One of the other programs."""
    python(f"benchmarks/{name}.py", *options, "--out", str(RESULTS / name / "results.json"))


def python(*words, environment=None):
    print(shlex.join([*(f"{key}={value}" for key, value in (environment or {}).items()), "python", *words]), flush=True)
    ours = {
        name: value for name, value in os.environ.items() if name not in AVX2
    }  # the machine's own instructions, or those of `environment`
    run = ours | {"PYTHONPATH": str(ROOT)} | (environment or {})
    subprocess.run([sys.executable, *words], cwd=ROOT, env=run, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="of nbnet bench, for cpu (default: %(default)s)")
    parser.add_argument("--bench", default="", metavar="OPTIONS", help="of nbnet bench, such as '--quick'")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="CIFAR-10 as images")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results of nbnet bench (default: %(default)s)")
    steps = {
        "cpu": lambda: bench(options.out / "cpu", options.runs, None, shlex.split(options.bench)),
        "avx2": lambda: bench(options.out / "avx2", 1, AVX2, shlex.split(options.bench)),
        "sse": lambda: bench(options.out / "sse", 1, SSE, shlex.split(options.bench)),
        "profiles": lambda: python("-m", "nbnet", "bench", "--profile", ",".join(MODELS), "--out", str(RESULTS / "profiles")),
        "growth": lambda: python("benchmarks/growth.py"),
        "distributed": lambda: python("benchmarks/distributed.py"),
        "prediction": lambda: program("prediction"),
        "augmentation": lambda: program("augmentation"),
        "demos": lambda: python("benchmarks/demo_pages.py", *images),
        "commands": lambda: program("commands", *images),
    }
    parser.add_argument("names", nargs="*", help=f"{', '.join(steps)} (default: all but sse)")
    options = parser.parse_args()
    images = ["--images", str(options.images.resolve())] if options.images else []
    names = options.names or [name for name in steps if name != "sse"]
    for name in names:
        if name not in steps:
            parser.error(f"got {name!r}, expected {', '.join(steps)}")
    if "commands" in names and options.images is None:
        parser.error("commands needs --images: expected CIFAR-10 as images")
    for name in names:
        steps[name]()
    if options.out == RESULTS:
        python("benchmarks/readme.py")


if __name__ == "__main__":
    main()
