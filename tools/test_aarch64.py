"""Run a training step and the kernel tests on aarch64, emulated by QEMU on x86-64 with Debian or Ubuntu. Slow, so not in .ci/run.

python tools/test_aarch64.py [pytest arguments]

Nothing is installed: apt-get and pip download QEMU, Debian's Python for arm64 and wheels of nbnet's dependencies into build/aarch64, where
kernels are kept, too. The training step must have the same bits on backends serial and parallel as on x86-64 with AVX2 and FMA; with
AVX-512, sums of a convolution's weight gradient are grouped differently.
"""

import os
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "aarch64"
DEBIAN, SITE, PYTHON = FOLDER / "debian", FOLDER / "site", FOLDER / "python"
PLATFORMS = ["manylinux_2_28_aarch64", "manylinux2014_aarch64", "any"]
OPERATIONS = ("activation", "array", "batchnorm", "conv2d", "dense", "dropout", "groupnorm", "loss", "optimizer", "pool", "resample")
TESTS = ["tests/kernels/cpu", *(f"tests/kernels/test_{name}.py" for name in OPERATIONS)]
SLOW = "test_float32_over_all_bit_patterns or test_many_short_loops"  # for an emulator: millions of numbers, of loops

STEP = """
import hashlib
import numpy as np, nbnet as nb
rng = np.random.Generator(np.random.Philox(0))
images, labels = rng.random((32, 12, 12, 3), dtype=np.float32), rng.integers(0, 10, 32)
for backend in ("serial", "parallel"):
    first = [nb.Conv2D(16, 3), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.Conv2D(16, 3), nb.Tanh()]
    model = nb.Sequential([*first, nb.Flatten(), nb.Dropout(0.25), nb.Dense(10)])
    model.build((12, 12, 3), backend=backend, seed=0)
    trainer = nb.Trainer(model, loss="softmax_cross_entropy", optimizer=nb.Adam(1e-3))
    for _ in range(3):
        trainer.train_batch(images, labels)
    arrays = [array for layer in model.layers for array in (*(p.value for p in layer.params.values()), *layer.buffers.values())]
    print(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16])
"""


def _run(command, cwd=FOLDER, **environment):
    subprocess.run([str(part) for part in command], cwd=cwd, env=os.environ | environment, check=True)


def _download(packages, architecture):
    """Download Debian packages with all that they need, and unpack them. apt-get believes that nothing is installed here."""
    state = FOLDER / f"apt-{architecture}"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    _run([*apt, "update"])
    _run([*apt, "install", "--yes", "--download-only", *packages])
    for package in sorted((state / "archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", package, DEBIAN if architecture == "arm64" else FOLDER / "qemu"])


def set_up():
    """A command that is Python on aarch64, also for the processes that tests start: the kernel here cannot execute its program."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    _download(["qemu-user-static"], "amd64")
    _download(["python3", "libgomp1", "libstdc++6"], "arm64")
    (program,) = (path for path in DEBIAN.glob("usr/bin/python3.*") if path.suffix[1:].isdecimal())
    PYTHON.write_text(f'#!/bin/sh\nexec {FOLDER}/qemu/usr/bin/qemu-aarch64-static -L {DEBIAN} {program} "$@"\n', encoding="utf-8")
    PYTHON.chmod(0o755)
    version = program.name.removeprefix("python")
    needed = [name for name in requires("nbnet") or () if "extra ==" not in name]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--upgrade",
        "--only-binary=:all:",
        *(f"--platform={name}" for name in PLATFORMS),
    ]
    _run([*pip, "--python-version", version, "--target", SITE, *needed, "pytest", "pytest-timeout", "pytest-xdist"])
    (SITE / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(PYTHON)!r}\n", encoding="utf-8")


def digests(python, **environment):
    command = [python, "-c", STEP]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True, text=True).stdout.split()


def main():
    if not PYTHON.exists():
        set_up()
    environment = {"PYTHONPATH": f"{SITE}:{ROOT}", "NUMBA_CACHE_DIR": str(FOLDER / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    there, here = digests(PYTHON, **environment), digests(sys.executable, NUMBA_CPU_NAME="x86-64-v3", NUMBA_CPU_FEATURES="")
    print("the weights after three steps, on serial and parallel:", *there, "on aarch64,", *here, "on x86-64")
    arguments = sys.argv[1:] or ["-k", f"not ({SLOW})", *TESTS]
    _run([PYTHON, "-m", "pytest", "-q", "-n", "0", "--timeout", "3600", *arguments], ROOT, **environment)
    return 0 if len({*there, *here}) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
